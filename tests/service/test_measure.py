"""Measuring an engine whose batches take a known time, by a clock that only its batches move."""

from collections.abc import Mapping

import pytest

from service.engines import Curve, GearTime, measure, still_holds
from service.latency_tables import TABLES

pytestmark = pytest.mark.anyio


class Bench:
    """A device on a clock of its own."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.seconds = dict(seconds)
        self.now = 0.0
        self.runs: list[int] = []

    def clock(self) -> float:
        return self.now

    async def run(self, gear: int) -> None:
        is_cold = gear not in self.runs
        self.runs.append(gear)
        self.now += self.seconds[gear] * (100 if is_cold else 1)


async def test_each_useful_gear_is_measured_after_it_was_warmed_up() -> None:
    bench = Bench({1: 2**-10, 4: 2**-9, 32: 2**-6})  # sums of which are exact
    curve = await measure(bench.run, [32, 1, 4], 100, clock=bench.clock)
    assert curve == Curve.exact(bench.seconds)
    assert {gear: bench.runs.count(gear) for gear in bench.seconds} == {1: 201, 4: 129, 32: 17}


async def test_gears_that_smaller_ones_beat_are_left_out() -> None:
    bench = Bench(TABLES["310p/se_resnext50"])
    assert (await measure(bench.run, list(bench.seconds), 100, clock=bench.clock)).gears == (1, 4, 8, 32)
    assert bench.runs.count(64) == 2


async def test_a_slow_engine_is_measured_within_the_limit() -> None:
    bench = Bench({gear: gear * 0.5 for gear in (1, 2, 4, 8, 16)})
    bench.runs = list(bench.seconds)  # warm
    curve = await measure(bench.run, list(bench.seconds), 5.0, clock=bench.clock)
    assert curve.gears == (1, 2)
    assert bench.now <= 5.0 + 1.0


async def test_the_smallest_gear_is_measured_however_slow_it_is() -> None:
    bench = Bench({1: 50.0})
    assert (await measure(bench.run, [1], 1.0, clock=bench.clock)).gears == (1,)


async def test_a_kept_curve_is_confirmed_by_a_few_runs_or_refused() -> None:
    bench = Bench({1: 0.001, 4: 0.002})
    assert await still_holds(Curve.exact(bench.seconds), bench.run, 10, clock=bench.clock)
    assert len(bench.runs) == 8
    bench.seconds[4] = 0.0026
    assert not await still_holds(Curve.exact({1: 0.001, 4: 0.002}), bench.run, 10, clock=bench.clock)


@pytest.mark.parametrize(("p50_s", "p99_s"), [(0, 1), (2, 1), (-1, 1), (1, float("inf")), (float("nan"), 1)])
def test_times_that_cannot_be_are_refused(p50_s: float, p99_s: float) -> None:
    with pytest.raises(ValueError, match="allowed is 0 < p50 <= p99"):
        GearTime(p50_s=p50_s, p99_s=p99_s)


@pytest.mark.parametrize("gears", [[], [0, 1]])
def test_a_curve_without_gears_is_refused(gears: list[int]) -> None:
    with pytest.raises(ValueError, match="it needs one, and none below 1"):
        Curve.exact(dict.fromkeys(gears, 1.0))
