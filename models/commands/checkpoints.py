"""Commands on checkpoint files."""

import argparse
from pathlib import Path

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
from models.commands.arguments import NETWORK_NAMES
from models.commands.command import Command
from models.errors import InvalidValueError


def _add_inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument("file", type=Path, metavar="FILE", help=".ckpt, .pth or .safetensors")


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


def _add_convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("source", type=Path, metavar="IN", help="checkpoint of any format and known names")
    convert.add_argument("target", type=Path, metavar="OUT", help=".ckpt, .pth, .pt or .safetensors")
    convert.add_argument("--network", metavar="NAME", help=f"one of {NETWORK_NAMES}; seen in IN")
    convert.add_argument("--classes", type=int, metavar="N", help="seen in IN by default")
    convert.add_argument("--width", type=float, metavar="W", help="seen in IN by default")
    convert.add_argument(
        "--dialect",
        default="cardinal",
        metavar="NAME",
        help=f"names in OUT: {', '.join(DIALECT_NAMES)}; cardinal by default",
    )


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


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("source", type=Path, metavar="IN", help="checkpoint of any format and known names")
    export.add_argument("target", type=Path, metavar="OUT", help=".mindir, .onnx, or on an Ascend host .air")
    export.add_argument("--network", metavar="NAME", help=f"one of {NETWORK_NAMES}; seen in IN")
    export.add_argument(
        "--stem-pool", choices=["ceil", "padded"], help="where the names in IN do not tell it"
    )
    export.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at once, 1 by default")
    export.add_argument(
        "--input-size", type=int, metavar="SIDE", help="what IN was trained with, or 224 by default"
    )


def _export(arguments: argparse.Namespace) -> str:
    try:
        from models.frameworks.mindspore_export import InputShape, export
    except ModuleNotFoundError as error:
        raise InvalidValueError(f"export needs MindSpore, but {error.name} is not installed") from error
    found = trained(arguments.source, Wish(network=arguments.network), stem_pool=arguments.stem_pool)
    own = found.origin.recipe.preprocessing.input_size if found.origin else 224
    side = own if arguments.input_size is None else arguments.input_size
    shape = InputShape(batch=arguments.batch, side=side)
    export(found.network, found.source.weights, shape, arguments.target)
    return (
        f"exported {arguments.source} to {arguments.target}: {found.network.name}, {found.network.classes} classes,"
        f" input float32 ({shape.batch}, 3, {shape.side}, {shape.side}), normalised"
    )


INSPECT = Command(
    name="inspect",
    help="tell what a checkpoint file holds",
    add_arguments=_add_inspect,
    run=_inspect,
)
CONVERT = Command(
    name="convert",
    help="write a checkpoint in another format, by other names",
    add_arguments=_add_convert,
    run=_convert,
)
EXPORT = Command(
    name="export",
    help="write what MindSpore exports: MINDIR, ONNX or AIR",
    add_arguments=_add_export,
    run=_export,
)
