"""What the scheduler has to reach on the curve of a 310P, and how it does."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.batching.arrivals import Traffic
from service.batching.modes import tune
from service.batching.scheduler import Demanded, Tunings
from service.batching.simulator import Outcome, Pace, Scheduled, simulate
from service.batching.tuning import Tuning
from service.latency_tables import TABLES

TABLE = TABLES["310p/se_resnext50"]
RATES_WITHIN: Mapping[int, int] = {
    5: 1000,
    10: 1510,
    15: 1630,
    25: 1700,
    50: 1900,
}  # ms -> rows/s with p99 in it
OVERLOADS = (2500, 4000)  # rows/s
OVERLOAD_DEADLINES_MS = (15, 25, 50)
GOODPUT = {0.0: 1790, 0.05: 1715}  # jitter -> rows/s
MOST_LATE = 0.002  # of those admitted


class Knowing(Tunings):
    """Tunes for the rate that really is, and so for the least mean latency, whatever has been seen of it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.tuning = tune(Pace(times_s=TABLE).curve, rate, float("inf"))

    def tuned(self, demanded: Demanded) -> Tuning:  # noqa: ARG002 - it knows better
        return self.tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Poisson arrivals of single rows."""

    rate: float
    deadline_ms: float = float("inf")
    jitter: float = 0.0

    def outcome(self, arrivals: int, seed: int, tunings: Tunings) -> Outcome:
        pace = Pace(times_s=TABLE, jitter=self.jitter)
        traffic = Traffic(rate=self.rate, deadline_s=(self.deadline_ms / 1000,))
        queue = Scheduled([pace.curve], tunings)
        return simulate(traffic.arrivals(arrivals, seed), queue, pace, seed=seed)
