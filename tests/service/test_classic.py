import random
from itertools import islice

import pytest

from fixed_policies import run_fixed
from service.batching.arrivals import Arrival, Traffic, poisson_times
from service.batching.classic import Classic, ClassicQueue, Drop, Fill, tf_serving, triton
from service.batching.simulator import Outcome, Pace, simulate
from service.latency_tables import TABLES

TABLE = TABLES["310p/se_resnext50"]
GEARS = (1, 4, 8, 16, 32, 64)


def simulated(policy: Classic, rate: float, *, deadline_s: float = 1.0, count: int = 20_000) -> Outcome:
    arrivals = Traffic(rate=rate, deadline_s=(deadline_s,)).arrivals(count, seed=4)
    return simulate(arrivals, ClassicQueue(policy, TABLE), Pace(times_s=TABLE))


@pytest.mark.parametrize(
    ("fill", "gears"),
    [
        (Fill.PAD_UP, {1: 1, 2: 4, 4: 4, 5: 8, 33: 64}),
        (Fill.LARGEST_FULL, {1: 1, 3: 1, 4: 4, 31: 16, 64: 64}),
        (Fill.PAD_TO_LARGEST, {1: 64, 64: 64}),
    ],
)
def test_rows_become_a_gear_as_the_policy_fills(fill: Fill, gears: dict[int, int]) -> None:
    policy = Classic(gears=GEARS, max_rows=64, fill=fill)
    assert {rows: policy.gear(rows) for rows in gears} == gears


def test_the_first_is_waited_for_until_its_delay_is_over_or_the_batch_is_full() -> None:
    policy = triton(GEARS, max_rows=32, delay_s=0.005)
    assert [policy.rows(waiting, has_waited=False) for waiting in (1, 31, 32, 40)] == [0, 0, 32, 32]
    assert [policy.rows(waiting, has_waited=True) for waiting in (1, 31, 40)] == [1, 31, 32]


def test_a_preferred_size_runs_at_once() -> None:
    policy = triton(GEARS, max_rows=32, delay_s=0.005, preferred=(4, 16))
    assert [policy.rows(waiting, has_waited=False) for waiting in (3, 4, 7, 17, 32)] == [0, 4, 4, 16, 32]


def test_without_a_delay_whatever_waits_runs() -> None:
    assert triton(GEARS, max_rows=32).rows(3, has_waited=False) == 3


@pytest.mark.parametrize(
    ("gears", "max_rows", "fault"),
    [
        ((), 1, "the gears are"),
        ((4, 1), 4, "the gears are"),
        ((0, 1), 1, "the gears are"),
        ((1, 4), 5, "1 to 4"),
        ((1,), 0, "1 to 1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(gears: tuple[int, ...], max_rows: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Classic(gears=gears, max_rows=max_rows)


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("delay_s", "rate", "mean_ms", "p99_ms"),
    [(0.005, 600, 7.3, 16.4), (0.005, 900, 11.7, 25.0), (0.0, 600, 1.85, 6.1), (0.0, 900, 3.8, 20.5)],
)
def test_the_usual_setting_is_as_slow_as_two_other_programs_found(
    delay_s: float, rate: float, mean_ms: float, p99_ms: float
) -> None:
    outcome = simulated(triton(GEARS, max_rows=64, delay_s=delay_s), rate, count=50_000)
    assert outcome.mean_s * 1000 == pytest.approx(mean_ms, rel=0.06)
    assert outcome.quantile_s(0.99) * 1000 == pytest.approx(p99_ms, rel=0.06)


def test_a_full_queue_refuses() -> None:
    outcome = simulated(tf_serving((32,), delay_s=0.0, max_queued=64), 4000)
    assert outcome.refused > 0.4 * outcome.arrived
    assert outcome.latencies_s[-1] <= 3 * TABLE[32] + 1e-9


@pytest.mark.untraced
def test_to_drop_what_has_expired_saves_nothing_and_to_drop_what_will_be_late_does() -> None:
    def goodput(drop: Drop) -> float:
        policy = Classic(gears=(1, 4), max_rows=4, drop=drop)
        return simulated(policy, 2500, deadline_s=0.015).goodput

    assert goodput(Drop.NOTHING) < 100
    assert goodput(Drop.EXPIRED) < 1000
    assert goodput(Drop.LATE) > 1750


def test_a_request_of_many_rows_is_split_and_answered_once() -> None:
    queue = ClassicQueue(triton(GEARS, max_rows=4), TABLE)
    outcome = simulate([Arrival(0.0, rows=10)], queue, Pace(times_s=TABLE))
    assert outcome.batches == {4: 3}
    assert outcome.latencies_s == [pytest.approx(3 * TABLE[4])]
    assert outcome.padding_rows == 2


@pytest.mark.parametrize("fill", [Fill.PAD_UP, Fill.LARGEST_FULL])
@pytest.mark.parametrize("drop", [Drop.NOTHING, Drop.LATE])
@pytest.mark.parametrize(("delay_s", "bound"), [(0.0, float("inf")), (0.002, float("inf")), (0.002, 9)])
def test_the_quick_simulation_of_the_brute_force_agrees(
    fill: Fill, drop: Drop, delay_s: float, bound: float
) -> None:
    policy = Classic(gears=(1, 4, 8), max_rows=8, fill=fill, delay_s=delay_s, max_queued=bound, drop=drop)
    times = [*islice(poisson_times(1700, random.Random(2)), 5000)]
    slow = simulate(
        (Arrival(time, 1, 0.012) for time in times), ClassicQueue(policy, TABLE), Pace(times_s=TABLE)
    )
    quick = run_fixed(policy, TABLE, times, 0.012)
    assert (quick.in_time, quick.duration_s) == (slow.rows_in_time, pytest.approx(slow.duration_s))
