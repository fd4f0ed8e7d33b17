"""What `cardinal simulate` computes: options -> runs of each policy, and capacities."""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.batching.arrivals import Arrival, Bursts, Traffic, read_trace
from service.batching.classic import Classic, ClassicQueue, Fill, tf_serving, triton
from service.batching.scheduler import Tunings
from service.batching.simulator import Outcome, Pace, Queue, Scheduled, simulate
from service.latency_tables import TABLES

OURS = "cardinal"
_SWEEP = 10  # rates, if none is asked for
_SWEEP_UP_TO = 1.2  # times what the devices can run
_WITHIN = 0.99
_ROUNDS = 9  # of bisection: a fifth of a percent


class CannotSimulate(Exception):
    """What was asked makes no sense; the message names the value and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One policy at one rate."""

    policy: str
    rate: float  # rows a second
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The highest rates, in rows a second, at which 99 % are answered within a time."""

    policy: str
    within_ms: float
    answers: float  # 99 % of the answers, when deadlines are not told
    arrivals: float  # 99 % of all arrivals, when they are: a refusal counts as late


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is simulated."""

    name: str
    pace: Pace
    devices: int
    traffic: Traffic  # at any rate
    rates: Sequence[float]
    trace: Sequence[Arrival]  # instead of it
    count: int
    seed: int
    classics: Mapping[str, Classic]
    slos_ms: Sequence[float]
    tunings: Tunings = field(default_factory=Tunings)

    @property
    def most_rows_a_s(self) -> float:
        """Tell what all devices can run with batches of the best gear."""
        return self.devices * max(gear / time_s for gear, time_s in self.pace.times_s.items())

    @property
    def policies(self) -> Sequence[str]:
        """Our own first."""
        return (OURS, *self.classics)

    def runs(self) -> Iterable[Run]:
        """Simulate every policy at every rate."""
        for rate in self.rates:
            for policy in self.policies:
                yield Run(policy=policy, rate=rate, outcome=self._run(policy, self._arrivals(rate)))

    def capacities(self) -> Iterable[Capacity]:
        """Bisect for the capacity of every policy within every time."""
        for within_ms in self.slos_ms:
            for policy in self.policies:
                yield Capacity(
                    policy=policy,
                    within_ms=within_ms,
                    answers=self._capacity(policy, within_ms / 1000, is_told=False),
                    arrivals=self._capacity(policy, within_ms / 1000, is_told=True),
                )

    def _capacity(self, policy: str, within_s: float, *, is_told: bool) -> float:
        def keeps_up(rate: float) -> bool:
            told = (within_s if is_told else math.inf,)
            outcome = self._run(policy, self._arrivals(rate, told))
            return (
                outcome.share_within(within_s) >= _WITHIN
                if is_told
                else outcome.quantile_s(_WITHIN) <= within_s
            )

        return _highest(keeps_up, _SWEEP_UP_TO * self.most_rows_a_s)

    def _arrivals(self, rate: float, deadline_s: Sequence[float] | None = None) -> Iterable[Arrival]:
        if self.trace:
            return self.trace
        traffic = self.traffic
        return Traffic(
            rate=rate,
            deadline_s=deadline_s or traffic.deadline_s,
            rows=traffic.rows,
            callers=traffic.callers,
            bursts=traffic.bursts,
        ).arrivals(self.count, self.seed)

    def _run(self, policy: str, arrivals: Iterable[Arrival]) -> Outcome:
        return simulate(arrivals, self._queue(policy), self.pace, seed=self.seed)

    def _queue(self, policy: str) -> Queue:
        if policy == OURS:
            return Scheduled([self.pace.curve] * self.devices, self.tunings)
        return ClassicQueue(self.classics[policy], self.pace.times_s, devices=self.devices)


def study_of(options: argparse.Namespace) -> Study:
    """Make a study of parsed options.

    Raises:
        CannotSimulate: they do not fit together, or a file cannot be used.
    """
    pace = Pace(times_s=_times_of(options.curve), jitter=options.jitter)
    trace = _trace_of(options.trace) if options.trace else []
    if trace and (options.rate or options.capacity or options.bursts or options.plot):
        raise CannotSimulate(
            "a trace says itself who comes when: --rate, --bursts, --capacity and --plot do not go with it"
        )
    most = options.devices * max(gear / time_s for gear, time_s in pace.times_s.items())
    sweep = [most * _SWEEP_UP_TO * step / _SWEEP for step in range(1, _SWEEP + 1)]
    return Study(
        name=options.curve,
        pace=pace,
        devices=options.devices,
        traffic=Traffic(
            rate=1,
            deadline_s=(options.deadline_ms / 1000 if options.deadline_ms else math.inf,),
            rows=tuple(options.rows),
            callers=options.callers,
            bursts=_bursts_of(options.bursts),
        ),
        rates=[_rate_of(trace)]
        if trace
        else options.rate or ([] if options.capacity and not options.plot else sweep),
        trace=trace,
        count=options.arrivals,
        seed=options.seed,
        classics=_classics(sorted(pace.times_s), options.delay_ms / 1000, options.against),
        slos_ms=options.capacity,
    )


def _classics(gears: Sequence[int], delay_s: float, names: Sequence[str]) -> Mapping[str, Classic]:
    largest = gears[-1]
    all_of_them = {
        "delay": triton(gears, max_rows=largest, delay_s=delay_s),
        "bounded": tf_serving(gears, delay_s=delay_s, max_queued=2 * largest),
        "pad": triton(gears, max_rows=largest),
        "full": Classic(gears=gears, max_rows=largest, fill=Fill.LARGEST_FULL),
    }
    return {name: policy for name, policy in all_of_them.items() if name in names}


def _times_of(curve: str) -> Mapping[int, float]:
    if curve in TABLES:
        return TABLES[curve]
    try:
        found = json.loads(Path(curve).read_text(encoding="utf-8"))
        kept = found.get("gears")
        times = {int(gear): _seconds(value) for gear, value in (kept or found).items()}
    except OSError as error:
        names = ", ".join(TABLES)
        raise CannotSimulate(
            f"{curve} is no table and no file ({error.strerror}); the tables are {names}"
        ) from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CannotSimulate(
            f'{curve} is no curve; allowed is JSON like {{"1": 0.99, "4": 2.2}}, milliseconds by gear, or a kept curve'
        ) from error
    if not times or min(times) < 1 or not all(0 < time_s < math.inf for time_s in times.values()):
        raise CannotSimulate(f"{curve} holds {found}; allowed are gears from 1 and times above 0")
    return dict(sorted(times.items()))


def _seconds(value: float | Mapping[str, float]) -> float:
    """Read milliseconds, or a gear of a kept curve."""
    return float(value["p50_s"]) if isinstance(value, dict) else float(value) / 1000  # type: ignore[arg-type]  # a float


def _trace_of(path: Path) -> Sequence[Arrival]:
    try:
        return read_trace(path)
    except OSError as error:
        raise CannotSimulate(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise CannotSimulate(f"{path}: {error}") from error


def _rate_of(trace: Sequence[Arrival]) -> float:
    """Tell the mean rate; a single moment counts as a second."""
    return sum(arrival.rows for arrival in trace) / (trace[-1].time_s or 1.0)


def _bursts_of(values: Sequence[float] | None) -> Bursts | None:
    try:
        return Bursts(peak=values[0], length_s=values[1]) if values else None
    except ValueError as error:
        raise CannotSimulate(str(error)) from error


def _highest(keeps_up: Callable[[float], bool], most: float) -> float:
    low, high = 0.0, most
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps_up(middle) else (low, middle)
    return low
