"""Which gears to use at an arrival rate and a deadline: curve, rate, deadline -> tuning.

A large gear may be the most efficient one and still lose: rows that come while it runs wait for all of it. So each
cap on the gears is a mode of its own, with its control limits, the worst finish of each place in the line, and the
rows that the line may hold for a deadline. The mode that answers most rows in time is taken; modes are not mixed.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from service.batching.control import HOLD, ControlLimits, Floats, control_limits, poisson
from service.batching.envelope import Envelope
from service.engines.curve import Curve

_LARGEST_GEARS = 5  # the tables go up to so many times the largest gear
_LEAST_ROWS = 32
_MOST_ROWS = 256
_EDGE = 0.9  # beyond this share of its rows a table feels its own end
_PATIENCE = 3  # times the usual pause between arrivals: who has not come then does not come soon
_NEARLY = 0.998  # modes that answer this share of the most are as good; the quickest of them is taken


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a queue decides: the gear for each number of waiting rows, and when each place will be through."""

    curve: Curve  # of the gears that may run
    limits: ControlLimits
    main: int  # the most efficient gear: what a long line is run with
    hold_s: float  # the longest that a free device waits for one more row

    def finish_s(self, place: int, gear: int) -> float:
        """Tell when the row at this place, from 1, is through if only one gear runs from a moment on.

        Nobody who comes later can change that. Slow batches are not all slow at once: what they take beyond the
        usual adds up as spreads of independent times do.
        """
        batches = -(-place // gear)
        time = self.curve.times[gear]
        return batches * time.p50_s + math.sqrt(batches) * time.spread_s

    @property
    def row_s(self) -> float:
        """Tell the device time of one row of many."""
        return self.curve.usual_s(self.main) / self.main

    def promise_s(self, place: int) -> float:
        """Tell when the row at this place is through by the main gear, which is what a newcomer is admitted by."""
        return self.finish_s(place, self.main)

    def ends_s(self, free_at: float, batches: int) -> list[float]:
        """Tell when each of so many batches of the main gear is through, from a moment on."""
        return [free_at + self.finish_s(batch * self.main, self.main) for batch in range(1, batches + 1)]

    def gear_in_time(self, waiting: int, deadline_s: float, *, may_hold: bool) -> int:
        """Tell which gear runs after a batch, or HOLD, if those who wait have no more time than they surely have.

        A line that grew while the main gear ran was promised to be run by it; there may be no time for anything else.
        """
        surely_s = deadline_s - self.curve.usual_s(self.main)
        wanted = self.limits.gear(waiting, may_hold=may_hold)
        if wanted == HOLD:
            if self.hold_s + self.promise_s(waiting) <= surely_s:
                return HOLD
            wanted = self.limits.gear(waiting, may_hold=False)
        rest = waiting - wanted
        if rest <= 0 or self.curve.usual_s(wanted) + self.promise_s(rest) <= surely_s:
            return wanted
        return self.main

    def room(self, within_s: float, max_rows: int) -> int:
        """Tell how many places, of `max_rows`, are through within a time."""
        return bisect_right(range(1, max_rows + 1), within_s, key=self.promise_s)


def tune(curve: Curve, rate: float, deadline_s: float) -> Tuning:
    """Choose the mode for `rate` rows a second on one device, each to be answered within `deadline_s`."""
    curve = curve.only(Envelope.of(curve).gears)
    max_rows = min(_MOST_ROWS, max(_LEAST_ROWS, _LARGEST_GEARS * curve.gears[-1]))
    best = _mode(curve, rate, max_rows)
    if best.promise_s(max_rows) <= deadline_s:
        return best  # no line that is worth a table is too long
    modes = [
        _mode(curve.only(curve.gears[:count]), rate, max_rows) for count in range(1, len(curve.gears) + 1)
    ]
    outcomes = [_outcome(mode, rate, deadline_s, max_rows) for mode in modes]
    enough = max(outcome.goodput for outcome in outcomes) * _NEARLY
    good = [pair for pair in zip(outcomes, modes, strict=True) if pair[0].goodput >= enough]
    return min(good, key=lambda pair: pair[0].latency_s)[1]


def _mode(curve: Curve, rate: float, max_rows: int) -> Tuning:
    limits = control_limits({gear: curve.usual_s(gear) for gear in curve.gears}, rate, max_rows)
    kept = int(max_rows * _EDGE) + 1
    main = min(curve.gears, key=lambda gear: curve.usual_s(gear) / gear)
    hold_s = min(curve.usual_s(curve.gears[0]), _PATIENCE / rate)
    cut = replace(limits, gears=limits.gears[:kept], gears_now=limits.gears_now[:kept])
    return Tuning(curve, cut, main, hold_s)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a mode achieves in the long run."""

    goodput: float  # rows a second
    latency_s: float


def _outcome(mode: Tuning, rate: float, deadline_s: float, max_rows: int) -> _Outcome:
    """Tell what is achieved when only those rows are admitted that will be in time.

    The line at the moments when the device is free is a Markov chain; its stationary state gives the means.
    """
    room = mode.room(deadline_s, max_rows)
    if room < 1:
        return _Outcome(0.0, math.inf)
    states = np.arange(room + 1)
    moves, duration_s, served = np.zeros((room + 1, room + 1)), np.empty(room + 1), np.zeros(room + 1)
    during = {gear: _arrivals_during(mode, gear, rate, deadline_s, room) for gear in mode.curve.gears}
    for waiting in states.tolist():
        gear = mode.gear_in_time(waiting, deadline_s, may_hold=waiting < room) if waiting else HOLD
        if gear == HOLD:
            moves[waiting, waiting + 1] = 1.0
            duration_s[waiting] = 1 / rate
        else:
            served[waiting] = min(gear, waiting)
            moves[waiting] = during[gear][max(0, waiting - gear)]
            duration_s[waiting] = mode.curve.usual_s(gear)
    share = _stationary(moves)
    present = states * duration_s + np.where(served > 0, rate * duration_s**2 / 2, 0)
    rows = float(share @ served)
    return _Outcome(rows / float(share @ duration_s), float(share @ present) / rows)


def _arrivals_during(mode: Tuning, gear: int, rate: float, deadline_s: float, room: int) -> Floats:
    """Tell how a line grows while a gear runs: the later a row comes, the longer the line that it may join."""
    batch_s = mode.curve.usual_s(gear)
    finish_s = np.array([mode.promise_s(place) for place in range(room + 1)])
    opens_s = np.maximum(0.0, batch_s + finish_s - deadline_s)  # when a row may take each place
    moments = np.unique(np.clip(opens_s, 0, batch_s))
    growth = np.eye(room + 1)
    for begin_s, end_s in zip(moments, [*moments[1:], batch_s], strict=True):
        places = int(np.searchsorted(opens_s, begin_s, side="right")) - 1
        if end_s > begin_s:
            growth = growth @ _births(rate * (end_s - begin_s), places, room)
    return growth


def _births(mean: float, places: int, room: int) -> Floats:
    """Let Poisson arrivals fill a line up to `places`; a longer line stays as it is."""
    chances = poisson(mean, room + 1)
    births = np.eye(room + 1)
    for waiting in range(places):
        births[waiting] = 0.0
        births[waiting, waiting:places] = chances[: places - waiting]
        births[waiting, places] = max(0.0, 1 - births[waiting].sum())
    return births


def _stationary(moves: Floats) -> Floats:
    """Solve for the share of each state in the long run."""
    equations = np.vstack([moves.T - np.eye(len(moves)), np.ones(len(moves))])
    wanted = np.zeros(len(moves) + 1)
    wanted[-1] = 1.0
    return np.asarray(np.linalg.lstsq(equations, wanted, rcond=None)[0], np.float64)
