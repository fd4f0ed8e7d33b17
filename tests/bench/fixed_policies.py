"""Compares the scheduler with the best fixed policy, found by brute force, for each curve and deadline.

    python tests/bench/fixed_policies.py [--arrivals 40000] [--curves NAME ...] [--tightness 2 5 ...]

Told are, in terms of the best fixed policy, the highest rate with 99 % of all arrivals in time, and the goodput at
overloads; a table of these ratios comes last.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fixed_policies import CURVES, TIGHTNESS, Cell, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrivals", type=int, default=40_000)
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=[*CURVES], metavar="NAME")
    parser.add_argument("--tightness", nargs="+", type=float, default=TIGHTNESS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    cells = [
        Cell(curve, tightness, options.arrivals, options.seed)
        for curve in options.curves
        for tightness in options.tightness
    ]
    ratios: dict[Cell, list[float]] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for cell, results in zip(cells, pool.map(compare, cells), strict=True):
            ratios[cell] = [result.ratio for result in results]
            for result in results:
                policy = result.policy
                print(
                    f"{cell.curve:22} deadline x{cell.tightness:<4g} {result.what:8} scheduler {result.scheduler:8.1f}"
                    f" fixed {result.fixed:8.1f} ratio {result.ratio:.3f}  by {[*policy.gears]} {policy.fill},"
                    f" delay {policy.delay_s * 1e3:.2f} ms, bound {policy.max_queued}, drop {policy.drop}",
                    flush=True,
                )
    print(f"\n{'capacity / overloads':22}" + "".join(f"{f'x{each:g}':>22}" for each in options.tightness))
    for curve in options.curves:
        rows = [ratios[cell] for cell in cells if cell.curve == curve]
        print(f"{curve:22}" + "".join(f"{' / '.join(f'{each:.2f}' for each in row):>22}" for row in rows))


if __name__ == "__main__":
    main()
