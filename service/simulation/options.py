"""The options of `cardinal simulate`. Imports nothing that starts slowly."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

POLICIES = ("delay", "pad", "full", "bounded")
_PLOTS = (".svg", ".html")

_DESCRIPTION = """\
Simulate Cardinal's queue under a virtual clock, beside the classic policies on the same arrivals:

  cardinal  the server's own scheduler
  delay     wait --delay-ms for the largest gear, then pad up (as Triton's dynamic batcher)
  bounded   the same with room for two of the largest gear, then refuse (as TensorFlow Serving)
  pad       run whatever waits at once, padded up to the next gear
  full      run the largest gear that is full at once

Times are those from the queue to the end of the batch: decoding and network come on top.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "curve",
        metavar="CURVE",
        help="a published table such as 310p/se_resnext50, a JSON file {gear: milliseconds}, or a kept curve",
    )
    come = parser.add_argument_group("who comes")
    come.add_argument(
        "--rate",
        type=_above_0,
        nargs="+",
        metavar="ROWS/S",
        help="default: ten, up to 1.2 times what can be run",
    )
    come.add_argument("--arrivals", type=_count, default=20_000, metavar="N", help="requests (default 20000)")
    come.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the arrivals and the jitter (default 1)"
    )
    come.add_argument(
        "--rows", type=_count, nargs="+", default=[1], metavar="N", help="rows of a request, one of these"
    )
    come.add_argument(
        "--callers", type=_count, default=1, metavar="N", help="callers that take turns (default 1)"
    )
    come.add_argument(
        "--deadline-ms", type=_above_0, metavar="MS", help="told with each request (default: none)"
    )
    come.add_argument(
        "--bursts",
        type=float,
        nargs=2,
        metavar=("PEAK", "SECONDS"),
        help="arrivals in bursts of about so many seconds, at PEAK times the rate, with silence between them",
    )
    come.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="recorded arrivals instead: CSV with the columns time_s, rows and, if known, deadline_ms, caller",
    )
    run = parser.add_argument_group("what runs them")
    run.add_argument("--devices", type=_count, default=1, metavar="N", help="equal devices (default 1)")
    run.add_argument(
        "--jitter",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="batches take a half-normal share longer (default 0)",
    )
    run.add_argument(
        "--against",
        nargs="*",
        choices=POLICIES,
        default=POLICIES,
        metavar="POLICY",
        help="compare (default: all)",
    )
    run.add_argument(
        "--delay-ms", type=_above_0, default=5.0, metavar="MS", help="of delay and bounded (default 5)"
    )
    show = parser.add_argument_group("what is shown")
    show.add_argument(
        "--capacity",
        type=_above_0,
        nargs="+",
        default=[],
        metavar="MS",
        help="also find the highest rate with 99 %% of the answers within each of these times",
    )
    show.add_argument("--json", action="store_true", help="print JSON")
    show.add_argument(
        "--plot", type=_plot, metavar="FILE", help="draw latency and goodput over the rate (.svg, .html)"
    )


def _number(is_allowed: Callable[[float], bool], allowed: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not is_allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed is {allowed}")
        return value

    return parse


_above_0 = _number(lambda value: 0 < value < math.inf, "a number above 0")
_share = _number(lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed is a whole number from 1")
    return int(text)


def _plot(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _PLOTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; allowed are names that end in .svg or .html"
        )
    return path
