"""The plan on a curve whose best decisions are known: Ascend 310P with SE-ResNeXt50."""

from collections.abc import Sequence

import pytest

from service.batching.control import HOLD, control_limits
from service.batching.envelope import Envelope
from service.batching.line import Line, Ticket
from service.batching.modes import tune
from service.batching.plan import Hold, Reason, Run, plan
from service.batching.tuning import Tuning
from service.engines import Curve
from service.latency_tables import TABLES

CURVE = Curve.exact(TABLES["310p/se_resnext50"])
USEFUL = CURVE.only((1, 4, 32))


def line_of(deadlines: Sequence[float]) -> Line:
    line = Line()
    for deadline in deadlines:
        line.add(Ticket(rows=1, arrived=0.0, deadline=deadline))
    return line


def waiting(rows: int, deadline: float = 3600.0) -> Line:
    return line_of([deadline] * rows)


def test_gears_that_no_plan_uses_are_dropped() -> None:
    assert Envelope.of(CURVE).gears == (1, 4, 32)


@pytest.mark.parametrize(
    ("rows", "ms", "gears"),
    [
        (1, 0.994, [1]),
        (2, 1.987, [1, 1]),
        (3, 2.216, [4]),
        (5, 3.210, [1, 4]),
        (8, 4.433, [4, 4]),
        (28, 15.514, [4] * 7),
        (29, 15.986, [32]),
        (64, 31.972, [32, 32]),
    ],
)
def test_the_envelope_is_the_least_device_time(rows: int, ms: float, gears: list[int]) -> None:
    envelope = Envelope.of(CURVE)
    assert 1000 * envelope.costs_s[rows] == pytest.approx(ms, abs=2e-3)
    assert sorted(envelope.batches(rows)) == gears


@pytest.mark.parametrize(
    ("rate", "three", "switch"),
    [
        (100, 1, None),
        (300, 1, 119),
        (600, 4, 96),
        (900, 4, 73),
        (1100, 4, 58),
        (1300, 4, 43),
        (1500, 4, 32),
        (1800, HOLD, 32),
    ],
)
def test_the_control_limits_are_those_of_the_exact_optimum(rate: int, three: int, switch: int | None) -> None:
    times_s = {gear: time.p50_s for gear, time in USEFUL.times.items()}
    limits = control_limits(times_s, rate, 160)
    assert limits.gears[1:5] == (1, 1, three, 4)
    if switch is not None:
        assert limits.gears[switch - 2 : switch + 1][-1] == 32
        assert limits.gears[switch - 2] == 4


def test_a_device_never_waits_where_the_curve_does_not_prove_that_waiting_pays() -> None:
    tuning = tune(CURVE, rate=100, deadline_s=30)
    for rows in range(1, 100):
        assert isinstance(plan(tuning, waiting(rows), 0.0, has_held=False), Run)


def test_a_device_waits_for_a_fourth_row_under_load_but_only_once() -> None:
    tuning = tune(CURVE, rate=1800, deadline_s=30)
    held = plan(tuning, waiting(3), 5.0, has_held=False)
    assert held == Hold(5.0 + tuning.hold_s)
    assert tuning.hold_s <= CURVE.usual_s(1)
    assert plan(tuning, waiting(3), 5.0, has_held=True) == Run(1, Reason.HELD)


def test_a_device_does_not_wait_at_the_cost_of_a_deadline() -> None:
    tuning = tune(CURVE, rate=1800, deadline_s=30)
    decision = plan(tuning, waiting(3, deadline=CURVE.usual_s(4) * 1.01), 0.0, has_held=False)
    assert decision == Run(4, Reason.DEADLINE)


def test_a_device_waits_no_longer_than_the_deadlines_allow() -> None:
    tuning = tune(CURVE.only((1, 4)), rate=1800, deadline_s=0.01)
    line = waiting(3, deadline=CURVE.usual_s(4) * 1.01)
    held = plan(tuning, line, 0.0, has_held=False)
    assert isinstance(held, Hold)
    assert held.until == pytest.approx(CURVE.usual_s(4) * 0.01)
    assert plan(tuning, line, held.until, has_held=False) == Run(4, Reason.DEADLINE)


@pytest.mark.parametrize(
    ("rate", "deadline_s", "main"),
    [
        (2500, 0.015, 4),
        (2500, 0.025, 4),
        (2500, 0.050, 32),
        (1500, 0.015, 4),
        (4000, 0.050, 32),
        (4000, 30, 32),
    ],
)
def test_the_large_gear_is_used_where_it_answers_more_rows_in_time(
    rate: int, deadline_s: float, main: int
) -> None:
    assert tune(CURVE, rate, deadline_s).main == main


def tuned_for_load() -> Tuning:
    return tune(CURVE, rate=2500, deadline_s=0.050)


def test_a_long_line_is_run_with_the_most_efficient_gear() -> None:
    for rows in (32, 100, 1000):
        assert plan(tuned_for_load(), waiting(rows), 0.0, has_held=False) == Run(32, Reason.FULL)


def test_a_smaller_gear_runs_when_the_first_in_line_cannot_wait_for_the_usual_one() -> None:
    line = line_of([0.004, *[3600.0] * 30])
    tuning = tune(CURVE.only((1, 32)), rate=1000, deadline_s=30)
    assert tuning.limits.gear(31, may_hold=False) == 32
    assert plan(tuning, line, 0.0, has_held=False) == Run(1, Reason.DEADLINE)


def test_what_a_place_is_promised_holds_whoever_else_comes() -> None:
    tuning = tune(CURVE, rate=2500, deadline_s=0.015)
    for place in (1, 4, 5, 16, 100):
        assert tuning.promise_s(place) == pytest.approx(-(-place // 4) * CURVE.usual_s(4))
