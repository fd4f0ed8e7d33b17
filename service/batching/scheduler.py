"""Keeps the line and the devices of one model, and decides; it neither waits nor reads a clock.

offer() -> refusal or the line -> next_batch() -> what a device runs next -> finished()

The live queue and the simulator drive the same object: one with the loop's clock, the other with a virtual one.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.batching.line import Line, Part, Ticket
from service.batching.modes import tune
from service.batching.plan import Hold, Reason, plan
from service.batching.rate import Demand
from service.batching.tuning import ROUNDING_S, Tuning
from service.engines.curve import Curve

_RETUNE_EVERY_S = 0.1
_RATE_STEP = 1.12  # smaller changes alter no plan worth mentioning
_DEADLINE_STEP = 1.03
_DIGITS = 9  # of a deadline in seconds: sums of floats are as exact
_SLOWEST_RATE, _FASTEST_RATE = 0.1, 1e6
_SOONEST_S = 1e-4
_LATEST_ROWS = 400  # whoever waits for so many rows, one by one, waits for all that a tuning knows of
_MOST_TUNINGS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may wait at most."""

    max_rows: int
    max_device_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not let into the line, and when it is worth to come again."""

    is_full: bool  # else it would be too late
    waiting: int
    predicted_s: float  # until it would be answered
    retry_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demanded:
    """What a tuning is made for. Rates and deadlines come in steps, so that small changes are none."""

    curve: Curve
    rate: float
    deadline_s: float

    def tuned(self) -> Tuning:
        """Make the tuning; this takes some tens of milliseconds."""
        return tune(self.curve, self.rate, self.deadline_s)


class Tunings:
    """Keeps what was tuned, so that equal demands are tuned once. May be used by a thread and the event loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Tuning] = {}

    def known(self, demanded: Demanded) -> Tuning | None:
        """Find a tuning that was made before."""
        return self._kept.get(_key(demanded))

    def tuned(self, demanded: Demanded) -> Tuning:
        """Make the tuning, or find it."""
        tuning = self.known(demanded)
        if tuning is None:
            tuning = self._kept[_key(demanded)] = demanded.tuned()
            if len(self._kept) > _MOST_TUNINGS:
                del self._kept[next(iter(self._kept))]
        return tuning


def _key(demanded: Demanded) -> tuple[object, ...]:
    return (*demanded.curve.times.items(), demanded.rate, demanded.deadline_s)


@dataclass(slots=True, eq=False)
class Device:
    """One engine that runs a batch at a time. It gets batches once it is there and its curve has been tuned to."""

    number: int
    curve: Curve | None = None
    is_there: bool = True
    demanded: Demanded | None = None
    tuning: Tuning | None = None
    batch: "Batch | None" = None

    @property
    def is_idle(self) -> bool:
        """Tell whether it could begin a batch."""
        return self.batch is None and self.is_there and self.tuning is not None

    def free_s(self, now: float) -> float:
        """Tell in how long it is free, if its batch is a slow one."""
        return max(0.0, self.batch.slowly_until - now) if self.batch else 0.0


@dataclass(slots=True, eq=False)
class Batch:
    """Rows that one device runs together."""

    device: Device
    gear: int
    reason: Reason
    parts: Sequence[Part]
    began: float
    usually_until: float
    slowly_until: float
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sum(part.rows for part in self.parts)


class Scheduler:
    """The synchronous heart of a model's queue. Every method that needs it is told the time, in seconds."""

    def __init__(self, bounds: Bounds, *, devices: int, now: float) -> None:
        self.line = Line()
        self.devices = [Device(number) for number in range(devices)]
        self.expired: list[
            Ticket
        ] = []  # taken out of the line because they would be late; the owner empties it
        self._bounds = bounds
        self._demand = Demand(now)
        self._held_since: float | None = None
        self._is_joined = False  # all who wait are promised one batch
        self._looked_at = now

    def refusal(self, ticket: Ticket, now: float) -> Refusal | None:
        """Tell why a ticket would be refused now, or None if it would be admitted."""
        rows, tuned = self.line.rows, self._tuned()
        if not tuned:  # nothing is known yet of how long anything takes
            is_full = rows + ticket.rows > self._bounds.max_rows
            return (
                Refusal(is_full=True, waiting=rows, predicted_s=0.0, retry_after_s=0.0) if is_full else None
            )
        predicted_s = self._predicted_s(tuned, ticket, now)
        ticket.predicted = now + predicted_s
        late_s = self._lateness_s(tuned, ticket, now)
        over_s = self._surplus_s(tuned, ticket, now)
        if over_s <= 0 and late_s <= ROUNDING_S:
            return None
        return Refusal(
            is_full=over_s > 0, waiting=rows, predicted_s=predicted_s, retry_after_s=max(over_s, late_s)
        )

    def count(self, ticket: Ticket, now: float) -> None:
        """Let an arrival count for the tuning, whether it is admitted or not."""
        if self._demand.is_unknown:
            self._looked_at = float(
                "-inf"
            )  # tuned for nobody, the gears may be too slow for whoever comes first
        self._demand.arrived(ticket.rows, ticket.deadline - now, now)

    def admit(self, ticket: Ticket) -> None:
        """Let a ticket wait."""
        self._is_joined = ticket.is_joining or (self._is_joined and self.line.rows > 0)
        self.line.add(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Take out a ticket whose caller has left; what of it runs is finished for nobody."""
        ticket.has_left = True
        if ticket in self.line:
            self.line.remove(ticket)

    def next_batch(self, now: float) -> Batch | Hold | None:
        """Decide what an idle device runs now; None if nothing is to be done before something changes."""
        while self.line.rows and (device := self._quickest_idle(now)) is not None:
            tuning = device.tuning
            assert tuning is not None  # noqa: S101 - it is idle
            decision = plan(tuning, self.line, now, has_held=self._has_held(tuning, now))
            if isinstance(decision, Hold):
                return self._hold(decision, tuning, now)
            time = tuning.curve.times[decision.gear]
            if self._expire(now + time.p50_s):
                continue
            self._held_since = None
            self._is_joined = False
            parts = self.line.take(decision.gear)
            device.batch = Batch(
                device, decision.gear, decision.reason, parts, now, now + time.p50_s, now + time.p99_s
            )
            return device.batch
        if not self.line.rows:
            self._held_since = None
        return None

    def finished(self, batch: Batch) -> None:
        """Free the device of a batch that has ended, well or not."""
        batch.device.batch = None

    def put_back(self, batch: Batch) -> None:
        """Let the rows of a batch that never began wait again, but not those of callers that have left."""
        self.finished(batch)
        for part in reversed(batch.parts):
            if part.ticket in self.line:
                self.line.remove(part.ticket)
            part.ticket.take_back(part)
            if not part.ticket.has_left:
                self.line.add(part.ticket)

    @property
    def device_s(self) -> float:
        """Tell how much device time the waiting rows will take."""
        tuned = self._tuned()
        return self.line.rows * tuned[0].row_s if tuned else 0.0

    def new_demands(self, now: float) -> list[Demanded]:
        """Tell what to tune for if the arrivals are no more those that the present tunings were made for."""
        if now < self._looked_at + _RETUNE_EVERY_S:
            return []
        self._looked_at = now
        demands = [self.demanded(device, now) for device in self.devices if device.tuning is not None]
        old = [device.demanded for device in self.devices]
        return [
            demanded for number, demanded in enumerate(demands) if demanded not in (*old, *demands[:number])
        ]

    def demanded(self, device: Device, now: float) -> Demanded:
        """Tell what a device with a curve is to be tuned for."""
        assert device.curve is not None  # noqa: S101 - our own mistake
        powers = [each.curve.most_rows_a_s for each in self.devices if each.curve and each.is_there]
        share = device.curve.most_rows_a_s / (sum(powers) or device.curve.most_rows_a_s)
        rate = min(_FASTEST_RATE, max(_SLOWEST_RATE, self._demand.rate(now) * share))
        latest_s = _LATEST_ROWS * max(time.p50_s / gear for gear, time in device.curve.times.items())
        deadline_s = min(latest_s, max(_SOONEST_S, self._demand.deadline_s()))
        old = device.demanded
        return Demanded(
            curve=device.curve,
            rate=_stepped(rate, _RATE_STEP, old.rate if old else None),
            deadline_s=round(deadline_s, _DIGITS)
            if self._demand.is_uniform
            else _stepped(deadline_s, _DEADLINE_STEP, old.deadline_s if old else None),
        )

    def use(self, demanded: Demanded, tuning: Tuning) -> None:
        """Have every device with this curve decide by this tuning from now on."""
        for device in self.devices:
            if device.curve == demanded.curve:
                device.demanded, device.tuning = demanded, tuning

    def _tuned(self) -> list[Tuning]:
        """The tunings of the devices that are there, the most efficient first; if none is, of those that were."""
        tunings = [device.tuning for device in self.devices if device.tuning is not None and device.is_there]
        tunings = tunings or [device.tuning for device in self.devices if device.tuning is not None]
        return sorted(tunings, key=lambda tuning: tuning.row_s) if len(tunings) > 1 else tunings

    def _surplus_s(self, tuned: Sequence[Tuning], ticket: Ticket, now: float) -> float:
        """Tell for how long the line would be above its bounds with this ticket; 0 or less if it is not."""
        rows = self.line.rows + ticket.rows
        surplus = rows - self._bounds.max_rows
        by_rows_s = self._through_s(tuned, surplus, now) if surplus > 0 else 0.0
        by_time_s = rows * tuned[0].row_s - self._bounds.max_device_s
        return max(by_rows_s, by_time_s if self.line.rows else 0.0)

    def _predicted_s(self, tuned: Sequence[Tuning], ticket: Ticket, now: float) -> float:
        """Tell when a ticket would be through if it came now, as it will be run."""
        before = self.line.rows_before(ticket)
        if not before and any(device.is_idle for device in self.devices):
            gear = tuned[0].limits.gear(ticket.rows, may_hold=False)
            left = max(0, ticket.rows - gear)
            return tuned[0].curve.times[gear].p99_s + (tuned[0].promise_s(left) if left else 0.0)
        return self._through_s(tuned, before + ticket.rows, now)

    def _through_s(self, tuned: Sequence[Tuning], place: int, now: float) -> float:
        """Tell when the row at a place in the line will be through at the latest."""
        free_s = [device.free_s(now) for device in self.devices if device.is_there and device.tuning]
        if len(free_s) <= 1:
            return sum(free_s) + tuned[0].promise_s(place)
        slowest = tuned[-1]
        time = slowest.curve.times[slowest.main]
        batches = -(-place // slowest.main)
        rounds = max(0, batches // len(free_s) - 1)
        ends_s = sorted(each + rounds * time.p50_s for each in free_s)
        end_s = 0.0
        for _ in range(batches - rounds * len(ends_s)):
            end_s = ends_s[0] + time.p50_s
            heapq.heapreplace(ends_s, end_s)
        return end_s + time.spread_s

    def _lateness_s(self, tuned: Sequence[Tuning], ticket: Ticket, now: float) -> float:
        """Tell how late this ticket, or one that it passes, would be; 0 or less if it can be admitted."""
        late_s = max(ticket.predicted - ticket.deadline, self._lateness_behind(tuned, ticket, now))
        is_joined = self._is_joined and self.line.rows > 0
        ticket.is_joining = False
        if late_s <= ROUNDING_S and not is_joined:
            return late_s
        end = now + self._joined_s(tuned, ticket, now)
        urgent = self.line.most_urgent(self.line.rows, 1)[0] if self.line.rows else math.inf
        joined_late_s = end - min(urgent, ticket.deadline)
        if joined_late_s <= ROUNDING_S:
            ticket.is_joining, ticket.predicted = True, end
        elif is_joined:  # what comes behind has not been thought of
            return min(joined_late_s, self._through_s(tuned, self.line.rows + ticket.rows, now))
        return min(joined_late_s, late_s)

    def _joined_s(self, tuned: Sequence[Tuning], ticket: Ticket, now: float) -> float:
        """Tell when one batch with a ticket and all who wait would be through; infinity if there is none."""
        if len(tuned) > 1:
            return math.inf
        return max(device.free_s(now) for device in self.devices) + tuned[0].joined_s(
            self.line.rows + ticket.rows
        )

    def _lateness_behind(self, tuned: Sequence[Tuning], ticket: Ticket, now: float) -> float:
        """Tell how late the worst of those would be that a ticket would pass."""
        deadlines = self.line.deadlines_behind(ticket)
        if not deadlines:
            return -math.inf
        place = self.line.rows_before(ticket) + ticket.rows + 1
        latest = now + self._through_s(tuned, place + len(deadlines) - 1, now) - deadlines[0]
        if latest <= 0:
            return latest  # nobody can be late
        size = tuned[-1].main
        first = -(place - 1) % size or size  # where the next batch begins; its first row is its most urgent
        starts = (0, *range(first, len(deadlines), size))
        ends = (now + self._through_s(tuned, place + start, now) for start in starts)
        late_s: list[float] = [end - deadlines[start] for start, end in zip(starts, ends, strict=True)]
        return max(late_s)

    def _quickest_idle(self, now: float) -> Device | None:
        """Choose the idle device that is the quickest, unless a busy one would be through sooner."""
        idle = [device for device in self.devices if device.is_idle]
        if not idle:
            return None
        if len(self.devices) == 1:
            return idle[0]
        best = min(idle, key=_smallest_s)
        busy = (device for device in self.devices if device.is_there and device.batch and device.tuning)
        if any(device.free_s(now) + _smallest_s(device) < _smallest_s(best) for device in busy):
            return None
        return best

    def _expire(self, end: float) -> bool:
        """Take those out of the line that would be next and be late."""
        count = len(self.expired)
        while (head := self.line.head()) is not None and head.deadline < end - ROUNDING_S:
            self.withdraw(head)
            self.expired.append(head)
        return len(self.expired) > count

    def _has_held(self, tuning: Tuning, now: float) -> bool:
        return self._held_since is not None and now >= self._held_since + tuning.hold_s

    def _hold(self, decision: Hold, tuning: Tuning, now: float) -> Hold:
        if self._held_since is None:
            self._held_since = now
        return Hold(min(decision.until, self._held_since + tuning.hold_s))


def _smallest_s(device: Device) -> float:
    """Tell how long the smallest batch of a device takes."""
    assert device.tuning is not None  # noqa: S101 - our own mistake
    return device.tuning.curve.usual_s(device.tuning.curve.gears[0])


def _stepped(value: float, step: float, old: float | None) -> float:
    """Keep the old value while the new one is near it, else take the step below the new one."""
    if old is not None and old / step <= value <= old * step**2:
        return old
    return float(step ** math.floor(math.log(value, step)))
