"""The best fixed policy, by brute force: a quick simulation of one-row requests on one device, and a grid to try."""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product

from service.batching.arrivals import Arrival, poisson_times
from service.batching.classic import Classic, Drop, Fill
from service.batching.scheduler import Tunings
from service.batching.simulator import Outcome, Pace, Scheduled, simulate
from service.latency_tables import TABLES

A_MOMENT_S = 1e-9
WITHIN = 0.99  # the share of all arrivals that a capacity is told for

Table = Mapping[int, float]

CURVES: Mapping[str, Table] = {
    **TABLES,
    "flat": {gear: 0.03 * gear for gear in (1, 2, 4, 8, 16)},
    "linear": {gear: 0.001 + 0.0003 * gear for gear in (1, 2, 4, 8, 16, 32, 64)},
    "absurdly slow gear": {**TABLES["310p/se_resnext50"], 8: 5.0},
    "absurdly fast gear": {**TABLES["310p/se_resnext50"], 16: 0.0005},
}
TIGHTNESS = (2, 3, 5, 10, 25, 50)  # deadlines, in terms of the time of the smallest gear
OVERLOADS = (1.3, 2.2)  # in terms of the best rate of the device


@dataclass(frozen=True, slots=True)
class Result:
    """What a fixed policy made of some arrivals."""

    in_time: int
    duration_s: float

    @property
    def goodput(self) -> float:
        return self.in_time / self.duration_s


def run_fixed(policy: Classic, table: Table, times: Sequence[float], deadline_s: float) -> Result:
    """Do what the simulator does with a ClassicQueue, ten times as fast; a test compares the two."""
    most, delay_s, bound = policy.max_rows, policy.delay_s, policy.max_queued
    gears = [0, *(policy.gear(rows) for rows in range(1, most + 1))]
    queue: list[float] = []
    head = come = in_time = 0
    now = 0.0
    while True:
        while come < len(times) and times[come] <= now:
            if len(queue) - head < bound:
                queue.append(times[come])
            come += 1
        if policy.drop is Drop.LATE:
            while head < len(queue):
                if queue[head] + deadline_s >= now + table[gears[min(most, len(queue) - head)]]:
                    break
                head += 1
        if head == len(queue):
            if come == len(times):
                return Result(in_time, now)
            now = times[come]
            continue
        rows = min(most, len(queue) - head)
        ready_at = queue[head] + delay_s
        if rows < most and now < ready_at:
            now = min(ready_at, times[come]) if come < len(times) else ready_at
            continue
        rows = min(rows, gears[rows])
        now += table[gears[min(most, len(queue) - head)]]
        in_time += head + rows - bisect_left(queue, now - deadline_s - A_MOMENT_S, head, head + rows)
        head += rows


def policies(table: Table, deadline_s: float) -> Iterator[Classic]:
    """All subsets of gears, ways to fill, delays, bounds and drops that may be worth something at a deadline."""
    smallest_s = min(table.values())
    for count in range(1, len(table) + 1):
        for gears in combinations(sorted(table), count):
            if table[gears[-1]] > deadline_s:
                continue
            for fill, delay_s, bound, drop in product(
                (Fill.PAD_UP, Fill.LARGEST_FULL),
                (0.0, smallest_s / 2, deadline_s / 8, deadline_s / 3),
                _bounds(gears[-1], table[gears[-1]], deadline_s),
                (Drop.NOTHING, Drop.LATE),
            ):
                yield Classic(
                    gears=gears, max_rows=gears[-1], fill=fill, delay_s=delay_s, max_queued=bound, drop=drop
                )


def _bounds(gear: int, time_s: float, deadline_s: float) -> list[float]:
    """Bounds near the one from which on the last in the line is late."""
    just_in_time = gear * (int(deadline_s / time_s) - 1)
    return [float("inf")] + [
        bound
        for bound in (just_in_time - gear // 2, just_in_time, just_in_time + gear // 2, just_in_time + gear)
        if bound >= gear
    ]


def best_goodput(
    table: Table, deadline_s: float, unit_times: Sequence[float], rate: float
) -> tuple[float, Classic]:
    """Find the policy that answers most rows in time at an overload."""
    times = [time / rate for time in unit_times]

    def goodput(policy: Classic, share: float) -> float:
        return run_fixed(policy, table, times[: int(len(times) * share)], deadline_s).goodput

    few = _best_of(policies(table, deadline_s), lambda policy: goodput(policy, 0.1), 30)
    best = max(few, key=lambda policy: goodput(policy, 1))
    return goodput(best, 1), best


def best_capacity(
    table: Table, deadline_s: float, unit_times: Sequence[float], near: float
) -> tuple[float, Classic]:
    """Find the policy that keeps up with the highest rate, and that rate; `near` is a guess of it."""

    def share(policy: Classic, rate: float, part: float) -> float:
        times = [time / rate for time in unit_times[: int(len(unit_times) * part)]]
        return run_fixed(policy, table, times, deadline_s).in_time / len(times)

    few = _best_of(policies(table, deadline_s), lambda policy: share(policy, near, 0.1), 40)
    best_rate, best = 0.0, few[0]
    for policy in few:
        rate = highest(lambda rate, policy=policy: share(policy, rate, 1) >= WITHIN, near, above=best_rate)
        if rate > best_rate:
            best_rate, best = rate, policy
    return best_rate, best


def _best_of(candidates: Iterator[Classic], worth: Callable[[Classic], float], count: int) -> list[Classic]:
    return [
        each
        for _, each in sorted(((worth(each), each) for each in candidates), key=lambda pair: -pair[0])[:count]
    ]


def highest(keeps_up: Callable[[float], bool], near: float, *, above: float = 0.0, rounds: int = 9) -> float:
    """Bisect for the highest rate, to a part of `near`; 0 if it is not above what is asked for."""
    if above and not keeps_up(above * 1.002):
        return 0.0
    low, high = above, near
    while keeps_up(high):
        low, high = high, high * 1.5
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps_up(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Cell:
    curve: str
    tightness: float
    arrivals: int
    seed: int


@dataclass(frozen=True, slots=True)
class Compared:
    what: str
    scheduler: float
    fixed: float
    policy: Classic

    @property
    def ratio(self) -> float:
        return self.scheduler / self.fixed if self.fixed else 1.0


def compare(cell: Cell) -> list[Compared]:
    table = CURVES[cell.curve]
    deadline_s = cell.tightness * table[min(table)]
    unit_times = list(islice(poisson_times(1.0, random.Random(cell.seed)), cell.arrivals))
    best_rate = max(gear / time_s for gear, time_s in table.items() if time_s <= deadline_s)
    tunings = Tunings()

    def scheduled(rate: float) -> Outcome:
        arrivals = (Arrival(time / rate, 1, deadline_s) for time in unit_times)
        pace = Pace(times_s=table)
        return simulate(arrivals, Scheduled([pace.curve], tunings), pace)

    capacity = highest(lambda rate: scheduled(rate).share_within(deadline_s) >= WITHIN, best_rate)
    results = [
        Compared("capacity", capacity, *best_capacity(table, deadline_s, unit_times, capacity or best_rate))
    ]
    for overload in OVERLOADS:
        rate = overload * max(gear / time_s for gear, time_s in table.items())
        goodput = scheduled(rate).goodput
        results.append(Compared(f"x{overload}", goodput, *best_goodput(table, deadline_s, unit_times, rate)))
    return results
