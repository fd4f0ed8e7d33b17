"""What a mode achieves at a rate and a deadline: the very plan under a virtual clock -> misses and latency.

Rows come one by one, want to be answered equally soon, and are let in if the promise to them can be kept.
"""

import math
import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from statistics import fmean

from service.batching.plan import Hold, plan
from service.batching.tuning import ROUNDING_S, Tuning

_ROWS = 4000
_WARM_UP = 500  # of them, until the line is as long as it usually is


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mode achieves."""

    missed: float  # share of the rows that were not let in
    latency_s: float  # mean of the others


def trial(tuning: Tuning, rate: float, deadline_s: float) -> Outcome:
    """Try a mode; the arrivals are the same for all modes."""
    run = _Trial(tuning, deadline_s)
    times = [time / rate for time in _arrivals()]
    for time in times[:_WARM_UP]:
        run.arrive(time)
    run.latencies_s.clear()
    admitted = sum([run.arrive(time) for time in times[_WARM_UP:]])
    missed = 1 - admitted / (len(times) - _WARM_UP)
    return Outcome(missed, fmean(run.latencies_s) if run.latencies_s else math.inf)


@cache
def _arrivals() -> tuple[float, ...]:
    draw = random.Random(1)  # noqa: S311 - no secret
    return tuple(accumulate(draw.expovariate(1.0) for _ in range(_ROWS)))


class _Queue:
    """A line of equal rows, as the plan sees it."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    @property
    def rows(self) -> int:
        return len(self.deadlines)

    def most_urgent(self, first: int, others: int) -> list[float]:
        return [self.deadlines[0], *self.deadlines[first::others]]


class _Trial:
    """One device and its line."""

    def __init__(self, tuning: Tuning, deadline_s: float) -> None:
        self.now = 0.0  # when the device is free
        self.latencies_s: list[float] = []
        self._tuning, self._deadline_s = tuning, deadline_s
        self._queue = _Queue()
        self._held_since: float | None = None
        self._is_joined = False  # all who wait are promised one batch
        self._promises_s = [0.0]

    def arrive(self, now: float) -> bool:
        """Let a row in if it will surely be in time."""
        self._pass_time(now)
        if not self._is_in_time(now):
            return False
        self._queue.deadlines.append(now + self._deadline_s)
        self.now = max(self.now, now)
        return True

    def _pass_time(self, until: float) -> None:
        """Run all batches that begin up to a moment."""
        tuning, queue = self._tuning, self._queue
        while queue.rows and self.now <= until:
            if self._held_since is None:
                self._held_since = self.now
            has_held = self.now >= self._held_since + tuning.hold_s
            decision = plan(tuning, queue, self.now, has_held=has_held)
            if isinstance(decision, Hold):
                if decision.until > until:
                    return
                self.now = decision.until
                continue
            self._held_since = None
            self.now += tuning.curve.usual_s(decision.gear)
            came = self.now + self._deadline_s
            self.latencies_s += [came - deadline for deadline in queue.deadlines[: decision.gear]]
            del queue.deadlines[: decision.gear]
            self._is_joined = False

    def _is_in_time(self, now: float) -> bool:
        rows, free_s = self._queue.rows + 1, max(0.0, self.now - now)
        if not self._is_joined and free_s + self._promise_s(now) <= self._deadline_s + ROUNDING_S:
            return True
        earliest_s = self._queue.deadlines[0] - now if self._queue.rows else self._deadline_s
        fits = free_s + self._tuning.joined_s(rows) <= earliest_s + ROUNDING_S
        self._is_joined |= fits
        return fits

    def _promise_s(self, now: float) -> float:
        """Tell when the last in the line would be through with one more row."""
        tuning, place = self._tuning, self._queue.rows + 1
        if place == 1 and self.now <= now:
            return tuning.curve.times[tuning.limits.gear(1, may_hold=False)].p99_s
        while len(self._promises_s) <= place:
            self._promises_s.append(tuning.promise_s(len(self._promises_s)))
        return self._promises_s[place]
