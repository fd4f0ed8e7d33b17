"""The console script `cardinal-models`: parse, call, print.

A fault is one sentence on stderr and exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from models.bundle import untrained_bundle
from models.errors import InvalidValueError
from models.networks import NETWORKS, Network, describe
from models.preprocessing import standard_preprocessing
from models.publish import publish
from models.sizes import measure

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
        report = _info(arguments) if arguments.command == "info" else _publish(arguments)
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
    parser = _Parser(prog="cardinal-models", description="Describe and publish the networks of Cardinal.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="info|publish")
    _add_info(commands.add_parser("info", help="print what a network holds and computes"))
    _add_publish(commands.add_parser("publish", help="write a bundle into a model repository"))
    return parser


def _add_info(info: argparse.ArgumentParser) -> None:
    info.add_argument("network", nargs="?", help=f"one of {', '.join(NETWORKS)}; all of them by default")
    info.add_argument("--classes", type=int, metavar="N", help="by default the network's own")
    info.add_argument(
        "--width", type=float, default=1.0, metavar="W", help="multiplier of channels and groups"
    )
    info.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")


def _add_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("--network", required=True, help=f"one of {', '.join(NETWORKS)}")
    publish.add_argument("--untrained", action="store_true", required=True, help="with random weights")
    publish.add_argument("--seed", type=int, default=1, help="of the random weights, 1 by default")
    publish.add_argument(
        "--width", type=float, default=1.0, metavar="W", help="multiplier of channels and groups"
    )
    labels = publish.add_mutually_exclusive_group()
    labels.add_argument("--classes", type=int, metavar="N", help="number the classes instead of naming them")
    labels.add_argument("--labels", type=Path, metavar="FILE", help="one label a line, as many as classes")
    publish.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")
    publish.add_argument("--repository", type=Path, required=True, help="folder of the models")
    publish.add_argument("--model", metavar="NAME", help="the network's name by default")
    publish.add_argument("--version", type=int, metavar="N", help="the newest plus one by default")


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


def _publish(arguments: argparse.Namespace) -> str:
    labels = None if arguments.labels is None else _read_labels(arguments.labels)
    network = describe(
        arguments.network, classes=arguments.classes if labels is None else len(labels), width=arguments.width
    )
    files = untrained_bundle(
        network,
        seed=arguments.seed,
        labels=labels or [f"class {index}" for index in range(network.classes)],
        preprocessing=standard_preprocessing(arguments.input_size),
    )
    target = publish(
        files,
        repository=arguments.repository,
        model=arguments.model or network.name,
        version=arguments.version,
    )
    size_mb = sum(map(len, files.values())) / 1e6
    return f"published {target}: {network.name}, untrained, {network.classes} classes, {size_mb:.1f} MB"


def _read_labels(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"labels file {file} is not UTF-8 text") from error
