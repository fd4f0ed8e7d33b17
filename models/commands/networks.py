"""Commands on the networks themselves."""

import argparse

from models.commands.arguments import NETWORK_NAMES
from models.commands.command import Command
from models.networks import NETWORKS, Network, describe
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


def _add_info(info: argparse.ArgumentParser) -> None:
    info.add_argument("network", nargs="?", help=f"one of {NETWORK_NAMES}; the first three by default")
    info.add_argument("--classes", type=int, metavar="N", help="by default the network's own")
    info.add_argument(
        "--width", type=float, default=1.0, metavar="W", help="multiplier of channels and groups"
    )
    info.add_argument("--input-size", type=int, default=224, metavar="SIDE", help="224 by default")


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


INFO = Command(
    name="info",
    help="print what a network holds and computes",
    add_arguments=_add_info,
    run=_info,
)
