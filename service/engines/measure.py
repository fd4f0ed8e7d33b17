"""Measures how long batches take: an engine that runs one at a time -> its curve, within a limit of time."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from service.engines.curve import Curve, GearTime

RunGear: TypeAlias = Callable[[int], Awaitable[object]]
Clock: TypeAlias = Callable[[], float]

_MOST_RUNS = 200
_ENOUGH_RUNS, _ENOUGH_S = 10, 0.25  # of one gear; slow gears are not run 200 times
_HOPELESS = 1.2  # so much dearer than the same rows by smaller gears: no luck in the next runs will mend that
_CHECKS = 3
_AGREES = 1.2


async def measure(
    run: RunGear, gears: Sequence[int], limit_s: float, *, clock: Clock = time.monotonic
) -> Curve:
    """Warm up and time each gear, the smallest first; leave out those that cannot pay or that there is no time for.

    The smallest gear is always measured; larger ones as long as the limit allows.
    """
    deadline = clock() + limit_s
    times: dict[int, list[float]] = {}
    for gear in sorted(gears):
        if times and clock() + 2 * _foreseen_s(times, gear) > deadline:
            break
        await run(gear)
        took_s = await _timed(run, gear, clock)
        if took_s <= _HOPELESS * _without_s(times, gear):
            times[gear] = [took_s]
    unfinished = list(times)
    while unfinished and clock() < deadline:
        for gear in tuple(unfinished):
            times[gear].append(await _timed(run, gear, clock))
            runs = len(times[gear])
            if runs >= _MOST_RUNS or (runs >= _ENOUGH_RUNS and sum(times[gear]) >= _ENOUGH_S):
                unfinished.remove(gear)
            if clock() >= deadline:
                break
    return Curve({gear: gear_time(taken) for gear, taken in times.items()})


async def still_holds(curve: Curve, run: RunGear, limit_s: float, *, clock: Clock = time.monotonic) -> bool:
    """Tell whether a kept curve is still about right, by a few runs of each gear."""
    deadline = clock() + limit_s
    for gear, known in curve.times.items():
        await run(gear)
        taken = sorted([await _timed(run, gear, clock) for _ in range(_CHECKS)])
        if not known.p50_s / _AGREES <= taken[_CHECKS // 2] <= known.p50_s * _AGREES:
            return False
        if clock() > deadline:
            break
    return True


def gear_time(taken: Sequence[float]) -> GearTime:
    """Make the figures of a gear from the times of its batches."""
    ordered = sorted(taken)
    return GearTime(p50_s=ordered[len(ordered) // 2], p99_s=ordered[int(0.99 * len(ordered))])


async def _timed(run: RunGear, gear: int, clock: Clock) -> float:
    began = clock()
    await run(gear)
    return clock() - began


def _foreseen_s(times: dict[int, list[float]], gear: int) -> float:
    """Guess the time of a gear from the one below, only to see whether there is time to try it."""
    below = max(times)
    return times[below][0] * gear / below


def _without_s(times: dict[int, list[float]], gear: int) -> float:
    """Tell the time of as many rows by the gears that are known."""
    return min((taken[0] * -(-gear // known) for known, taken in times.items()), default=float("inf"))
