"""Turns many small requests into few large engine calls.

    submit() -> bounded queue -> next_batch() -> engine -> each caller's own rows

There is no delay: a batch is whatever arrived while the engine was busy. All state belongs to the event loop; it
changes in synchronous functions only, so there is no lock.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import numpy as np

from service.batching.plan import next_batch
from service.engines import BatchAnswer, NotBegun
from service.errors import EngineFault, InvalidInput, Overloaded, ServiceError, Stopping
from service.logs import fields
from service.metrics import Metrics
from service.tensors import Logits, Rows

_log = logging.getLogger("cardinal.queue")

_PACE_MEMORY = 0.8  # weight of the past in the moving mean of device time per row


class BatchEngine(Protocol):
    """What the queue needs of an engine."""

    async def ready(self) -> None:
        """Wait until batches can be run."""

    async def run(self, batch: Sequence[Rows], gear: int) -> BatchAnswer:
        """Run one batch, or raise EngineFault, or NotBegun where it was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """The limits of one model's queue."""

    row_shape: tuple[int, int, int]
    gears: Sequence[int] | None  # batch sizes of the artifact; None where any runs
    max_batch_rows: int
    max_queued_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAnswer:
    """The logits of one request, and where its time went."""

    logits: Logits
    queue_s: float
    engine_s: float


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request in the queue; it may be served by several batches."""

    rows: Rows
    outcome: asyncio.Future[QueueAnswer]
    arrived: float = field(default_factory=time.monotonic)
    queue_s: float = 0.0
    engine_s: float = 0.0
    taken: int = 0  # rows handed to batches so far
    answers: list[Logits] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def take(self, rows: int) -> Rows:
        if self.taken == 0:
            self.queue_s = time.monotonic() - self.arrived
        part = self.rows[self.taken : self.taken + rows]
        self.taken += rows
        return part

    def fulfil(self, logits: Logits, engine_s: float) -> None:
        self.answers.append(logits)
        self.engine_s += engine_s
        if sum(map(len, self.answers)) == len(self.rows) and not self.outcome.done():
            whole = np.concatenate(self.answers)
            self.outcome.set_result(QueueAnswer(logits=whole, queue_s=self.queue_s, engine_s=self.engine_s))

    def fail(self, error: ServiceError) -> None:
        if not self.outcome.done():  # else its caller has gone, which must not disturb the neighbours
            self.outcome.set_exception(error)


class BatchQueue:
    """The queue before one engine. `run` serves it; `submit` may be called by any number of tasks."""

    def __init__(
        self, engine: BatchEngine, policy: QueuePolicy, metrics: Metrics, labels: tuple[str, str]
    ) -> None:
        self._engine, self._policy, self._metrics, self._labels = engine, policy, metrics, labels
        self._tickets: deque[_Ticket] = deque()
        self._running: list[_Ticket] = []
        self._work = anyio.Event()
        self._is_closed = False
        self._waiting_for_engine = anyio.CancelScope()
        self._row_s = 0.0  # device time per row, a moving mean

    @property
    def waiting_rows(self) -> int:
        """Rows of callers that no batch has taken yet."""
        return sum(ticket.waiting for ticket in self._tickets)

    def check_room(self, rows: int) -> None:
        """Raise what submit() of so many rows would raise now: worth knowing before they are decoded."""
        if self._is_closed:
            raise Stopping("the model is being stopped; it takes no more requests")
        limit, waiting = self._policy.max_queued_rows, self.waiting_rows
        if rows > limit:
            raise InvalidInput(f"the request has {rows} images; allowed are {limit}")
        if waiting + rows > limit:
            wait_s = max(0.1, self._row_s * waiting)
            raise Overloaded(
                f"{waiting} images are waiting and {rows} more would exceed {limit}", retry_after_s=wait_s
            )

    async def submit(self, rows: Rows) -> QueueAnswer:
        """Wait for the logits of `rows`, in their order. A caller that is cancelled leaves the queue.

        Raises:
            Overloaded: the queue is full.
            EngineFault: the engine failed at a batch with these rows.
            Stopping: the queue was closed before.
        """
        if rows.shape[1:] != self._policy.row_shape or rows.dtype != np.uint8 or not len(rows):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, not uint8 (n, *{self._policy.row_shape})")
        self.check_room(len(rows))
        ticket = _Ticket(rows, asyncio.get_running_loop().create_future())
        self._tickets.append(ticket)
        self._work.set()
        self._show()
        try:
            return await ticket.outcome
        finally:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._show()
            self._stop_waiting_for_nobody()

    def close(self) -> None:
        """Refuse new work; run() answers what is queued and returns."""
        self._is_closed = True
        self._work.set()
        self._stop_waiting_for_nobody()

    def cut_off(self) -> None:
        """Answer everybody with an error at once; batches that run are not waited for by anyone."""
        self.close()
        for ticket in (*self._running, *self._tickets):
            ticket.fail(Stopping("the server stopped before the answer was there"))

    async def run(self) -> None:
        """Serve until close(). A failing engine fails its batch, never this loop."""
        try:
            while self._tickets or not self._is_closed:
                await self._work.wait()
                self._work = anyio.Event()
                while self._tickets:
                    with anyio.CancelScope() as self._waiting_for_engine:
                        await self._engine.ready()
                    await self._run_batch()
        finally:  # however the loop ends, nobody is left waiting on it
            self.cut_off()

    async def _run_batch(self) -> None:
        self._drop_gone()
        if not self._tickets:
            return
        plan = next_batch(self.waiting_rows, self._policy.gears, self._policy.max_batch_rows)
        parts = self._take(plan.rows)
        self._running = [ticket for ticket, _ in parts]
        try:
            answer = await self._answer_of([rows for _, rows in parts], plan.gear)
            if len(answer.logits) != plan.rows:
                raise EngineFault(f"the engine answered {len(answer.logits)} rows for {plan.rows}")
        except EngineFault as error:
            self._fail(parts, str(error))
        except Exception:  # noqa: BLE001 - a fault of ours ends one batch, not the queue of a model
            _log.exception("unforeseen_error")
            self._fail(parts, "an unforeseen error while the batch ran; the log has it")
        else:
            self._settle(parts, answer)
            self._account(plan.rows, plan.gear, answer.engine_s)
        self._running = []

    async def _answer_of(self, batch: Sequence[Rows], gear: int) -> BatchAnswer:
        """Run a batch on the next process, where the one that was there had gone."""
        while True:
            try:
                return await self._engine.run(batch, gear)
            except NotBegun:
                await self._engine.ready()

    def _drop_gone(self) -> None:
        """Forget callers that have left but whose tasks have not run since."""
        self._tickets = deque(ticket for ticket in self._tickets if not ticket.outcome.done())
        self._show()

    def _stop_waiting_for_nobody(self) -> None:
        """End the wait for an engine when all have left and nobody can come: it might never be ready."""
        if self._is_closed and not self._tickets:
            self._waiting_for_engine.cancel()

    def _take(self, rows: int) -> list[tuple[_Ticket, Rows]]:
        parts = []
        while rows:
            ticket = self._tickets[0]
            part = ticket.take(min(rows, ticket.waiting))
            parts.append((ticket, part))
            rows -= len(part)
            if not ticket.waiting:
                self._tickets.popleft()
        self._show()
        return parts

    def _settle(self, parts: list[tuple[_Ticket, Rows]], answer: BatchAnswer) -> None:
        start = 0
        for ticket, rows in parts:
            ticket.fulfil(answer.logits[start : start + len(rows)], answer.engine_s)
            start += len(rows)

    def _fail(self, parts: list[tuple[_Ticket, Rows]], sentence: str) -> None:
        _log.error("batch_failed", extra=fields(model=self._labels[0], requests=len(parts), error=sentence))
        for ticket, _ in parts:
            ticket.fail(EngineFault(sentence))
            if ticket in self._tickets:  # the rest of a split request is worth nothing now
                self._tickets.remove(ticket)
        self._show()

    def _account(self, rows: int, gear: int, engine_s: float) -> None:
        self._metrics.batch_rows.labels(*self._labels).observe(rows)
        self._metrics.batch_padding_rows.labels(*self._labels).inc(gear - rows)
        row_s = engine_s / rows
        self._row_s = _PACE_MEMORY * self._row_s + (1 - _PACE_MEMORY) * row_s if self._row_s else row_s

    def _show(self) -> None:
        waiting = self.waiting_rows
        self._metrics.queue_rows.labels(*self._labels).set(waiting)
        self._metrics.queue_device_seconds.labels(*self._labels).set(waiting * self._row_s)
