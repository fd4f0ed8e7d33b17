"""The batching policies that others have, for comparison: a maximum and a delay, in their variants.

None of them reads the curve. Requests larger than a batch are split, which not all of them can.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.batching.line import Part, Ticket
from service.batching.plan import Hold, Reason
from service.batching.scheduler import Batch, Device


class Fill(StrEnum):
    """How a number of rows becomes a gear."""

    PAD_UP = "pad up"  # the smallest gear that holds them
    LARGEST_FULL = "largest full"  # the largest gear that they fill; if none, the smallest
    PAD_TO_LARGEST = "pad to the largest"


class Drop(StrEnum):
    """Which waiting requests are given up."""

    NOTHING = "nothing"
    EXPIRED = "expired"  # those whose deadline has passed
    LATE = "late"  # those that could not be in time if they ran now


@dataclass(frozen=True, slots=True, kw_only=True)
class Classic:
    """A fixed policy: wait until `max_rows` are there or the first of them has waited for `delay_s`, then run."""

    gears: Sequence[int]  # ascending
    max_rows: int
    fill: Fill = Fill.PAD_UP
    delay_s: float = 0.0
    preferred: Sequence[int] = ()  # sizes for which nobody waits longer, ascending
    max_queued: float = math.inf  # rows; a request that would be more is refused
    drop: Drop = Drop.NOTHING

    def __post_init__(self) -> None:
        if not self.gears or [*self.gears] != sorted({*self.gears}) or self.gears[0] < 1:
            raise ValueError(f"the gears are {[*self.gears]}; allowed are ascending numbers from 1")
        if not 1 <= self.max_rows <= self.gears[-1]:
            raise ValueError(
                f"max_rows is {self.max_rows}; allowed is 1 to {self.gears[-1]}, the largest gear"
            )

    def rows(self, waiting: int, *, has_waited: bool) -> int:
        """Tell how many of the waiting rows, at least 1, run now; 0 means to wait."""
        if waiting >= self.max_rows:
            return self.max_rows
        preferred = max((size for size in self.preferred if size <= waiting), default=0)
        return preferred or (waiting if has_waited or not self.delay_s else 0)

    def gear(self, rows: int) -> int:
        """Tell the gear for so many rows; it may be too small for all of them."""
        if self.fill is Fill.PAD_TO_LARGEST:
            return self.gears[-1]
        if self.fill is Fill.LARGEST_FULL:
            return max((gear for gear in self.gears if gear <= rows), default=self.gears[0])
        return min(gear for gear in self.gears if gear >= rows)


def triton(
    gears: Sequence[int], *, max_rows: int, delay_s: float = 0.0, preferred: Sequence[int] = ()
) -> Classic:
    """Make Triton's dynamic batcher, with a backend that pads to the next compiled size."""
    return Classic(gears=gears, max_rows=max_rows, delay_s=delay_s, preferred=preferred)


def tf_serving(allowed: Sequence[int], *, delay_s: float, max_queued: float) -> Classic:
    """Make the batching of TF Serving: `allowed_batch_sizes` to pad to, and a bounded queue."""
    return Classic(gears=allowed, max_rows=allowed[-1], delay_s=delay_s, max_queued=max_queued)


class ClassicQueue:
    """First come, first served, by a classic policy."""

    def __init__(self, policy: Classic, times_s: Mapping[int, float], *, devices: int = 1) -> None:
        self.expired: list[Ticket] = []
        self._policy = policy
        self._times_s = times_s
        self._idle = [Device(number) for number in range(devices)]
        self._tickets: deque[Ticket] = deque()
        self._rows = 0

    def offer(self, ticket: Ticket, now: float) -> bool:  # noqa: ARG002 - classic queues ask for no time
        """Let a ticket wait if there is room."""
        if self._rows + ticket.rows > self._policy.max_queued:
            return False
        self._tickets.append(ticket)
        self._rows += ticket.rows
        return True

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a ticket whose caller has left."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._rows -= ticket.waiting

    def next_batch(self, now: float) -> Batch | Hold | None:
        """Decide what an idle device runs now."""
        if not self._idle:
            return None
        self._drop(now)
        if not self._tickets:
            return None
        ready_at = self._tickets[0].arrived + self._policy.delay_s
        rows = self._policy.rows(self._rows, has_waited=now >= ready_at)
        if not rows:
            return Hold(ready_at)
        gear = self._policy.gear(rows)
        reason = Reason.FULL if gear <= rows else Reason.IDLE
        end = now + self._times_s[gear]
        return Batch(self._idle.pop(), gear, reason, self._take(min(rows, gear)), now, end, end)

    def finished(self, batch: Batch) -> None:
        """Free the device of a batch."""
        self._idle.append(batch.device)

    def _take(self, rows: int) -> list[Part]:
        parts: list[Part] = []
        self._rows -= rows
        while rows:
            ticket = self._tickets[0]
            parts.append(ticket.take(rows))
            rows -= parts[-1].rows
            if not ticket.waiting:
                self._tickets.popleft()
        return parts

    def _drop(self, now: float) -> None:
        if self._policy.drop is Drop.NOTHING:
            return
        while self._tickets and self._tickets[0].deadline < now + self._least_s():
            self._rows -= self._tickets[0].waiting
            self.expired.append(self._tickets.popleft())

    def _least_s(self) -> float:
        """Tell how long the first in the line would still take."""
        if self._policy.drop is Drop.EXPIRED:
            return 0.0
        rows = self._policy.rows(self._rows, has_waited=True)
        return self._times_s[self._policy.gear(rows)]
