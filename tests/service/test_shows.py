"""What the scheduler reaches on the curve of a 310P. `tests/bench/shows.py` shows the same at full length."""

import pytest

from service.batching.scheduler import Tunings
from shows import GOODPUT, MOST_LATE, RATES_WITHIN, Knowing, Load

pytestmark = pytest.mark.untraced  # others run through the same lines

ARRIVALS = 20_000
SEED = 77


@pytest.fixture(scope="module")
def tunings() -> Tunings:
    return Tunings()


@pytest.mark.parametrize(("within_ms", "rate"), RATES_WITHIN.items())
def test_99_percent_of_all_arrivals_are_in_time_up_to_a_high_rate(
    within_ms: int, rate: int, tunings: Tunings
) -> None:
    outcome = Load(rate=rate, deadline_ms=within_ms).outcome(ARRIVALS, SEED, tunings)
    assert outcome.share_within(within_ms / 1000) >= 0.99


@pytest.mark.parametrize(("rate", "deadline_ms"), [(2500, 15), (4000, 15), (4000, 25), (2500, 50)])
@pytest.mark.parametrize(("jitter", "least"), GOODPUT.items())
def test_an_overload_costs_no_goodput_and_makes_nobody_late(
    rate: int, deadline_ms: int, jitter: float, least: int, tunings: Tunings
) -> None:
    outcome = Load(rate=rate, deadline_ms=deadline_ms, jitter=jitter).outcome(2 * ARRIVALS, SEED, tunings)
    assert outcome.goodput >= least
    assert outcome.late_share <= MOST_LATE


@pytest.mark.parametrize("rate", [100, 900, 1500, 1700])
def test_the_mean_latency_is_within_4_percent_of_the_exact_optimum(rate: int, tunings: Tunings) -> None:
    """The optimum knows the rate; the scheduler estimates it. Both see the same arrivals."""
    ours = Load(rate=rate).outcome(ARRIVALS, SEED, tunings)
    best = Load(rate=rate).outcome(ARRIVALS, SEED, Knowing(rate))
    assert ours.mean_s <= 1.04 * best.mean_s


def test_the_optimum_is_what_the_equations_say() -> None:
    knowing = Knowing(600)
    outcome = Load(rate=600).outcome(ARRIVALS, SEED, knowing)
    assert outcome.mean_s == pytest.approx(knowing.tuning.limits.latency_s, rel=0.03)
    assert knowing.tuning.limits.latency_s * 1000 == pytest.approx(1.59, abs=0.01)
