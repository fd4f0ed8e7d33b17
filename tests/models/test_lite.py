"""Publishing for MindSpore Lite: with the library itself where it is, and with stand-ins that fail as it does."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lite import ROOT, lite_python
from models.cli import main
from models.errors import InvalidValueError
from models.lite import VARIABLE, add_lite, find_interpreter
from models.lite.interpreter import run_lite
from patience import PATIENCE_S
from service.machine import python_with_lite
from service.repository.bundle import load_bundle
from serving import UNTRAINED

NARROW = ["--network", "sknet50", "--untrained", "--width", "0.0625", "--input-size", "64"]


def _published(repository: Path, *words: str) -> Path:
    assert main(["publish", *NARROW, "--repository", str(repository), *words]) == 0
    return repository / "sknet50" / "1"


def _interpreter(folder: Path, body: str) -> Path:
    """Make a program in the place of a Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_a_bundle_gets_a_proven_file_for_each_gear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(lite_python()))
    bundle = load_bundle(_published(tmp_path, "--lite-gears", "1,3"))
    lite = [artifact for artifact in bundle.manifest.artifacts if artifact.engine == "mindspore_lite"]
    assert [(artifact.target, artifact.gears, artifact.precision) for artifact in lite] == [
        ("cpu", (1,), "f32"),
        ("cpu", (3,), "f32"),
    ]
    assert sorted(path.name for path in bundle.directory.iterdir()) == [
        "cpu-1.mindir",
        "cpu-3.mindir",
        "golden",
        "labels.txt",
        "model.json",
        "model.onnx",
    ]
    assert {(bundle.directory / artifact.file).stat().st_mode & 0o777 for artifact in lite} == {0o644}


def test_a_file_that_answers_wrongly_is_refused(tmp_path: Path) -> None:
    python = lite_python()
    bundle = tmp_path / "1"
    shutil.copytree(UNTRAINED / "sknet50" / "1", bundle)
    manifest = json.loads((bundle / "model.json").read_text())
    manifest["golden"]["samples"][1]["scores"][3] = 0.75
    (bundle / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InvalidValueError, match=r"cpu-1.mindir: MindSpore Lite answers golden.samples\[1\].scores\[3\]"
    ):
        add_lite(bundle, python, (1,))


def test_without_an_interpreter_publishing_says_that_lite_is_left_out(tmp_path: Path) -> None:
    program = "import sys; sys.prefix = sys.argv.pop(1); from models.cli import main; sys.exit(main())"
    words = ["publish", *NARROW, "--repository", str(tmp_path / "models")]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    published = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bare"), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    assert f"without MindSpore Lite, for which no Python was found: see {VARIABLE}" in published.stdout
    bundle = load_bundle(tmp_path / "models" / "sknet50" / "1")
    assert [artifact.engine for artifact in bundle.manifest.artifacts] == ["openvino"]


@pytest.mark.parametrize("named", [None, "auto", "/opt/python"])
def test_publisher_and_server_take_the_same_interpreter(
    named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if named:
        monkeypatch.setenv(VARIABLE, named)
    assert find_interpreter() == python_with_lite(named or "auto")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("echo RuntimeError: wrong graph >&2; exit 1", "failed with exit code 1: RuntimeError: wrong graph"),
        ("exit 139", "failed with exit code 139: it said nothing"),
        ("kill -SEGV $$", f"was ended by {signal.SIGSEGV.name}: it said nothing"),
        ("exec tail -f /dev/null", "took more than 0.5 s"),
    ],
)
def test_a_library_that_fails_dies_or_hangs_is_told(tmp_path: Path, body: str, fault: str) -> None:
    with pytest.raises(InvalidValueError) as told:
        run_lite(_interpreter(tmp_path, body), "convert", limit_s=0.5 if "tail" in body else 20)
    assert str(told.value) == f"MindSpore Lite ({tmp_path / 'python'}): convert {fault}"


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="convert could not start: No such file or directory"):
        run_lite(tmp_path / "python", "convert")


def test_a_failing_library_leaves_the_repository_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(_interpreter(tmp_path, "exit 0")))
    assert main(["publish", *NARROW, "--repository", str(tmp_path / "models")]) == 2
    assert "convert wrote no cpu-1.mindir" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("gears", ["", "0", "4,1", "1,1", "1,x", "-1", "4096"])
def test_gears_that_are_none_are_refused(gears: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", *NARROW, "--repository", "nowhere", f"--lite-gears={gears}"]) == 2
    assert f"gears are {gears!r}; allowed are" in capsys.readouterr().err


def test_the_child_is_python_3_7_with_nothing_but_numpy() -> None:
    source = (ROOT / "models" / "lite" / "child.py").read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= set(sys.stdlib_module_names) | {"numpy", "mindspore_lite"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


STAND_IN = '''
"""Has the library's names, and answers the same to everything."""
import numpy as np

__version__ = "0"
ModelType = FmkType = type("Words", (), {"MINDIR": 0, "ONNX": 0})


class Converter:
    def convert(self, fmk_type, model_file, output_file):
        open(output_file + ".mindir", "wb").close()


class Context:
    pass


class Tensor:
    def __init__(self, array):
        self.shape, self.array = array.shape, array

    def set_data_from_numpy(self, array):
        self.array = array

    def get_data_to_numpy(self):
        return self.array


class Model:
    def build_from_file(self, path, kind, context):
        pass

    def get_inputs(self):
        return [Tensor(np.zeros((4, 64, 64, 3), np.uint8))]

    def predict(self, inputs):
        return [Tensor(np.zeros((4, 10), np.float32))]
'''


def test_a_library_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mindspore_lite.py").write_text(STAND_IN)
    python = _interpreter(tmp_path, f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    monkeypatch.setenv(VARIABLE, str(python))
    assert main(["publish", *NARROW, "--repository", str(tmp_path / "models"), "--lite-gears", "4"]) == 2
    assert "cpu-4.mindir: MindSpore Lite answers golden.samples[0].scores[" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []
