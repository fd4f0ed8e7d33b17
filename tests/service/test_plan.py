import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.plan import Plan, next_batch

counts = st.integers(min_value=1, max_value=3000)
gear_lists = st.lists(st.integers(min_value=1, max_value=2048), min_size=1, max_size=8)
unhurried = settings(deadline=None)  # the machine may be busy with other tests


@unhurried
@given(waiting=counts, gears=gear_lists, max_rows=counts)
def test_a_batch_takes_all_that_wait_or_fills_the_largest_gear(
    waiting: int, gears: list[int], max_rows: int
) -> None:
    assert next_batch(waiting, gears, max_rows).rows == min(waiting, max(gears))


@unhurried
@given(waiting=counts, gears=gear_lists, max_rows=counts)
def test_a_batch_runs_at_the_smallest_gear_that_holds_it(
    waiting: int, gears: list[int], max_rows: int
) -> None:
    plan = next_batch(waiting, gears, max_rows)
    assert plan.gear in gears
    assert plan.gear >= plan.rows
    assert not [gear for gear in gears if plan.rows <= gear < plan.gear]


@unhurried
@given(waiting=counts, max_rows=counts)
def test_without_gears_a_batch_is_never_padded_and_never_above_the_limit(waiting: int, max_rows: int) -> None:
    rows = min(waiting, max_rows)
    assert next_batch(waiting, None, max_rows) == Plan(rows=rows, gear=rows)


@pytest.mark.parametrize(
    ("waiting", "rows", "gear"),
    [(1, 1, 1), (2, 2, 4), (4, 4, 4), (5, 5, 16), (16, 16, 16), (17, 16, 16), (1000, 16, 16)],
)
def test_the_order_in_which_gears_are_written_does_not_matter(waiting: int, rows: int, gear: int) -> None:
    for gears in [(1, 4, 16), (16, 4, 1), (4, 16, 1)]:
        assert next_batch(waiting, gears, max_rows=8) == Plan(rows=rows, gear=gear)
