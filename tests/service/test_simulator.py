import math
import random

import pytest

from service.batching.arrivals import Arrival, Bursts, Traffic
from service.batching.classic import Classic, ClassicQueue
from service.batching.scheduler import Bounds, Tunings
from service.batching.simulator import Outcome, Pace, Queue, Scheduled, simulate
from service.latency_tables import TABLES

TABLE = TABLES["310p/se_resnext50"]
PACE = Pace(times_s=TABLE)
TUNINGS = Tunings()  # tuning takes longer than simulating, and equal demands are tuned equally
EVERYTHING = Traffic(
    rate=3000,
    deadline_s=(0.01, 0.05, math.inf),
    rows=(1, 1, 1, 7, 40),
    callers=5,
    priorities=(0, 1),
    leaving=0.2,
    bursts=Bursts(peak=2, length_s=0.2),
)


def scheduled(devices: int = 1, bounds: Bounds | None = None) -> Scheduled:
    return Scheduled([PACE.curve] * devices, TUNINGS, bounds)


def classic(devices: int = 1) -> ClassicQueue:
    return ClassicQueue(Classic(gears=(1, 4, 32), max_rows=32, delay_s=0.002), TABLE, devices=devices)


def test_one_request_takes_as_long_as_its_batch() -> None:
    outcome = simulate([Arrival(0.0), Arrival(1.0, rows=4)], scheduled(), PACE)
    assert outcome.latencies_s == pytest.approx([TABLE[1], TABLE[4]])
    assert (outcome.batches, outcome.padding_rows) == ({1: 1, 4: 1}, 0)
    assert outcome.duration_s == pytest.approx(1 + TABLE[4])
    assert outcome.busy_s == pytest.approx(TABLE[1] + TABLE[4])


def test_a_split_request_is_answered_with_its_last_row() -> None:
    outcome = simulate([Arrival(0.0, rows=100)], scheduled(), PACE)
    assert outcome.answered == 1
    assert outcome.latencies_s[0] == pytest.approx(outcome.busy_s)


def test_two_devices_share_the_rows_of_one_request() -> None:
    alone = simulate([Arrival(0.0, rows=64)], classic(), PACE)
    shared = simulate([Arrival(0.0, rows=64)], classic(devices=2), PACE)
    assert shared.latencies_s[0] == pytest.approx(alone.latencies_s[0] / 2)


@pytest.mark.parametrize("queue", [scheduled(), scheduled(devices=3), classic(), classic(devices=2)])
def test_every_request_ends_exactly_once(queue: Queue) -> None:
    outcome = simulate(EVERYTHING.arrivals(3000, seed=8), queue, Pace(times_s=TABLE, jitter=0.1), seed=1)
    assert outcome.arrived == 3000
    assert outcome.answered + outcome.refused + outcome.expired + outcome.left == 3000
    assert outcome.answered > 300
    assert outcome.left > 0


def test_the_same_seeds_bring_the_same_outcome() -> None:
    def run(seed: int) -> Outcome:
        pace = Pace(times_s=TABLE, jitter=0.1)
        return simulate(EVERYTHING.arrivals(1000, seed=1), scheduled(), pace, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_who_has_left_is_neither_late_nor_in_time() -> None:
    arrivals = [Arrival(0.0, deadline_s=1.0), Arrival(0.0001, deadline_s=1.0, leaves_s=0.0001)]
    outcome = simulate(arrivals, scheduled(), PACE)
    assert (outcome.left, outcome.answered, outcome.rows_in_time) == (1, 1, 1)
    assert outcome.share_within(1.0) == 1


def test_bounds_refuse_what_would_be_more() -> None:
    queue = scheduled(bounds=Bounds(max_rows=8, max_device_s=math.inf))
    outcome = simulate(Traffic(rate=5000).arrivals(2000, seed=1), queue, PACE)
    assert outcome.refused > 1000
    assert outcome.late_share == 0


def test_jitter_slows_as_the_curve_of_such_a_device_says() -> None:
    pace = Pace(times_s={1: 0.001}, jitter=0.2)
    arrivals = (Arrival(second) for second in range(4000))
    outcome = simulate(arrivals, Scheduled([pace.curve], TUNINGS), pace, seed=3)
    (time,) = pace.curve.times.values()
    assert outcome.quantile_s(0.5) == pytest.approx(time.p50_s, rel=0.02)
    assert outcome.quantile_s(0.99) == pytest.approx(time.p99_s, rel=0.02)
    assert outcome.quantile_s(0.0) >= 0.001


def test_nothing_is_told_of_nothing() -> None:
    outcome = simulate([], scheduled(), PACE)
    assert (outcome.mean_s, outcome.quantile_s(0.99), outcome.goodput) == (math.inf, math.inf, 0.0)
    assert (outcome.late_share, outcome.share_within(1.0)) == (0.0, 1.0)


def test_equal_demands_are_tuned_once() -> None:
    tunings = Tunings()
    simulate(Traffic(rate=900).arrivals(3000, seed=1), Scheduled([PACE.curve], tunings), PACE)
    demanded = Scheduled([PACE.curve], tunings)._scheduler.devices[0].demanded
    assert demanded is not None
    assert tunings.tuned(demanded) is tunings.tuned(demanded)


# What was found with it


def test_the_first_to_come_are_not_refused_because_the_queue_was_tuned_for_nobody() -> None:
    outcome = simulate((Arrival(number / 1500, 1, 0.015) for number in range(100)), scheduled(), PACE)
    assert (outcome.refused, outcome.expired) == (0, 0)


@pytest.mark.untraced
@pytest.mark.parametrize("name", [*TABLES])
@pytest.mark.parametrize("tightness", [3, 10])
def test_who_is_admitted_is_answered_in_time_at_any_overload(name: str, tightness: float) -> None:
    pace = Pace(times_s=TABLES[name])
    rate = random.Random(f"{name} {tightness}").uniform(0.5, 2.5) * pace.curve.most_rows_a_s
    arrivals = Traffic(rate=rate, deadline_s=(tightness * pace.times_s[1],)).arrivals(3000, seed=9)
    outcome = simulate(arrivals, Scheduled([pace.curve], TUNINGS), pace)
    assert outcome.late == 0
    assert outcome.late_share <= 0.006  # those promised by one tuning and served by the next


def test_a_most_efficient_gear_that_no_line_runs_is_tuned_for_without_an_error() -> None:
    """Its gain is so small that whoever comes meanwhile would pay more."""
    pace = Pace(times_s=TABLES["310p/sknet50"])
    traffic = Traffic(rate=0.5 * pace.curve.most_rows_a_s, deadline_s=(3 * pace.times_s[1],))
    assert simulate(traffic.arrivals(3000, seed=1), Scheduled([pace.curve], TUNINGS), pace).answered
