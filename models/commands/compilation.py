"""Commands for what is compiled for an NPU."""

import argparse
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from models.artifacts import add_artifact
from models.ascend import (
    Compilation,
    missing_tools,
    normalisation_of,
    run_script,
    without_normalisation,
    write_script,
)
from models.commands.arguments import gears_of
from models.commands.command import Command
from models.content import sha256_of
from models.errors import InvalidValueError
from models.manifest import GRAPH_FILE, ArtifactSection, read_manifest


def _add_compile(compile_: argparse.ArgumentParser) -> None:
    compile_.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a version")
    compile_.add_argument("--target", required=True, help="ascend310, ascend310p, ascend910 or another chip")
    compile_.add_argument(
        "--soc-version", metavar="NAME", help="the chip as CANN names it, such as Ascend310P3"
    )
    compile_.add_argument("--gears", default="1,4,8,16,32", metavar="N,...", help="1,4,8,16,32 by default")
    compile_.add_argument(
        "--precision", choices=["f16", "mixed", "f32"], default="f16", help="f16 by default"
    )
    compile_.add_argument(
        "--through", choices=["converter", "atc"], default="converter", help="compiler; converter by default"
    )
    compile_.add_argument("--aipp", action="store_true", help="normalise in the NPU's image stage")


def _compile(arguments: argparse.Namespace) -> str:
    order = _compilation(arguments)
    script = write_script(order, arguments.bundle.absolute().parent)
    missing = missing_tools(order)
    if missing:
        return f"{script.read_text()}\n# {', '.join(missing)}: not on PATH here. The script is {script}"
    run_script(script)
    return f"ran {script}"


def _compilation(arguments: argparse.Namespace) -> Compilation:
    bundle = arguments.bundle.absolute()
    manifest = read_manifest(bundle)
    if not bundle.name.isdecimal():
        raise InvalidValueError(
            f"bundle is {bundle}; allowed is the folder of a version, whose name is a number"
        )
    return Compilation(
        model=bundle.parent.name,
        version=int(bundle.name),
        side=manifest["input_size"],
        classes=manifest["classes"],
        target=arguments.target,
        gears=gears_of(arguments.gears),
        precision=arguments.precision,
        through=arguments.through,
        soc_version=arguments.soc_version,
        normalisation=normalisation_of(_load(bundle / GRAPH_FILE)) if arguments.aipp else None,
    )


def _add_add_artifact(add: argparse.ArgumentParser) -> None:
    add.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the newest version of a model")
    add.add_argument("file", type=Path, metavar="FILE", help="MindIR that was compiled from its graph")
    add.add_argument("--target", required=True, help="what it was compiled for, such as ascend310p")
    add.add_argument("--gears", required=True, metavar="N,...", help="batch sizes that it was compiled for")
    add.add_argument("--precision", choices=["f16", "mixed", "f32"], required=True)


def _add_artifact(arguments: argparse.Namespace) -> str:
    artifact = ArtifactSection(
        engine="mindspore_lite",
        target=arguments.target,
        file=arguments.file.name,
        sha256=sha256_of(arguments.file),
        gears=gears_of(arguments.gears),
        precision=arguments.precision,
    )
    return f"published {add_artifact(arguments.bundle, arguments.file, artifact)} with {artifact.file}"


def _add_strip(strip: argparse.ArgumentParser) -> None:
    strip.add_argument("graph", type=Path, metavar="IN", help="graph of a bundle")
    strip.add_argument("target", type=Path, metavar="OUT", help="ONNX file")


def _strip(arguments: argparse.Namespace) -> str:
    onnx.save(without_normalisation(_load(arguments.graph)), arguments.target)
    return f"wrote {arguments.target}: the graph of {arguments.graph} without its normalisation"


def _load(graph: Path) -> onnx.ModelProto:
    try:
        return onnx.load(graph)
    except DecodeError as error:
        raise InvalidValueError(f"{graph} is no ONNX file") from error


COMPILE = Command(
    name="compile",
    help="compile a bundle for an Ascend NPU, or write the script",
    add_arguments=_add_compile,
    run=_compile,
)
ADD_ARTIFACT = Command(
    name="add-artifact",
    help="publish a bundle again with a compiled file",
    add_arguments=_add_add_artifact,
    run=_add_artifact,
)
STRIP = Command(
    name="strip",
    help="take the normalisation off a graph, for an AIPP stage",
    add_arguments=_add_strip,
    run=_strip,
)
