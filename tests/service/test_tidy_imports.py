import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from patience import PATIENCE_S

ROOT = Path(__file__).parents[2]

# A part of service/ imports only parts of lower layers; the lowest come first.
LAYERS = [
    {"tensors", "errors", "latency_tables", "bell", "gate", "cgroup", "stubs"},
    {"devices", "machine"},
    {"settings"},
    {"logs", "metrics", "doctor", "images", "answers", "deadline", "uploads"},
    {"journal", "decoding", "engines", "cache"},
    {"batching"},
    {"repository", "sharing", "bench"},
    {"health", "inference", "simulation"},
    {"rest", "rpc", "client"},
    {"server", "profile"},
    {"cli"},
]
LAYER = {part: height for height, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"openvino", "mindspore", "mindspore_lite", "torch", "onnxruntime"}
FORBIDDEN = {"pickle", "shelve", "marshal"}  # they run what they read; of yaml, ruff allows only what is safe
CHILD = PurePosixPath("service/engines/child")
BARE = PurePosixPath("service/bench/bare.py")  # what engines are held against
CHILD_PYTHON = (3, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import: `a.b` for `import a.b`, and `a.b.c` for `from a.b import c`, which may be a module or a name."""

    file: PurePosixPath
    line: int
    name: str

    @property
    def top(self) -> str:
        return self.name.split(".", 1)[0]

    @property
    def part(self) -> str:
        """The part of service/ that is imported, "" for service/__init__.py itself."""
        part = self.name.split(".")[1:2]
        return part[0] if part and part[0] != "__version__" else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


def _imports(root: Path) -> Iterator[Import]:
    for path in sorted([*root.glob("service/**/*.py"), *root.glob("models/**/*.py")]):
        file = PurePosixPath(path.relative_to(root).as_posix())
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            for name in _names(node, file):
                yield Import(file=file, line=getattr(node, "lineno", 0), name=name)


def _names(node: ast.AST, file: PurePosixPath) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            above = file.parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            return [f"{module}.{alias.name}" for alias in node.names]
        case ast.Call(
            func=ast.Name(id=call) | ast.Attribute(attr=call), args=[ast.Constant(value=str(name)), *_]
        ):
            return [name] if call in {"import_module", "__import__"} else []
    return []


def _part_of(file: PurePosixPath) -> str:
    """Tell which part of service/ a file belongs to, "" for service/__init__.py."""
    return PurePosixPath(file.parts[1]).stem.removeprefix("__init__")


def _faults(root: Path) -> list[str]:
    return [f"{found}: {fault}" for found in _imports(root) for fault in _faults_of(found)]


def _faults_of(found: Import) -> Iterator[str]:
    here = found.file.parts[0]
    if found.top in {"service", "models"} and found.top != here:
        yield "service and models know nothing of each other"
    if found.top in FORBIDDEN:
        yield "it runs what it reads"
    if here == "service":
        yield from _faults_in_service(found)


def _faults_in_service(found: Import) -> Iterator[str]:
    is_engine = found.file.parent == CHILD and found.file.name.startswith("engine_")
    if found.top in HEAVY and not is_engine and found.file != BARE:
        yield "a heavy library belongs into its engine's file"
    if found.file.parent == CHILD:
        yield from _faults_in_child(found, is_engine=is_engine)
    elif found.top == "service":
        yield from _faults_of_layers(_part_of(found.file), found.part)


def _faults_in_child(found: Import, *, is_engine: bool) -> Iterator[str]:
    own = {found.file.stem.removeprefix("engine_")} & HEAVY if is_engine else set()
    if found.top not in {*sys.stdlib_module_names, "numpy", "wire", *own}:
        yield "an engine process has only the standard library, numpy, wire and its own engine's library"


def _faults_of_layers(importer: str, imported: str) -> Iterator[str]:
    if importer == imported:
        return
    if importer == "client" and imported != "stubs":
        yield "the client knows nothing of the server but the stubs"
    elif imported and imported not in LAYER:
        yield f"{imported} is in no layer"
    elif imported and LAYER[imported] >= LAYER.get(importer, -1):
        yield f"{importer or 'the package'} is not above {imported}"


def _children(root: Path) -> list[Path]:
    return sorted((root / CHILD).glob("*.py"))


# The repository itself


def test_imports_lead_downwards_only() -> None:
    assert _faults(ROOT) == []


def test_each_part_of_the_service_has_a_layer() -> None:
    parts = {path.stem for path in (ROOT / "service").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__"} == LAYER.keys()


def test_engine_processes_need_no_newer_python_than_3_7() -> None:
    for path in _children(ROOT):
        ast.parse(path.read_bytes(), str(path), feature_version=CHILD_PYTHON)


def test_python_3_7_itself_compiles_what_engine_processes_run() -> None:
    for python in (Path.home() / ".pyenv/versions").glob("3.7*/bin/python"):
        program = "import sys; [compile(open(name, 'rb').read(), name, 'exec') for name in sys.argv[1:]]"
        subprocess.run([python, "-I", "-c", program, *_children(ROOT)], check=True, timeout=PATIENCE_S)


def test_there_are_files_to_look_at() -> None:
    files = {found.file for found in _imports(ROOT)}
    assert {CHILD / "wire.py", CHILD / "__main__.py", PurePosixPath("service/server.py")} <= files
    assert {PurePosixPath("models/bundle.py"), PurePosixPath("models/cli.py")} <= files
    assert len(_children(ROOT)) >= 4


# The rules, on trees of one file


def _tree(root: Path, file: str, text: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("service/server.py", "from service.rest import build_app"),
        ("service/server.py", "from service import __version__"),
        ("service/rest/app.py", "from service.rest.bodies import read_body"),
        ("service/rest/app.py", "from service import errors, journal"),
        ("service/rest/deep/app.py", "from ...errors import ServiceError"),
        ("service/rest/deep/app.py", "from . import other\nfrom .. import bodies"),
        ("service/client/client.py", "from service.stubs.cardinal.v1 import classifier_pb2\nimport grpc"),
        ("service/engines/process.py", "from service.engines.child import wire"),
        ("service/engines/child/engine_openvino.py", "import os, numpy.linalg, openvino.runtime, wire"),
        ("service/engines/child/engine_mindspore_lite.py", "import mindspore_lite as lite"),
        ("models/graph.py", "import torch, onnx\nfrom models.layers import topology"),
        ("service/logs.py", "import json\nvalue = load('pickle')"),
    ],
)
def test_an_import_that_is_allowed_is_no_fault(tmp_path: Path, file: str, text: str) -> None:
    assert _faults(_tree(tmp_path, file, text)) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("service/images.py", "import service.server", "service.server: images is not above server"),
        ("service/images.py", "from service import server", "service.server: images is not above server"),
        ("service/images.py", "from . import server", "service.server: images is not above server"),
        ("service/rest/deep/a.py", "from ... import cli", "service.cli: rest is not above cli"),
        (
            "service/rest/a.py",
            "from service.rpc.errors import x",
            "service.rpc.errors.x: rest is not above rpc",
        ),
        ("service/images.py", "def f():\n    from service.logs import x", "images is not above logs"),
        ("service/__init__.py", "from service.errors import x", "the package is not above errors"),
        ("service/cli.py", "from service.novelty import x", "novelty is in no layer"),
        ("service/novelty.py", "from service.errors import x", "novelty is not above errors"),
        ("service/client/a.py", "from service.errors import x", "knows nothing of the server but the stubs"),
        (
            "service/client/a.py",
            "from service import __version__",
            "knows nothing of the server but the stubs",
        ),
        ("service/cli.py", "import models.bundle", "service and models know nothing of each other"),
        ("models/bundle.py", "from service.errors import x", "service and models know nothing of each other"),
        ("service/engines/process.py", "import openvino", "a heavy library belongs into its engine's file"),
        (
            "service/engines/child/__main__.py",
            "import torch",
            "a heavy library belongs into its engine's file",
        ),
        ("service/engines/engine_torch.py", "from torch import nn", "a heavy library belongs into"),
        ("service/cli.py", "importlib.import_module('mindspore')", "a heavy library belongs into"),
        ("service/engines/child/engine_torch.py", "import openvino", "an engine process has only"),
        ("service/engines/child/engine_pil.py", "import pil", "an engine process has only"),
        ("service/engines/child/wire.py", "from service.errors import x", "an engine process has only"),
        ("service/engines/child/wire.py", "from . import other", "an engine process has only"),
        ("service/cli.py", "import pickle", "cli.py:1 imports pickle: it runs what it reads"),
        (
            "models/cli.py",
            "\nfrom marshal import loads",
            "cli.py:2 imports marshal.loads: it runs what it reads",
        ),
        ("models/cli.py", "__import__('shelve')", "it runs what it reads"),
        ("service/engines/child/wire.py", "import shelve", "it runs what it reads"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    faults = _faults(_tree(tmp_path, file, text))
    assert len([found for found in faults if fault in found]) == 1, faults


@pytest.mark.parametrize("text", ["(x := 1)", "def f(a, /): pass", "match x:\n    case 1: pass"])
def test_newer_syntax_is_found(tmp_path: Path, text: str) -> None:
    (path,) = _children(_tree(tmp_path, str(CHILD / "wire.py"), text))
    with pytest.raises(SyntaxError):
        ast.parse(path.read_bytes(), feature_version=CHILD_PYTHON)
