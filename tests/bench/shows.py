"""Shows what the scheduler reaches on the curve of a 310P, beside what it has to reach.

python tests/bench/shows.py [--arrivals 200000] [--seeds 1 2 3]
"""

import argparse
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from service.batching.scheduler import Tunings
from shows import GOODPUT, MOST_LATE, OVERLOAD_DEADLINES_MS, OVERLOADS, RATES_WITHIN, Knowing, Load

MEAN_RATES = (100, 600, 1100, 1500, 1700)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrivals", type=int, default=200_000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    options = parser.parse_args()
    tunings = Tunings()
    print(
        f"{'p99 within':>10} {'rate':>5} {'seed':>4}  p99 without deadlines  share in time if they are told"
    )
    for (within_ms, rate), seed in product(RATES_WITHIN.items(), options.seeds):
        plain = Load(rate=rate).outcome(options.arrivals, seed, tunings)
        told = Load(rate=rate, deadline_ms=within_ms).outcome(options.arrivals, seed, tunings)
        print(
            f"{within_ms:>7} ms {rate:>5} {seed:>4}  {plain.quantile_s(0.99) * 1000:>18.2f} ms "
            f" {told.share_within(within_ms / 1000):.4f} of 0.99",
            flush=True,
        )
    print(f"\n{'rate':>5} {'seed':>4}  mean latency  of the optimum  and by its equations")
    for rate, seed in product(MEAN_RATES, options.seeds):
        knowing = Knowing(rate)
        ours = Load(rate=rate).outcome(options.arrivals, seed, tunings)
        best = Load(rate=rate).outcome(options.arrivals, seed, knowing)
        print(
            f"{rate:>5} {seed:>4}  {ours.mean_s * 1000:>9.3f} ms  {best.mean_s * 1000:>11.3f} ms"
            f"  {knowing.tuning.limits.latency_s * 1000:>13.3f} ms  ratio {ours.mean_s / best.mean_s:.3f} of 1.04",
            flush=True,
        )
    print(f"\n{'rate':>5} {'deadline':>8} {'jitter':>6} {'seed':>4}  goodput  late of those admitted")
    for rate, ms, (jitter, least), seed in product(
        OVERLOADS, OVERLOAD_DEADLINES_MS, GOODPUT.items(), options.seeds
    ):
        outcome = Load(rate=rate, deadline_ms=ms, jitter=jitter).outcome(options.arrivals, seed, tunings)
        print(
            f"{rate:>5} {ms:>5} ms {jitter:>6} {seed:>4}  {outcome.goodput:.0f} of {least}"
            f"  {outcome.late_share:.5f} of {MOST_LATE}",
            flush=True,
        )


if __name__ == "__main__":
    main()
