"""The console script `cardinal-models`: parse, call, print.

A fault is one sentence on stderr and exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

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
from models.bundle import Source, bundle, untrained_source
from models.checkpoints import (
    DIALECT_NAMES,
    Dialect,
    Wish,
    dialect_of,
    export_weights,
    import_weights,
    printable,
    read_checkpoint,
    recognise,
    weights_only,
    write_checkpoint,
)
from models.checkpoints.source import trained
from models.content import sha256_of
from models.errors import InvalidValueError
from models.frameworks.forward import Forward, forward_of, installed_forward
from models.lite import VARIABLE, add_lite, find_interpreter
from models.manifest import GRAPH_FILE, ArtifactSection, check_gears, read_manifest
from models.networks import DESCRIPTIONS, NETWORKS, Network, describe
from models.preprocessing import PREPROCESSINGS, Preprocessing
from models.publish import drafted, write_files
from models.sizes import measure

_NAMES = ", ".join(DESCRIPTIONS)
_HEADINGS = (
    "network",
    "width",
    "classes",
    "parameters",
    "norm statistics",
    "multiply-adds",
    "convolutions",
    "norms",
    "dense layers",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        report = _COMMANDS[arguments.command](arguments)
    except (InvalidValueError, OSError) as error:
        sys.stderr.write(f"cardinal-models: {error}\n")
        return 2
    sys.stdout.write(f"{report}\n")
    return 0


class _Parser(argparse.ArgumentParser):
    """Reports a wrong flag as every other fault is: one sentence, without the usage around it."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cardinal-models", description="Describe, convert and publish the networks of Cardinal."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    _add_info(commands.add_parser("info", help="print what a network holds and computes"))
    _add_inspect(commands.add_parser("inspect", help="tell what a checkpoint file holds"))
    _add_convert(commands.add_parser("convert", help="write a checkpoint in another format, by other names"))
    _add_export(commands.add_parser("export", help="write what MindSpore exports: MINDIR, ONNX or AIR"))
    _add_publish(commands.add_parser("publish", help="write a bundle into a model repository"))
    _add_compile(
        commands.add_parser("compile", help="compile a bundle for an Ascend NPU, or write the script")
    )
    _add_add_artifact(commands.add_parser("add-artifact", help="publish a bundle again with a compiled file"))
    _add_strip(commands.add_parser("strip", help="take the normalisation off a graph, for an AIPP stage"))
    return parser


def _add_info(info: argparse.ArgumentParser) -> None:
    info.add_argument("network", nargs="?", help=f"one of {_NAMES}; the first three by default")
    info.add_argument("--classes", type=int, metavar="N", help="by default the network's own")
    info.add_argument(
        "--width", type=float, default=1.0, metavar="W", help="multiplier of channels and groups"
    )
    info.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")


def _add_inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument("file", type=Path, metavar="FILE", help=".ckpt, .pth or .safetensors")


def _add_convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("source", type=Path, metavar="IN", help="checkpoint of any format and known names")
    convert.add_argument("target", type=Path, metavar="OUT", help=".ckpt, .pth, .pt or .safetensors")
    convert.add_argument("--network", metavar="NAME", help=f"one of {_NAMES}; seen in IN")
    convert.add_argument("--classes", type=int, metavar="N", help="seen in IN by default")
    convert.add_argument("--width", type=float, metavar="W", help="seen in IN by default")
    convert.add_argument(
        "--dialect",
        default="cardinal",
        metavar="NAME",
        help=f"names in OUT: {', '.join(DIALECT_NAMES)}; cardinal by default",
    )


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("source", type=Path, metavar="IN", help="checkpoint of any format and known names")
    export.add_argument("target", type=Path, metavar="OUT", help=".mindir, .onnx, or on an Ascend host .air")
    export.add_argument("--network", metavar="NAME", help=f"one of {_NAMES}; seen in IN")
    export.add_argument(
        "--stem-pool", choices=["ceil", "padded"], help="where the names in IN do not tell it"
    )
    export.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at once, 1 by default")
    export.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")


def _add_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("--network", required=True, help=f"one of {_NAMES}")
    weights = publish.add_mutually_exclusive_group(required=True)
    weights.add_argument("--untrained", action="store_true", help="with random weights")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="with the weights of FILE")
    publish.add_argument("--seed", type=int, default=1, help="of the random weights, 1 by default")
    publish.add_argument(
        "--stem-pool", choices=["ceil", "padded"], help="where the names in FILE do not tell it"
    )
    publish.add_argument(
        "--width", type=float, metavar="W", help="multiplier of channels and groups; 1, or seen in FILE"
    )
    labels = publish.add_mutually_exclusive_group()
    labels.add_argument("--classes", type=int, metavar="N", help="number the classes instead of naming them")
    labels.add_argument("--labels", type=Path, metavar="FILE", help="one label a line, as many as classes")
    publish.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")
    _add_preprocessing(publish)
    publish.add_argument(
        "--golden",
        choices=["pytorch", "mindspore", "onnx"],
        help="what computes the golden samples; by default the framework that trained, or one that is installed",
    )
    publish.add_argument("--repository", type=Path, required=True, help="folder of the models")
    publish.add_argument("--model", metavar="NAME", help="the network's name by default")
    publish.add_argument("--version", type=int, metavar="N", help="the newest plus one by default")
    publish.add_argument(
        "--lite-gears",
        default="1,4",
        metavar="N,...",
        help="batch sizes for MindSpore Lite on a CPU, where a Python with it is found; 1,4 by default, or none",
    )


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


def _add_add_artifact(add: argparse.ArgumentParser) -> None:
    add.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the newest version of a model")
    add.add_argument("file", type=Path, metavar="FILE", help="MindIR that was compiled from its graph")
    add.add_argument("--target", required=True, help="what it was compiled for, such as ascend310p")
    add.add_argument("--gears", required=True, metavar="N,...", help="batch sizes that it was compiled for")
    add.add_argument("--precision", choices=["f16", "mixed", "f32"], required=True)


def _add_strip(strip: argparse.ArgumentParser) -> None:
    strip.add_argument("graph", type=Path, metavar="IN", help="graph of a bundle")
    strip.add_argument("target", type=Path, metavar="OUT", help="ONNX file")


def _add_preprocessing(publish: argparse.ArgumentParser) -> None:
    """Add a name for the whole preprocessing, and a flag for each of its values that is to be another."""
    publish.add_argument(
        "--preprocessing",
        choices=list(PREPROCESSINGS),
        default="standard",
        help="standard by default; mindspore and cifar10 are those of the MindSpore references",
    )
    publish.add_argument("--mode", choices=["shortest", "exact"], help="resize the shortest side, or both")
    publish.add_argument("--size", type=int, metavar="SIDE", help="side to resize to, before the centre crop")
    publish.add_argument("--interpolation", choices=["bilinear", "bicubic"], help="of the resize")
    publish.add_argument("--antialias", action=argparse.BooleanOptionalAction, help="in the resize")
    publish.add_argument("--mean", type=_channels, metavar="R,G,B", help="of pixels from 0 to 255")
    publish.add_argument("--std", type=_channels, metavar="R,G,B", help="of pixels from 0 to 255")


def _channels(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are three numbers parted by commas") from error
    return red, green, blue


def _preprocessing(arguments: argparse.Namespace) -> Preprocessing:
    names = ("mode", "size", "interpolation", "antialias", "mean", "std")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(PREPROCESSINGS[arguments.preprocessing](arguments.input_size), **given)


def _info(arguments: argparse.Namespace) -> str:
    names = [arguments.network] if arguments.network else list(NETWORKS)
    networks = [describe(name, classes=arguments.classes, width=arguments.width) for name in names]
    columns = [_HEADINGS, *(_figures(network, arguments.input_size) for network in networks)]
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))])
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines)


def _figures(network: Network, input_size: int) -> tuple[str, ...]:
    size = measure(network, input_size)
    return (
        network.name,
        f"{network.width:g}",
        f"{network.classes:,}",
        f"{size.parameters:,}",
        f"{size.statistics:,}",
        f"{size.macs / 1e9:.3f} G",
        f"{size.convolutions:,}",
        f"{size.norms:,}",
        f"{size.denses:,}",
    )


def _inspect(arguments: argparse.Namespace) -> str:
    checkpoint = read_checkpoint(arguments.file)
    weights = weights_only(checkpoint.tensors)
    fits = recognise(weights, Wish())
    lines = {
        "format": checkpoint.format,
        "dialect": " or ".join(dict.fromkeys(fit.dialect.name for fit in fits)) or "none that is known",
        "network": f"{fits[0].network.name}, width {fits[0].network.width:g}" if fits else "unknown",
        "tensors": f"{len(checkpoint.tensors):,}, of which {len(weights):,} weights",
        "values": f"{sum(tensor.size for tensor in weights.values()):,}",
        "first": ", ".join(
            f"{printable(name)} {tensor.shape}" for name, tensor in list(checkpoint.tensors.items())[:4]
        ),
    }
    return "\n".join(f"{heading:<9}{text}" for heading, text in lines.items())


def _convert(arguments: argparse.Namespace) -> str:
    wish = Wish(network=arguments.network, classes=arguments.classes, width=arguments.width)
    imported = import_weights(read_checkpoint(arguments.source), wish)
    network, dialect = imported.network, imported.dialects[0]
    target = dialect_of(arguments.dialect, network)
    write_checkpoint(arguments.target, export_weights(network, imported.weights, target))
    return (
        f"converted {arguments.source} to {arguments.target}: {network.name}, {network.classes} classes,"
        f" width {network.width:g}, {dialect.name} names to {target.name} names,"
        f" {imported.dropped} other tensors dropped{_pool_note(dialect, target)}"
    )


def _pool_note(source: Dialect, target: Dialect) -> str:
    """Tell what the new names no longer say: how the stem pools on which these weights were trained."""
    if source.stem_pool in (None, target.stem_pool):
        return ""
    if target.stem_pool is None:
        return f"; its stem pools {source.stem_pool}: publish it with --stem-pool {source.stem_pool}"
    return (
        f"; its stem pools {source.stem_pool}, networks of {target.name} {target.stem_pool}: answers differ"
    )


def _export(arguments: argparse.Namespace) -> str:
    try:
        from models.frameworks.mindspore_export import InputShape, export
    except ModuleNotFoundError as error:
        raise InvalidValueError(f"export needs MindSpore, but {error.name} is not installed") from error
    shape = InputShape(batch=arguments.batch, side=arguments.input_size)
    found = trained(arguments.source, Wish(network=arguments.network), stem_pool=arguments.stem_pool)
    export(found.network, found.source.weights, shape, arguments.target)
    return (
        f"exported {arguments.source} to {arguments.target}: {found.network.name}, {found.network.classes} classes,"
        f" input float32 ({shape.batch}, 3, {shape.side}, {shape.side}), normalised"
    )


def _publish(arguments: argparse.Namespace) -> str:
    lite_gears = () if arguments.lite_gears == "none" else _gears(arguments.lite_gears)
    labels = None if arguments.labels is None else _read_labels(arguments.labels)
    classes = arguments.classes if labels is None else len(labels)
    network, source = _network_and_source(arguments, classes)
    files = bundle(
        network,
        source,
        labels=labels or [f"class {index}" for index in range(network.classes)],
        preprocessing=_preprocessing(arguments),
        forward=_forward(arguments.golden, source.provenance.framework),
    )
    lite = find_interpreter() if lite_gears else None
    with drafted(arguments.repository, arguments.model or network.name, arguments.version) as draft:
        write_files(draft.folder, files)
        files.clear()  # the graph is on disk now, and its memory needed
        if lite:
            add_lite(draft.folder, lite, lite_gears)
    size_mb = sum(path.stat().st_size for path in draft.target.rglob("*") if path.is_file()) / 1e6
    origin = "untrained" if arguments.checkpoint is None else f"weights of {arguments.checkpoint}"
    what = f"{network.name}, {origin}, {network.classes} classes, {size_mb:.1f} MB"
    published = f"published {draft.target}: {what}"
    if lite is None and lite_gears:
        return f"{published}; without MindSpore Lite, for which no Python was found: see {VARIABLE}"
    return published


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
        gears=_gears(arguments.gears),
        precision=arguments.precision,
        through=arguments.through,
        soc_version=arguments.soc_version,
        normalisation=normalisation_of(_load(bundle / GRAPH_FILE)) if arguments.aipp else None,
    )


def _add_artifact(arguments: argparse.Namespace) -> str:
    artifact = ArtifactSection(
        engine="mindspore_lite",
        target=arguments.target,
        file=arguments.file.name,
        sha256=sha256_of(arguments.file),
        gears=_gears(arguments.gears),
        precision=arguments.precision,
    )
    return f"published {add_artifact(arguments.bundle, arguments.file, artifact)} with {artifact.file}"


def _strip(arguments: argparse.Namespace) -> str:
    onnx.save(without_normalisation(_load(arguments.graph)), arguments.target)
    return f"wrote {arguments.target}: the graph of {arguments.graph} without its normalisation"


def _load(graph: Path) -> onnx.ModelProto:
    try:
        return onnx.load(graph)
    except DecodeError as error:
        raise InvalidValueError(f"{graph} is no ONNX file") from error


def _gears(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InvalidValueError(f"gears are {text!r}; allowed are numbers parted by commas")
    gears = tuple(map(int, words))
    check_gears(gears)
    return gears


def _network_and_source(arguments: argparse.Namespace, classes: int | None) -> tuple[Network, Source]:
    if arguments.checkpoint is None:
        width = 1.0 if arguments.width is None else arguments.width
        network = describe(arguments.network, classes=classes, width=width)
        return network, untrained_source(network, arguments.seed)
    wish = Wish(network=arguments.network, classes=classes, width=arguments.width)
    found = trained(arguments.checkpoint, wish, stem_pool=arguments.stem_pool)
    return found.network, found.source


def _forward(wish: Literal["pytorch", "mindspore", "onnx"] | None, trained_by: str | None) -> Forward | None:
    if wish is None:
        return installed_forward(trained_by)
    return None if wish == "onnx" else forward_of(wish)


def _read_labels(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"labels file {file} is not UTF-8 text") from error


_COMMANDS = {
    "info": _info,
    "inspect": _inspect,
    "convert": _convert,
    "export": _export,
    "publish": _publish,
    "compile": _compile,
    "add-artifact": _add_artifact,
    "strip": _strip,
}
