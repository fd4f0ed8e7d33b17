"""Turns many small requests into few large engine calls.

    submit() -> Scheduler -> one task for each engine -> each caller's own rows

What is decided is decided by the scheduler, in synchronous functions on the event loop, so there is no lock. Here is
what takes time: callers that wait, engines that run, and the moments at which something is to be decided anew.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import numpy as np
from anyio.to_thread import run_sync

from service.batching.line import Part, Ticket
from service.batching.plan import Hold
from service.batching.scheduler import Batch, Bounds, Demanded, Device, Refusal, Scheduler, Tunings
from service.batching.tuning import Tuning
from service.batching.watch import CurveWatch
from service.engines import BatchAnswer, Curve, NotBegun
from service.errors import DeadlineExceeded, EngineFault, InvalidInput, Overloaded, ServiceError, Stopping
from service.logs import fields
from service.metrics import Metrics
from service.tensors import Logits, Rows

_log = logging.getLogger("cardinal.queue")

_SHORTEST_RETRY_S = 0.1
_PAUSE = 20  # times as long as a tuning took, before the next one
_LATE = "the request's deadline would have passed before its turn"


class BatchEngine(Protocol):
    """What the queue needs of an engine."""

    @property
    def curve(self) -> Curve:
        """How long its batches take, and so which gears it has; known once it is ready."""

    async def ready(self) -> None:
        """Wait until batches can be run."""

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float) -> BatchAnswer:
        """Run one batch, or raise EngineFault, or NotBegun if it could not take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """The rows that one model's queue takes, and its limits."""

    row_shape: tuple[int, int, int]
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgency:
    """Whose rows they are, and how soon they are wanted."""

    deadline: float = float("inf")  # on the clock of time.monotonic()
    caller: str = ""
    priority: int = 0  # the lower goes first


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAnswer:
    """The logits of one request, and where its time went."""

    logits: Logits
    engines: Sequence[str]  # for each row, what ran it
    queue_s: float
    engine_s: float


@dataclass(slots=True, eq=False, kw_only=True)
class _Request(Ticket):
    """A ticket with its rows, and its caller who waits."""

    images: Rows
    outcome: asyncio.Future[QueueAnswer]
    queue_s: float = 0.0
    engine_s: float = 0.0
    answers: dict[int, Logits] = field(default_factory=dict)  # by the number of their first row
    engines: dict[int, str] = field(default_factory=dict)

    def rows_of(self, part: Part) -> Rows:
        return self.images[part.span.start : part.span.stop]

    def begin(self, now: float) -> None:
        if not self.queue_s:
            self.queue_s = now - self.arrived

    def fulfil(self, part: Part, logits: Logits, answer: BatchAnswer) -> None:
        self.answers[part.span.start], self.engines[part.span.start] = logits, answer.engine
        self.engine_s += answer.engine_s
        if sum(map(len, self.answers.values())) == self.rows and not self.outcome.done():
            self.outcome.set_result(self._whole())

    def _whole(self) -> QueueAnswer:
        starts = sorted(self.answers)
        return QueueAnswer(
            logits=np.concatenate([self.answers[start] for start in starts]),
            engines=[self.engines[start] for start in starts for _ in self.answers[start]],
            queue_s=self.queue_s,
            engine_s=self.engine_s,
        )

    def fail(self, error: ServiceError) -> None:
        if not self.outcome.done():  # else its caller has gone, which must not disturb the neighbours
            self.outcome.set_exception(error)


class _Lane:
    """One engine, the scheduler's picture of it, and the batch that it is to run next."""

    def __init__(self, engine: BatchEngine, device: Device) -> None:
        self.engine, self.device = engine, device
        self.watch: CurveWatch | None = None
        self._next: Batch | None = None
        self._is_given = anyio.Event()
        device.is_there = False

    def give(self, batch: Batch) -> None:
        """Hand over the next batch; the one before has ended."""
        self._next = batch
        self._is_given.set()

    async def given(self) -> Batch:
        """Wait for the next batch."""
        while self._next is None:
            await self._is_given.wait()
        batch, self._next, self._is_given = self._next, None, anyio.Event()
        return batch


class BatchQueue:
    """The queue before the engines of one model. `run` serves it; `submit` may be called by any number of tasks."""

    def __init__(
        self,
        engines: Sequence[BatchEngine],
        policy: QueuePolicy,
        metrics: Metrics,
        labels: tuple[str, str],
    ) -> None:
        self._policy, self._metrics, self._labels = policy, metrics, labels
        self._scheduler = Scheduler(policy.bounds, devices=len(engines), now=time.monotonic())
        devices = self._scheduler.devices
        self._lanes = [_Lane(engine, device) for engine, device in zip(engines, devices, strict=True)]
        self._unsettled: set[_Request] = set()
        self._is_closed = False
        self._has_ended = anyio.Event()
        self._hold: asyncio.TimerHandle | None = None
        self._tunings = Tunings()
        self._demands: list[Demanded] = []
        self._demands_changed = anyio.Event()

    @property
    def waiting_rows(self) -> int:
        """Rows of callers that no batch has taken yet."""
        return self._scheduler.line.rows

    @property
    def devices(self) -> Sequence[Device]:
        """What is known of each engine, in their order: its curve, and what it is tuned to."""
        return self._scheduler.devices

    @property
    def tunings(self) -> list[Tuning]:
        """What the engines that can take a batch are run by."""
        return [device.tuning for device in self.devices if device.is_there and device.tuning is not None]

    def check_room(self, rows: int, urgency: Urgency) -> None:
        """Raise what submit() of so many rows would raise now: worth knowing before they are decoded."""
        now = time.monotonic()
        ticket = Ticket(
            rows=rows,
            arrived=now,
            deadline=urgency.deadline,
            caller=urgency.caller,
            priority=urgency.priority,
        )
        self._check(ticket, now)

    async def submit(self, rows: Rows, urgency: Urgency) -> QueueAnswer:
        """Wait for the logits of `rows`, in their order. A caller that is cancelled leaves the queue.

        Raises:
            Overloaded: the queue is full, or the answer would come too late.
            DeadlineExceeded: the answer would come too late after all.
            EngineFault: the engine failed at a batch with these rows.
            Stopping: the queue was closed before.
        """
        if rows.shape[1:] != self._policy.row_shape or rows.dtype != np.uint8 or not len(rows):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, not uint8 (n, *{self._policy.row_shape})")
        now = time.monotonic()
        request = _Request(
            rows=len(rows),
            arrived=now,
            deadline=urgency.deadline,
            caller=urgency.caller,
            priority=urgency.priority,
            images=rows,
            outcome=asyncio.get_running_loop().create_future(),
        )
        self._check(request, now)
        self._scheduler.count(request, now)
        self._scheduler.admit(request)
        self._judged("admitted")
        self._unsettled.add(request)
        self._dispatch()
        try:
            return await request.outcome
        finally:
            self._unsettled.discard(request)
            self._scheduler.withdraw(request)
            self._show()
            self._end_if_done()

    def close(self) -> None:
        """Refuse new work; run() answers what is queued and returns."""
        self._is_closed = True
        self._end_if_done()

    def cut_off(self) -> None:
        """Answer everybody with an error at once; batches that run are not waited for by anyone."""
        self._is_closed = True
        for request in tuple(self._unsettled):
            self._scheduler.withdraw(request)
            request.fail(Stopping("the server stopped before the answer was there"))
        self._show()
        self._end_if_done()

    async def run(self) -> None:
        """Serve until close(). A failing engine fails its batch, never this loop."""
        self._end_if_done()
        try:
            async with anyio.create_task_group() as tasks:
                for lane in self._lanes:
                    tasks.start_soon(self._serve, lane)
                tasks.start_soon(self._tune)
                await self._has_ended.wait()
                tasks.cancel_scope.cancel()
        finally:  # however the loop ends, nobody is left waiting on it
            self._stop_holding()
            self.cut_off()

    def _check(self, ticket: Ticket, now: float) -> None:
        """Raise why a ticket is not admitted; one that is knows then when it will probably be through."""
        if self._is_closed:
            raise Stopping("the model is being stopped; it takes no more requests")
        limit = self._policy.bounds.max_rows
        if ticket.rows > limit:
            raise InvalidInput(f"the request has {ticket.rows} images; allowed are {limit}")
        refusal = self._scheduler.refusal(ticket, now)
        if refusal is not None:
            self._scheduler.count(ticket, now)
            self._consider_tuning(now)
            self._judged("full" if refusal.is_full else "late")
            raise self._overloaded(refusal, ticket, now)

    async def _serve(self, lane: _Lane) -> None:
        """Run the batches of one engine, one after the other."""
        while True:
            await lane.engine.ready()
            await self._tune_to(lane)
            lane.device.is_there = True
            self._dispatch()
            while lane.device.is_there:
                lane.device.is_there = await self._run_batch(lane, await lane.given())
                self._dispatch()
                self._end_if_done()

    async def _tune_to(self, lane: _Lane) -> None:
        """Believe the curve that an engine brings, unless it is that of its former life, corrected since."""
        if lane.watch is not None and lane.watch.measured == lane.engine.curve:
            return
        lane.watch = CurveWatch(lane.engine.curve)
        lane.device.curve = lane.engine.curve
        demanded = self._scheduler.demanded(lane.device, time.monotonic())
        self._scheduler.use(demanded, await run_sync(self._tunings.tuned, demanded))

    async def _run_batch(self, lane: _Lane, batch: Batch) -> bool:
        """Run a batch and answer its callers; tell whether the engine took it at all."""
        parts = [(part.ticket, part) for part in batch.parts if isinstance(part.ticket, _Request)]
        began = time.monotonic()
        try:
            rows = [request.rows_of(part) for request, part in parts]
            answer = await lane.engine.run(rows, batch.gear, batch.usually_until - batch.began)
            if len(answer.logits) != batch.rows:
                raise EngineFault(f"the engine answered {len(answer.logits)} rows for {batch.rows}")
        except NotBegun:
            self._scheduler.put_back(batch)
            return False
        except EngineFault as error:
            self._fail(batch, parts, str(error))
        except Exception:  # noqa: BLE001 - a fault of ours ends one batch, not the queue of a model
            _log.exception("unforeseen_error")
            self._fail(batch, parts, "an unforeseen error while the batch ran; the log has it")
        else:
            self._scheduler.finished(batch)
            self._settle(parts, answer, began)
            self._account(batch)
            self._learn(lane, batch.gear, time.monotonic() - began)
        return True

    def _learn(self, lane: _Lane, gear: int, took_s: float) -> None:
        corrected = lane.watch.corrected(gear, took_s) if lane.watch else None
        if corrected is not None:
            lane.device.curve = corrected
            times = corrected.times[gear]
            values = {"gear": gear, "p50_s": round(times.p50_s, 6), "p99_s": round(times.p99_s, 6)}
            _log.info(
                "curve_corrected", extra=fields(model=self._labels[0], version=self._labels[1], **values)
            )

    def _dispatch(self) -> None:
        """Hand out batches as long as an engine is idle and there is something for it to do."""
        self._stop_holding()
        if any(lane.device.is_idle for lane in self._lanes):
            self._drop_gone()
        now = time.monotonic()
        self._consider_tuning(now)
        while isinstance(decision := self._scheduler.next_batch(now), Batch):
            self._lanes[decision.device.number].give(decision)
        if isinstance(decision, Hold):
            loop = asyncio.get_running_loop()
            self._hold = loop.call_later(max(0.0, decision.until - now), self._dispatch)
        while self._scheduler.expired:
            self._expire(self._scheduler.expired.pop())
        self._show()

    def _drop_gone(self) -> None:
        """Forget callers that have left but whose tasks have not run since."""
        for request in self._unsettled:
            if request.outcome.done():
                self._scheduler.withdraw(request)

    def _stop_holding(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _settle(self, parts: Sequence[tuple[_Request, Part]], answer: BatchAnswer, began: float) -> None:
        start = 0
        for request, part in parts:
            request.begin(began)
            request.fulfil(part, answer.logits[start : start + part.rows], answer)
            start += part.rows

    def _fail(self, batch: Batch, parts: Sequence[tuple[_Request, Part]], sentence: str) -> None:
        _log.error("batch_failed", extra=fields(model=self._labels[0], requests=len(parts), error=sentence))
        self._scheduler.finished(batch)
        for request, _ in parts:
            request.fail(EngineFault(sentence))
            self._scheduler.withdraw(request)  # the rest of a split request is worth nothing now

    def _expire(self, ticket: Ticket) -> None:
        if isinstance(ticket, _Request):
            ticket.fail(DeadlineExceeded(_LATE))
            self._judged("expired")

    def _overloaded(self, refusal: Refusal, ticket: Ticket, now: float) -> ServiceError:
        retry_after_s = max(_SHORTEST_RETRY_S, refusal.retry_after_s)
        if refusal.is_full:
            bounds = self._policy.bounds
            sentence = (
                f"{refusal.waiting} images are waiting; with {ticket.rows} more they would be above "
                f"{bounds.max_rows}, or take longer than {bounds.max_device_s:g} s"
            )
        else:
            left_s = max(0.0, ticket.deadline - now)
            sentence = (
                f"the answer would take {refusal.predicted_s:.3f} s; the request has {left_s:.3f} s left"
            )
        return Overloaded(sentence, retry_after_s=retry_after_s)

    def _consider_tuning(self, now: float) -> None:
        unknown = []
        for demanded in self._scheduler.new_demands(now):
            known = self._tunings.known(demanded)
            if known:
                self._scheduler.use(demanded, known)
            else:
                unknown.append(demanded)
        if unknown:
            self._demands = unknown
            self._demands_changed.set()

    async def _tune(self) -> None:
        """Keep the plans in tune with the arrivals, in a thread: it takes tens of milliseconds.

        It keeps the loop from running at times, as all threads do, and must not take more than its share.
        """
        while True:
            await self._demands_changed.wait()
            self._demands_changed = anyio.Event()
            began = time.monotonic()
            for demanded in self._demands:
                self._scheduler.use(demanded, await run_sync(self._tunings.tuned, demanded))
            await anyio.sleep(_PAUSE * (time.monotonic() - began))

    def _end_if_done(self) -> None:
        """End run() when it is closed and nobody waits: an engine that is not ready might never be."""
        is_running = any(lane.device.batch is not None for lane in self._lanes)
        if self._is_closed and not self._unsettled and not is_running:
            self._has_ended.set()

    def _account(self, batch: Batch) -> None:
        self._metrics.batch_rows.labels(*self._labels).observe(batch.rows)
        self._metrics.batch_padding_rows.labels(*self._labels).inc(batch.gear - batch.rows)
        self._metrics.batches.labels(*self._labels, str(batch.gear), batch.reason.value).inc()
        now = time.monotonic()
        for part in batch.parts:
            if not part.ticket.waiting and part.ticket.predicted:
                error_s = abs(now - part.ticket.predicted)
                self._metrics.prediction_error_seconds.labels(*self._labels).observe(error_s)

    def _judged(self, verdict: str) -> None:
        self._metrics.admissions.labels(*self._labels, verdict).inc()

    def _show(self) -> None:
        self._metrics.queue_rows.labels(*self._labels).set(self.waiting_rows)
        self._metrics.queue_device_seconds.labels(*self._labels).set(self._scheduler.device_s)
