"""A queue under a virtual clock: arrivals, a queue, how long batches take -> what becomes of the requests.

The queue is the server's own scheduler, or a classic one to compare it with. Decoding and the network are left out:
what is told of is the time from the queue to the end of the batch.
"""

import heapq
import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.batching.arrivals import Arrival
from service.batching.line import Ticket
from service.batching.plan import Hold
from service.batching.scheduler import Batch, Bounds, Scheduler, Tunings
from service.engines.curve import Curve, GearTime

_A_MOMENT_S = 1e-9  # a sum of floats is late by less
_MEDIAN, _P99 = 0.674490, 2.575829  # of a half-normal distribution, in terms of its scale


class Queue(Protocol):
    """What can be simulated."""

    expired: list[Ticket]  # those that it gave up; the simulator empties it

    def offer(self, ticket: Ticket, now: float) -> bool:
        """Let a ticket wait, or refuse it."""

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a ticket whose caller has left."""

    def next_batch(self, now: float) -> Batch | Hold | None:
        """Decide what an idle device runs now."""

    def finished(self, batch: Batch) -> None:
        """Free the device of a batch."""


class Scheduled:
    """The server's own scheduler, as the simulator drives it."""

    def __init__(self, curves: Sequence[Curve], tunings: Tunings, bounds: Bounds | None = None) -> None:
        """Have a device for each curve."""
        bounds = bounds or Bounds(max_rows=1_000_000, max_device_s=math.inf)
        self._scheduler = Scheduler(bounds, devices=len(curves), now=0.0)
        self._tunings = tunings
        self.expired = self._scheduler.expired
        self.withdraw = self._scheduler.withdraw
        self.finished = self._scheduler.finished
        for device, curve in zip(self._scheduler.devices, curves, strict=True):
            device.curve = curve
        for device in self._scheduler.devices:
            demanded = self._scheduler.demanded(device, 0.0)
            self._scheduler.use(demanded, tunings.tuned(demanded))

    def offer(self, ticket: Ticket, now: float) -> bool:
        """Let a ticket wait, unless it would be late or there is no room."""
        self._scheduler.count(ticket, now)
        if self._scheduler.refusal(ticket, now):
            return False
        self._scheduler.admit(ticket)
        return True

    def next_batch(self, now: float) -> Batch | Hold | None:
        """Decide, by new tunings if the demand is a new one."""
        for demanded in self._scheduler.new_demands(now):
            self._scheduler.use(demanded, self._tunings.tuned(demanded))
        return self._scheduler.next_batch(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a pretended device takes: as the table says, and by a half-normal share longer."""

    times_s: Mapping[int, float]  # by gear
    jitter: float = 0.0  # scale of that share

    @property
    def curve(self) -> Curve:
        """What would be measured on such a device."""
        middle, slow = 1 + _MEDIAN * self.jitter, 1 + _P99 * self.jitter
        return Curve(
            {
                gear: GearTime(p50_s=time_s * middle, p99_s=time_s * slow)
                for gear, time_s in self.times_s.items()
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of all requests. Rates and rows count rows, everything else requests."""

    arrived: int
    refused: int
    expired: int  # admitted, and given up before they ran
    left: int
    late: int  # answered after their deadline
    latencies_s: Sequence[float]  # of all that were answered, ascending
    rows_in_time: int
    duration_s: float
    batches: Mapping[int, int]  # by gear
    padding_rows: int
    busy_s: float  # of all devices

    @property
    def answered(self) -> int:
        """Requests that got an answer, late or not."""
        return len(self.latencies_s)

    @property
    def mean_s(self) -> float:
        """Mean latency; infinity if nothing was answered."""
        return sum(self.latencies_s) / self.answered if self.answered else math.inf

    @property
    def goodput(self) -> float:
        """Rows answered in time, a second."""
        return self.rows_in_time / self.duration_s if self.duration_s else 0.0

    @property
    def late_share(self) -> float:
        """Of those that were admitted and stayed, the share that was late or given up."""
        stayed = self.answered + self.expired
        return (self.late + self.expired) / stayed if stayed else 0.0

    def quantile_s(self, share: float) -> float:
        """Tell within which time this share of the answers came."""
        return (
            self.latencies_s[min(self.answered - 1, int(share * self.answered))]
            if self.answered
            else math.inf
        )

    def share_within(self, time_s: float) -> float:
        """Tell which share of all that arrived and stayed was answered within a time; the refused were not."""
        wanted = self.arrived - self.left
        return bisect_right(self.latencies_s, time_s + _A_MOMENT_S) / wanted if wanted else 1.0


def simulate(arrivals: Iterable[Arrival], queue: Queue, pace: Pace, *, seed: int = 0) -> Outcome:
    """Let requests arrive at a queue until all are through; the seed is that of the jitter."""
    run = _Run(queue, pace, random.Random(seed))  # noqa: S311 - no secret
    for arrival in arrivals:
        run.arrive(arrival)
    return run.outcome()


@dataclass(slots=True)
class _Run:
    queue: Queue
    pace: Pace
    draw: random.Random
    now: float = 0.0
    held_until: float = math.inf
    events: list[tuple[float, int, Batch | Ticket]] = field(default_factory=list)  # a heap: ends, leaves
    unanswered: dict[Ticket, int] = field(default_factory=dict)  # rows of those that were admitted
    latencies_s: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    numbers: int = 0
    busy_s: float = 0.0

    def arrive(self, arrival: Arrival) -> None:
        self.pass_time(arrival.time_s)
        now = self.now = arrival.time_s
        ticket = Ticket(
            rows=arrival.rows,
            arrived=now,
            deadline=now + arrival.deadline_s,
            caller=arrival.caller,
            priority=arrival.priority,
        )
        self.counts["arrived"] += 1
        if not self.queue.offer(ticket, now):
            self.counts["refused"] += 1
            return
        self.unanswered[ticket] = arrival.rows
        if arrival.leaves_s < math.inf:
            self.remind(now + arrival.leaves_s, ticket)
        self.dispatch()

    def outcome(self) -> Outcome:
        self.pass_time(math.inf)
        assert not self.unanswered, f"{len(self.unanswered)} requests were forgotten"  # noqa: S101 - our own mistake
        counts = self.counts
        return Outcome(
            arrived=counts["arrived"],
            refused=counts["refused"],
            expired=counts["expired"],
            left=counts["left"],
            late=counts["late"],
            latencies_s=sorted(self.latencies_s),
            rows_in_time=counts["rows_in_time"],
            duration_s=self.now,
            batches=dict(sorted(self.batches.items())),
            padding_rows=counts["padding_rows"],
            busy_s=self.busy_s,
        )

    def pass_time(self, until: float) -> None:
        """Let everything happen that happens up to a moment."""
        while True:
            at = min(self.events[0][0] if self.events else math.inf, self.held_until)
            if at > until or at == math.inf:
                return
            self.now = at
            if self.events and self.events[0][0] <= at:
                self.happen(heapq.heappop(self.events)[2])
            self.dispatch()

    def happen(self, event: Batch | Ticket) -> None:
        if isinstance(event, Batch):
            self.queue.finished(event)
            for part in event.parts:
                self.answer(part.ticket, part.rows)
        elif self.unanswered.pop(event, None):
            self.queue.withdraw(event)
            self.counts["left"] += 1

    def answer(self, ticket: Ticket, rows: int) -> None:
        missing = self.unanswered.get(ticket)
        if missing is None:
            return  # its caller has left
        if missing > rows:
            self.unanswered[ticket] = missing - rows
            return
        del self.unanswered[ticket]
        self.latencies_s.append(self.now - ticket.arrived)
        if self.now > ticket.deadline + _A_MOMENT_S:
            self.counts["late"] += 1
        else:
            self.counts["rows_in_time"] += ticket.rows

    def dispatch(self) -> None:
        """Start whatever the queue wants to be started now."""
        self.held_until = math.inf
        while (decision := self.queue.next_batch(self.now)) is not None:
            if isinstance(decision, Hold):
                self.held_until = max(decision.until, self.now)
                break
            self.start(decision)
        for ticket in self.queue.expired:
            del self.unanswered[ticket]
        self.counts["expired"] += len(self.queue.expired)
        self.queue.expired.clear()

    def start(self, batch: Batch) -> None:
        slower = abs(self.draw.gauss(0, self.pace.jitter)) if self.pace.jitter else 0.0
        batch_s = self.pace.times_s[batch.gear] * (1 + slower)
        self.busy_s += batch_s
        self.batches[batch.gear] += 1
        self.counts["padding_rows"] += batch.gear - batch.rows
        self.remind(self.now + batch_s, batch)

    def remind(self, at: float, event: Batch | Ticket) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (at, self.numbers, event))
