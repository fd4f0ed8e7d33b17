from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.envelope import Envelope
from service.engines import Curve
from service.latency_tables import TABLES

unhurried = settings(deadline=None)  # the machine may be busy with other tests
curves = st.dictionaries(
    st.integers(1, 7), st.floats(0.001, 1.0, allow_nan=False), min_size=1, max_size=3
).map(Curve.exact)


def least_s(curve: Curve, rows: int) -> float:
    """Try every number of batches at every gear."""
    counts = [range(-(-rows // gear) + 1) for gear in curve.gears]
    return min(
        sum(count * curve.usual_s(gear) for gear, count in zip(curve.gears, chosen, strict=True))
        for chosen in product(*counts)
        if sum(count * gear for gear, count in zip(curve.gears, chosen, strict=True)) >= rows
    )


@unhurried
@given(curve=curves, data=st.data())
def test_no_batches_that_hold_the_rows_take_less_time(curve: Curve, data: st.DataObject) -> None:
    envelope = Envelope.of(curve)
    rows = data.draw(st.integers(1, min(14, len(envelope.costs_s) - 1)))
    assert envelope.costs_s[rows] == pytest.approx(least_s(curve, rows), rel=1e-6)


@unhurried
@given(curve=curves)
def test_every_plan_holds_its_rows_and_costs_what_the_envelope_says(curve: Curve) -> None:
    envelope = Envelope.of(curve)
    for rows, cost_s in enumerate(envelope.costs_s):
        batches = envelope.batches(rows)
        assert sum(batches) >= rows
        assert sum(batches[:-1]) < rows or not rows
        assert sum(map(curve.usual_s, batches)) == pytest.approx(cost_s)
        assert {*batches} <= {*envelope.gears}


@unhurried
@given(curve=curves)
def test_gears_that_are_left_out_are_not_missed(curve: Curve) -> None:
    envelope = Envelope.of(curve)
    kept = Envelope.of(curve.only(envelope.gears))
    assert kept.costs_s == pytest.approx(envelope.costs_s[: len(kept.costs_s)], rel=1e-6)


def test_a_310p_is_worth_three_of_its_six_gears() -> None:
    envelope = Envelope.of(Curve.exact(TABLES["310p/se_resnext50"]))
    assert envelope.gears == (1, 4, 32)
    plans = {1: [1], 2: [1, 1], 3: [4], 5: [1, 4], 8: [4, 4], 16: [4] * 4, 29: [32], 32: [32], 64: [32, 32]}
    assert {rows: sorted(envelope.batches(rows)) for rows in plans} == plans
