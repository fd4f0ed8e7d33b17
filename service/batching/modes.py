"""Which gears to use at an arrival rate and a deadline: curve, rate, deadline -> tuning.

A large gear may be the most efficient one and still lose: rows that come while it runs wait for all of it. So each
cap on the gears is a mode of its own, with its control limits. Where a deadline is short, so is each gear that promises
may be made by, and whether one batch for all who wait is a promise too. A trial of each mode tells which answers most
rows in time; modes are not mixed.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from service.batching.control import control_limits
from service.batching.envelope import Envelope
from service.batching.trial import trial
from service.batching.tuning import Tuning
from service.engines.curve import Curve

_LARGEST_GEARS = 5  # the tables go up to so many times the largest gear
_LEAST_ROWS = 32
_MOST_ROWS = 256
_EDGE = 0.9  # beyond this share of its rows a table feels its own end
_PATIENCE = 3  # times the usual pause between arrivals: who has not come then does not come soon
_FEW = 2  # batches: the one that runs and the next; a deadline that leaves time for more is not short
_A_LITTLE, _A_FEW = 0.005, 0.02  # a mode is as good if it answers so little less, and misses so few more


def tune(curve: Curve, rate: float, deadline_s: float) -> Tuning:
    """Choose the mode for `rate` rows a second on one device, each to be answered within `deadline_s`."""
    curve = curve.only(Envelope.of(curve).gears)
    max_rows = min(_MOST_ROWS, max(_LEAST_ROWS, _LARGEST_GEARS * curve.gears[-1]))
    best = _mode(curve, rate, max_rows)
    if best.promise_s(max_rows) <= deadline_s:
        return best  # no line that is worth a table is too long
    caps = [gear for gear in reversed(curve.gears) if curve.usual_s(gear) <= deadline_s] or curve.gears[:1]
    modes = [mode for cap in caps for mode in _modes(curve, cap, rate, deadline_s, max_rows)]
    outcomes = [trial(mode, rate, deadline_s) for mode in modes]
    least = min(outcome.missed for outcome in outcomes)
    most = least + min(_A_LITTLE * (1 - least), _A_FEW * least)
    # Plain promises are sturdier: others are made only where they are worth it.
    good = [pair for pair in zip(outcomes, modes, strict=True) if pair[0].missed <= most]
    return min(good, key=lambda pair: (not pair[1].is_plain, pair[0].latency_s))[1]


def _modes(curve: Curve, cap: int, rate: float, deadline_s: float, max_rows: int) -> Iterator[Tuning]:
    plain = _mode(curve.only([gear for gear in curve.gears if gear <= cap]), rate, max_rows)
    if deadline_s > _FEW * curve.usual_s(plain.main):
        yield plain
        return
    for main, has_joining in product(plain.curve.gears, (False, True)):
        yield replace(plain, main=main, has_joining=has_joining)


def _most_efficient(curve: Curve) -> int:
    return min(curve.gears, key=lambda gear: curve.usual_s(gear) / gear)


def _mode(curve: Curve, rate: float, max_rows: int) -> Tuning:
    limits = control_limits({gear: curve.usual_s(gear) for gear in curve.gears}, rate, max_rows)
    kept = int(max_rows * _EDGE) + 1
    hold_s = min(curve.usual_s(curve.gears[0]), _PATIENCE / rate)
    cut = replace(limits, gears=limits.gears[:kept], gears_now=limits.gears_now[:kept])
    return Tuning(curve, cut, _most_efficient(curve), hold_s)
