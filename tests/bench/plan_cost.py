"""Prints what a decision costs with 1,000 rows waiting: to admit, to refuse, and to plan a batch.

python tests/bench/plan_cost.py [--rows 1000]
"""

import argparse
import random
import sys
import timeit
from functools import partial
from itertools import product

from service.batching.line import Ticket
from service.batching.plan import plan
from service.batching.scheduler import Batch, Bounds, Scheduler
from service.engines import Curve
from service.latency_tables import TABLES

ROUNDS = 200
RATE, NOW, LENGTH_S = 1800.0, 10.0, 2.0


def crowded(rows: int, callers: int, spread_s: float, draw: random.Random) -> Scheduler:
    """Let rows wait for a device that is idle, as after a long batch."""
    scheduler = Scheduler(Bounds(max_rows=10 * rows, max_device_s=1e9), devices=1, now=0.0)
    (device,) = scheduler.devices
    device.curve = Curve.exact(TABLES["310p/se_resnext50"])
    for number in range(rows):
        scheduler.count(ticket(number % callers, spread_s, draw), NOW + number / RATE - rows / RATE)
    demanded = scheduler.demanded(device, NOW)
    scheduler.use(demanded, demanded.tuned())
    for number in range(rows):
        scheduler.admit(ticket(number % callers, spread_s, draw))
    return scheduler


def ticket(caller: int, spread_s: float, draw: random.Random) -> Ticket:
    deadline = NOW + LENGTH_S + draw.uniform(0, spread_s)
    return Ticket(rows=1, arrived=NOW, deadline=deadline, caller=f"caller {caller}")


def typical(times: list[float]) -> str:
    times.sort()
    return f"{times[len(times) // 2] * 1e6:7.1f} {times[-len(times) // 50] * 1e6:7.1f}"


def measure(scheduler: Scheduler, callers: int, spread_s: float, draw: random.Random) -> str:
    """Let a newcomer ask and a batch be run, by turns, so that the line stays as long as it is."""
    (device,) = scheduler.devices
    asking, planning, taking = [], [], []
    for _ in range(ROUNDS):
        newcomer = ticket(draw.randrange(callers), spread_s, draw)
        asking.append(timeit.timeit(partial(scheduler.refusal, newcomer, NOW), number=1))
        decide = partial(plan, device.tuning, scheduler.line, NOW, has_held=False)
        planning.append(timeit.timeit(decide, number=1))
        began = timeit.default_timer()
        batch = scheduler.next_batch(NOW)
        taking.append(timeit.default_timer() - began)
        if not isinstance(batch, Batch):
            sys.exit(f"no batch but {batch}")
        scheduler.finished(batch)
        for _ in range(batch.rows):
            scheduler.admit(ticket(draw.randrange(callers), spread_s, draw))
    return "   ".join(map(typical, (asking, planning, taking)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    rows = parser.parse_args().rows
    print(f"microseconds with {rows} rows waiting, median and 98 %")
    print(f"{'':29}{'refusal()':>15}{'plan()':>18}{'next_batch()':>18}")
    for callers, spread_s in product((1, 10, rows), (0.0, 1.0)):
        draw = random.Random(1)
        scheduler = crowded(rows, callers, spread_s, draw)
        kind = "mixed" if spread_s else "equal"
        print(f"{callers:>5} callers, {kind} deadlines {measure(scheduler, callers, spread_s, draw)}")


if __name__ == "__main__":
    main()
