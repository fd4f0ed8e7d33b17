"""A part of what `tests/bench/fixed_policies.py` compares: all curves and deadlines take it minutes."""

import pytest

from fixed_policies import Cell, compare

pytestmark = pytest.mark.no_cover  # tracing takes several times as long; others run through the same lines


@pytest.mark.parametrize(("curve", "tightness"), [("flat", 5)])
def test_no_fixed_policy_is_much_better_than_the_scheduler(curve: str, tightness: float) -> None:
    for compared in compare(Cell(curve, tightness, arrivals=8000, seed=3)):
        assert compared.ratio >= 0.97, compared
