"""Identical images are computed once, and nobody who shares suffers from what becomes of the others."""

import gc
import random
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import numpy as np
import pytest
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from gated import LABELS, GatedEngine, becomes_true, logits_of, queue_over, row_of
from patience import PATIENCE_S
from service.batching import BatchQueue, QueueAnswer, Urgency
from service.bell import Bell
from service.cache import AnswerCache
from service.deadline import Deadline
from service.decoding import Keep
from service.engines import BatchAnswer
from service.errors import DeadlineExceeded, EngineFault, InvalidImage, InvalidInput, Overloaded, ServiceError
from service.metrics import Metrics
from service.sharing import SharedAnswer, Sharing
from service.tensors import Rows

pytestmark = pytest.mark.anyio

BAD = 999


class GatedDecoder:
    """One thread's worth of decoding: images wait in line, and one that has begun ends whatever happens."""

    def __init__(self) -> None:
        self.begun: list[int] = []  # images, when their decoding began
        self.is_open = True
        self.turns: Iterator[int] = iter(())  # how many turns of the loop the next images take
        self._thread = anyio.CapacityLimiter(1)
        self._bell = Bell()

    def open(self) -> None:
        self.is_open = True
        self._bell.ring()

    async def decode(self, images: Sequence[bytes], keep: Keep) -> None:
        async def decode_one(place: int) -> None:
            number = int(images[place][-9:])
            async with self._thread:
                self.begun.append(number)
                with anyio.CancelScope(shield=True):
                    while not self.is_open:
                        await self._bell.wait()
                    for _ in range(next(self.turns, 0)):
                        await checkpoint()
            if number == BAD:
                keep(place, InvalidImage("it is bad"))
                tasks.cancel_scope.cancel()
            else:
                keep(place, row_of(number))

        async with anyio.create_task_group() as tasks:
            for place in range(len(images)):
                tasks.start_soon(decode_one, place)


@dataclass(eq=False)
class Caller:
    """A request, what it goes through, and what becomes of it."""

    images: Sequence[int]
    decoder: GatedDecoder
    queue: BatchQueue
    deadline: Deadline
    identity: bytes = b"cats 3"
    labels: tuple[str, str] = LABELS
    priority: int = 1
    refuses: list[ServiceError | None] = field(default_factory=list)  # in turn, for each look at the room
    submitted: list[int] = field(default_factory=list)  # rows of each ticket
    copied: list[bool] = field(default_factory=list)
    answer: SharedAnswer | None = None
    error: Exception | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    through: anyio.Event = field(default_factory=anyio.Event)

    @property
    def urgency(self) -> Urgency:
        return Urgency(deadline=self.deadline.at, caller=str(id(self)), priority=self.priority)

    def check_room(self, images: Sequence[bytes]) -> None:
        if self.refuses and (refusal := self.refuses.pop(0)) is not None:
            raise refusal
        self.queue.check_room(len(images), self.urgency)

    async def decode(self, images: Sequence[bytes], keep: Keep) -> None:
        await self.decoder.decode(images, keep)

    async def run(self, rows: Rows) -> QueueAnswer:
        self.submitted.append(len(rows))
        self.copied.append(rows.base is None)
        return await self.queue.submit(rows, self.urgency)

    async def ask(self, sharing: Sharing, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            with self.scope:
                self.answer = await sharing.answer([str(n).encode() for n in self.images], self)
        except ExceptionGroup as group:
            self.error = group.exceptions[0]
        except ServiceError as error:
            self.error = error
        finally:
            self.through.set()

    @property
    def has_its_own(self) -> bool:
        return self.answer is not None and self.answer.logits.tolist() == [logits_of(n) for n in self.images]

    @property
    def sources(self) -> list[str]:
        assert self.answer is not None
        return self.answer.sources

    @property
    def has_left(self) -> bool:
        return self.scope.cancelled_caught


class Stage:
    """Everything that a shared image goes through, and a group for callers."""

    def __init__(self, tasks: TaskGroup, cache_bytes: int, max_queued_rows: int) -> None:
        self.tasks, self.engine, self.decoder, self.metrics = tasks, GatedEngine(), GatedDecoder(), Metrics()
        self.queue = queue_over([self.engine], self.metrics, max_queued_rows=max_queued_rows)
        self.sharing = Sharing(AnswerCache(max_bytes=cache_bytes, metrics=self.metrics), self.metrics)

    def caller(self, *images: int, seconds: float = 60.0, identity: bytes = b"cats 3") -> Caller:
        deadline = Deadline.after(seconds, 3600.0)
        return Caller(images, self.decoder, self.queue, deadline, identity=identity)

    async def start(self, caller: Caller) -> Caller:
        await self.tasks.start(caller.ask, self.sharing)
        await settled()
        return caller

    async def call(self, *images: int, seconds: float = 60.0, identity: bytes = b"cats 3") -> Caller:
        return await self.start(self.caller(*images, seconds=seconds, identity=identity))

    async def busy(self) -> Caller:
        """Occupy the engine, so that what follows waits in the queue."""
        caller = await self.call(0)
        await self.engine.begun(1)
        return caller

    def metric(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        served = {"model": LABELS[0], "version": LABELS[1]}
        return self.metrics.registry.get_sample_value(name, served if labels is None else labels)

    @property
    def is_clean(self) -> bool:
        return len(self.sharing) == 0 and self.queue.waiting_rows == 0


@asynccontextmanager
async def staged(*, cache_bytes: int = 0, max_queued_rows: int = 64) -> AsyncIterator[Stage]:
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            stage = Stage(tasks, cache_bytes, max_queued_rows)
            tasks.start_soon(stage.queue.run)
            await becomes_true(lambda: bool(stage.queue.tunings))
            yield stage
            stage.decoder.open()
            stage.engine.let_through(100)
            stage.queue.close()
    assert stage.is_clean


async def settled() -> None:
    """Let all tasks run until they wait: nothing here needs more than a few turns of the loop, and none time."""
    for _ in range(30):
        await checkpoint()


async def all_through(*callers: Caller) -> None:
    for caller in callers:
        await caller.through.wait()


# What is shared


async def test_an_image_that_many_ask_for_at_once_is_computed_once() -> None:
    async with staged() as stage:
        callers = [await stage.call(7) for _ in range(5)]
        stage.engine.let_through()
        await all_through(*callers)
    assert all(caller.has_its_own for caller in callers)
    assert (stage.decoder.begun, stage.engine.batches) == ([7], [[7]])
    assert [caller.sources for caller in callers] == [["engine"]] + [["shared"]] * 4
    assert stage.metric("cardinal_coalesced_images_total") == 4


async def test_equal_images_of_one_request_are_computed_once() -> None:
    async with staged() as stage:
        caller = await stage.call(7, 8, 7, 7)
        stage.engine.let_through()
        await all_through(caller)
    assert caller.has_its_own
    assert stage.engine.batches == [[7, 8]]
    assert caller.sources == ["engine", "engine", "shared", "shared"]


async def test_a_request_computes_those_of_its_images_that_nobody_else_does() -> None:
    async with staged() as stage:
        first = await stage.call(1, 2)
        second = await stage.call(5, 2, 4, 1, 3)
        stage.engine.let_through(2)
        await all_through(first, second)
    assert first.has_its_own
    assert second.has_its_own
    assert stage.engine.batches == [[1, 2], [5, 4, 3]]
    assert second.sources == ["engine", "shared", "engine", "shared", "engine"]


async def test_requests_that_wait_for_images_of_each_other_are_both_answered() -> None:
    async with staged() as stage:
        await stage.busy()
        callers = [await stage.call(1, 2), await stage.call(2, 3), await stage.call(3, 1)]
        stage.engine.let_through(3)
        await all_through(*callers)
    assert all(caller.has_its_own for caller in callers)
    assert sorted(stage.engine.ran) == [0, 1, 2, 3]


async def test_what_would_be_answered_differently_is_not_shared() -> None:
    async with staged() as stage:
        callers = [await stage.call(7), await stage.call(7, identity=b"cats 4"), await stage.call(8)]
        stage.engine.let_through(3)
        await all_through(*callers)
    assert sorted(stage.engine.ran) == [7, 7, 8]
    assert all(caller.sources == ["engine"] for caller in callers)


async def test_nothing_is_remembered_by_default() -> None:
    async with staged() as stage:
        for _ in range(2):
            stage.engine.let_through()
            await all_through(await stage.call(7))
        assert stage.is_clean
    assert stage.engine.ran == [7, 7]
    assert not stage.metric("cardinal_cache_misses_total")


async def test_the_wait_for_what_another_computes_is_time_in_the_queue() -> None:
    async with staged() as stage:
        carrier, follower = await stage.call(7), await stage.call(7)
        stage.engine.let_through()
        await all_through(carrier, follower)
    assert carrier.answer is not None
    assert carrier.answer.engine_s == 0.001
    assert follower.answer is not None
    assert follower.answer.engine_s == 0
    assert follower.answer.queue_s > 0


class Watched(list[bytes]):
    """Images that note which threads go through them."""

    def __init__(self, images: Sequence[bytes]) -> None:
        super().__init__(images)
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[bytes]:
        self.threads.add(threading.get_ident())
        return super().__iter__()


@pytest.mark.parametrize(("size", "threads"), [(1000, 1), (1_000_000, 2)])
async def test_large_images_are_told_apart_off_the_event_loop(size: int, threads: int) -> None:
    async with staged() as stage:
        stage.engine.let_through()
        images = Watched([b"0" * size])
        await stage.sharing.answer(images, stage.caller())
    assert len(images.threads) == threads


# Those who leave


async def at_decoder(stage: Stage) -> None:
    """Have images wait for the decoder's thread."""
    stage.decoder.is_open = False
    await stage.call(50)


async def in_decoder(stage: Stage) -> None:
    """Have images wait while they are decoded."""
    stage.decoder.is_open = False


async def in_queue(stage: Stage) -> None:
    """Have images wait for the engine."""
    await stage.busy()


async def in_engine(stage: Stage) -> None:
    """Have images run until the engine is let through."""


Wait = Callable[[Stage], Awaitable[None]]
STAGES: list[Wait] = [at_decoder, in_decoder, in_queue, in_engine]
stages = pytest.mark.parametrize("wait", STAGES, ids=lambda wait: wait.__name__)


def go_on(stage: Stage) -> None:
    stage.decoder.open()
    stage.engine.let_through(10)


@stages
async def test_a_carrier_that_leaves_does_not_take_the_others_along(wait: Wait) -> None:
    async with staged() as stage:
        await wait(stage)
        carrier, others = await stage.call(7), [await stage.call(7) for _ in range(3)]
        carrier.scope.cancel()
        await settled()
        go_on(stage)
        await all_through(carrier, *others)
    assert carrier.has_left
    assert all(caller.has_its_own for caller in others)
    assert stage.decoder.begun.count(7) == 1  # whoever takes it up goes on where it was
    assert stage.engine.ran.count(7) == (2 if wait is in_engine else 1)
    assert sorted(caller.sources[0] for caller in others) == ["engine", "shared", "shared"]


@stages
async def test_one_who_waits_for_another_leaves_without_a_trace(wait: Wait) -> None:
    async with staged() as stage:
        await wait(stage)
        carrier, gone, stays = await stage.call(7), await stage.call(7), await stage.call(7)
        gone.scope.cancel()
        await all_through(gone)  # at once, before anything goes on
        go_on(stage)
        await all_through(carrier, stays)
    assert carrier.has_its_own
    assert stays.has_its_own
    assert (stage.decoder.begun.count(7), stage.engine.ran.count(7)) == (1, 1)


@stages
async def test_when_all_leave_the_image_is_left_alone(wait: Wait) -> None:
    async with staged() as stage:
        await wait(stage)
        callers = [await stage.call(7) for _ in range(3)]
        for caller in callers:
            caller.scope.cancel()
        go_on(stage)
        await all_through(*callers)
        later = await stage.call(8)
        await all_through(later)
    assert all(caller.has_left for caller in callers)
    assert later.has_its_own
    assert stage.decoder.begun.count(7) == (0 if wait is at_decoder else 1)
    assert stage.engine.ran.count(7) == (1 if wait is in_engine else 0)


@stages
async def test_one_after_the_other_may_leave(wait: Wait) -> None:
    async with staged() as stage:
        await wait(stage)
        callers = [await stage.call(7) for _ in range(4)]
        for caller in callers[:3]:
            caller.scope.cancel()
            await settled()
        go_on(stage)
        await all_through(*callers)
    assert callers[3].has_its_own


@stages
async def test_a_carrier_and_its_heir_may_leave_in_one_turn_of_the_loop(wait: Wait) -> None:
    async with staged() as stage:
        await wait(stage)
        carrier, heir, last = await stage.call(7), await stage.call(7), await stage.call(7)
        carrier.scope.cancel()
        heir.scope.cancel()
        go_on(stage)
        await all_through(carrier, heir, last)
    assert last.has_its_own


async def test_of_a_carrier_that_leaves_only_what_others_want_is_computed() -> None:
    async with staged() as stage:
        await stage.busy()
        carrier, other = await stage.call(1, 2, 3), await stage.call(2)
        carrier.scope.cancel()
        await settled()
        go_on(stage)
        await all_through(other)
    assert other.has_its_own
    assert stage.engine.batches == [[0], [2]]


# Those who are refused


async def test_others_take_up_what_a_refused_carrier_had_to_put_down() -> None:
    async with staged(max_queued_rows=4) as stage:
        await stage.busy()
        stage.decoder.is_open = False
        carrier, other = await stage.call(1, 2), await stage.call(2)
        stage.tasks.start_soon(stage.queue.submit, np.stack([row_of(9)] * 3), Urgency())
        await settled()
        stage.decoder.open()
        await all_through(carrier)
        stage.engine.let_through(10)
        await all_through(other)
    assert isinstance(carrier.error, Overloaded)
    assert other.has_its_own
    assert stage.decoder.begun.count(2) == 1
    assert stage.engine.ran.count(1) == 0


async def test_each_who_takes_an_image_up_has_to_be_let_in() -> None:
    async with staged() as stage:
        carrier = stage.caller(7)
        others = [stage.caller(7) for _ in range(3)]
        for caller in (carrier, *others[:2]):
            caller.refuses.append(Overloaded("no room"))
        stage.decoder.is_open = False
        blocking = await stage.call(7)
        for caller in (carrier, *others):
            await stage.start(caller)
        blocking.scope.cancel()
        go_on(stage)
        await all_through(carrier, *others)
    assert [str(caller.error) for caller in (carrier, *others[:2])] == ["no room"] * 3
    assert others[2].has_its_own
    assert stage.decoder.begun == [7]


async def test_one_who_waits_for_another_needs_no_room() -> None:
    async with staged() as stage:
        carrier, other = await stage.call(7), stage.caller(7)
        other.refuses.append(Overloaded("no room"))
        await stage.start(other)
        stage.engine.let_through()
        await all_through(carrier, other)
    assert other.has_its_own


async def test_an_unforeseen_error_is_that_of_its_carrier_alone() -> None:
    async with staged() as stage:
        stage.decoder.is_open = False
        carrier = stage.caller(7)
        carrier.queue = None  # which has no submit
        carrier.check_room = lambda _images: None
        await stage.start(carrier)
        other = await stage.call(7)
        go_on(stage)
        await all_through(carrier, other)
    assert isinstance(carrier.error, AttributeError)
    assert other.has_its_own


# Those who have less time


async def test_a_carrier_whose_time_is_over_does_not_take_the_others_along() -> None:
    async with staged() as stage:
        await stage.busy()
        carrier, other = await stage.call(7, seconds=0.05), await stage.call(7)
        await all_through(carrier)
        go_on(stage)
        await all_through(other)
    assert isinstance(carrier.error, DeadlineExceeded)
    assert str(carrier.error).endswith("the time ran out while it waited for the engine")
    assert other.has_its_own
    assert stage.engine.batches == [[0], [7]]


async def test_one_who_waits_for_another_has_its_own_deadline() -> None:
    async with staged() as stage:
        await stage.busy()
        carrier, other = await stage.call(7, seconds=0.052), await stage.call(7, seconds=0.05)
        await all_through(carrier, other)
        assert stage.queue.waiting_rows == 0
    assert isinstance(carrier.error, DeadlineExceeded)
    assert isinstance(other.error, DeadlineExceeded)


async def test_an_error_of_time_tells_what_was_being_done() -> None:
    async with staged() as stage:
        stage.decoder.is_open = False
        caller = await stage.call(7, seconds=0.02)
        await becomes_true(lambda: caller.scope.cancel_called or anyio.current_time() > caller.deadline.at)
        stage.decoder.open()
        await all_through(caller)
    assert str(caller.error) == "no answer within 0.02 s: the time ran out while its images were decoded"


async def test_an_urgent_request_does_not_wait_for_a_carrier_that_has_more_time() -> None:
    async with staged() as stage:
        await stage.busy()
        patient, urgent = await stage.call(7, seconds=60), await stage.call(7, seconds=30)
        third = await stage.call(7, seconds=31)
        assert stage.queue.waiting_rows == 2
        go_on(stage)
        await all_through(patient, urgent, third)
    assert patient.has_its_own
    assert urgent.has_its_own
    assert third.sources == ["shared"]


async def test_a_request_does_not_wait_for_a_carrier_of_lower_priority() -> None:
    async with staged() as stage:
        await stage.busy()
        patient, urgent, third = stage.caller(7), stage.caller(7), stage.caller(7)
        urgent.priority = 0
        for caller in (patient, urgent, third):
            await stage.start(caller)
        assert stage.queue.waiting_rows == 2
        go_on(stage)
        await all_through(patient, urgent, third)
    assert patient.has_its_own
    assert urgent.has_its_own
    assert third.sources == ["shared"]


async def test_nobody_is_urgent_for_a_little_less_time() -> None:
    async with staged() as stage:
        await stage.busy()
        carrier, other = await stage.call(7, seconds=60), await stage.call(7, seconds=57)
        assert stage.queue.waiting_rows == 1
        go_on(stage)
        await all_through(carrier, other)
    assert other.sources == ["shared"]


async def test_whichever_answer_comes_first_is_everybodys() -> None:
    async with staged() as stage:
        patient = await stage.call(7, seconds=60)
        await stage.engine.begun(1)
        urgent = await stage.call(7, seconds=30)
        stage.engine.let_through(1)
        await all_through(patient, urgent)
    assert patient.sources == ["engine"]
    assert urgent.sources == ["shared"]


async def test_the_most_urgent_of_the_others_takes_up_what_a_carrier_puts_down() -> None:
    async with staged() as stage:
        await stage.busy()
        carrier = await stage.call(7, seconds=20)
        others = [await stage.call(7, seconds=seconds) for seconds in (60, 40, 50)]
        carrier.scope.cancel()
        await settled()
        assert stage.queue.waiting_rows == 1
        go_on(stage)
        await all_through(*others)
    assert [caller.sources for caller in others] == [["shared"], ["engine"], ["shared"]]


async def test_an_urgent_carrier_that_leaves_is_followed_by_whom_the_patient_one_is_too_late_for() -> None:
    async with staged() as stage:
        await stage.busy()
        patient, urgent = await stage.call(7, seconds=600), await stage.call(7, seconds=30)
        follower = await stage.call(7, seconds=31)
        urgent.scope.cancel()
        await settled()
        assert stage.queue.waiting_rows == 2
        go_on(stage)
        await all_through(patient, follower)
    assert patient.has_its_own
    assert follower.has_its_own


# What befalls all


async def test_a_fault_of_the_engine_fails_all_who_shared_the_image() -> None:
    async with staged() as stage:
        callers = [await stage.call(7), await stage.call(7), await stage.call(8, 7)]
        stage.engine.errors.append(EngineFault("the engine process ended"))
        stage.engine.let_through(2)
        await all_through(*callers)
        later = await stage.call(7)
        stage.engine.let_through(2)
        await all_through(later)
    assert [str(caller.error) for caller in callers] == ["the engine process ended"] * 3
    assert (
        len({id(caller.error) for caller in callers}) == 3
    )  # each raises one of its own, with its own trace
    assert {type(caller.error) for caller in callers} == {EngineFault}
    assert later.has_its_own


async def test_a_fault_of_the_engine_fails_no_one_who_has_another_carrier() -> None:
    async with staged() as stage:
        patient = await stage.call(7, seconds=60)
        await stage.engine.begun(1)
        urgent, follower = await stage.call(7, seconds=30), await stage.call(7, seconds=30)
        stage.engine.errors.append(EngineFault("the engine process ended"))
        stage.engine.let_through(2)
        await all_through(patient, urgent, follower)
    assert isinstance(patient.error, EngineFault)
    assert urgent.has_its_own
    assert follower.has_its_own


async def test_a_bad_image_is_decoded_once_and_refused_to_all_with_its_place() -> None:
    async with staged() as stage:
        stage.decoder.is_open = False
        callers = [await stage.call(BAD), await stage.call(BAD), await stage.call(1, BAD, BAD)]
        go_on(stage)
        await all_through(*callers)
    assert [str(caller.error) for caller in callers] == ["it is bad", "it is bad", "images[1]: it is bad"]
    assert {type(caller.error) for caller in callers} == {InvalidImage}
    assert stage.decoder.begun.count(BAD) == 1
    assert stage.engine.ran == []


async def test_a_good_image_beside_a_bad_one_is_taken_up_by_others() -> None:
    async with staged() as stage:
        stage.decoder.is_open = False
        carrier, other = await stage.call(1, BAD, 2), await stage.call(2, 1)
        go_on(stage)
        await all_through(carrier, other)
    assert isinstance(carrier.error, InvalidInput)
    assert other.has_its_own
    assert stage.decoder.begun.count(1) == 1


@pytest.mark.parametrize("number", [7, BAD])
async def test_an_image_is_let_go_with_its_request(number: int) -> None:
    async with staged() as stage:
        stage.engine.let_through()
        image = b"0" * 100 + str(number).encode()
        gc.collect()
        gc.disable()
        try:
            held = sys.getrefcount(image)
            with suppress(InvalidImage):
                await stage.sharing.answer([image], stage.caller())
            await settled()
            assert sys.getrefcount(image) == held
        finally:
            gc.enable()


async def test_the_row_of_a_single_image_is_not_copied_on_its_way_to_the_queue() -> None:
    async with staged() as stage:
        stage.engine.let_through(2)
        alone, several = await stage.call(1), await stage.call(2, 3)
        await all_through(alone, several)
    assert (alone.copied, several.copied) == ([False], [True])


# The cache


async def test_an_answer_is_remembered_if_there_is_a_cache() -> None:
    async with staged(cache_bytes=10_000) as stage:
        stage.engine.let_through(2)
        first = await stage.call(7, 8)
        await all_through(first)
        second = await stage.call(8, 9, 7, 7)
        await all_through(second)
    assert second.has_its_own
    assert second.sources == ["cache", "engine", "cache", "cache"]
    assert stage.engine.ran == [7, 8, 9]
    assert stage.metric("cardinal_cache_hits_total") == 2
    assert stage.metric("cardinal_cache_misses_total") == 3


async def test_a_remembered_answer_needs_neither_room_nor_engine() -> None:
    async with staged(cache_bytes=10_000) as stage:
        stage.engine.let_through()
        await all_through(await stage.call(7))
        caller = stage.caller(7)
        caller.refuses.append(Overloaded("no room"))
        await stage.start(caller)
        assert caller.has_its_own
    assert caller.answer is not None
    assert caller.answer.engine_s == 0


async def test_another_version_never_answers_from_the_cache_of_the_old_one() -> None:
    async with staged(cache_bytes=10_000) as stage:
        stage.engine.let_through(2)
        await all_through(await stage.call(7), await stage.call(7, identity=b"cats 4"))
    assert stage.engine.ran == [7, 7]


async def test_no_error_is_remembered() -> None:
    async with staged(cache_bytes=10_000) as stage:
        stage.engine.errors.append(EngineFault("the engine process ended"))
        stage.engine.let_through(2)
        await all_through(await stage.call(7), await stage.call(BAD))
        later = await stage.call(7)
        await all_through(later)
    assert later.has_its_own


# Whatever happens


class RestlessEngine(GatedEngine):
    """Takes a random number of turns of the loop for each batch, and fails one in thirty."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float) -> BatchAnswer:
        for _ in range(self._chance.randrange(6)):
            await checkpoint()
        if self._chance.random() < 1 / 30:
            self.errors.append(EngineFault("one in thirty"))
        self.let_through()
        return await super().run(batch, gear, expected_s)


async def come_and_perhaps_leave(caller: Caller, sharing: Sharing, chance: random.Random) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(caller.ask, sharing)
        if chance.random() < 1 / 4:
            for _ in range(chance.randrange(20)):
                await checkpoint()
            caller.scope.cancel()


@pytest.mark.parametrize("cache_bytes", [0, 1500])
@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_each_of_800_requests_gets_its_own_answer_or_its_own_error(
    seed: int, cache_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    chance, metrics = random.Random(seed), Metrics()
    engine, decoder = RestlessEngine(chance), GatedDecoder()
    decoder.turns = iter(lambda: chance.randrange(4), None)
    queue = queue_over([engine], metrics, max_queued_rows=24)
    sharing = Sharing(AnswerCache(max_bytes=cache_bytes, metrics=metrics), metrics)
    callers = []
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as loop:
            loop.start_soon(queue.run)
            async with anyio.create_task_group() as tasks:
                for _ in range(800):
                    images = [
                        BAD if chance.random() < 0.01 else chance.randrange(12)
                        for _ in range(chance.randint(1, 5))
                    ]
                    seconds = chance.choice([60, 60, 30, 0.02 * chance.random()])
                    caller = Caller(images, decoder, queue, Deadline.after(seconds, 60))
                    callers.append(caller)
                    tasks.start_soon(come_and_perhaps_leave, caller, sharing, chance)
                    for _ in range(chance.randrange(4)):
                        await checkpoint()
            assert len(sharing) == 0
            assert queue.waiting_rows == 0
            queue.close()

    answered = [caller for caller in callers if caller.answer]
    assert all(caller.has_its_own for caller in answered)
    assert len(answered) > 150
    ended = answered + [caller for caller in callers if caller.error or caller.has_left]
    assert len(ended) == len(callers) == len({id(caller) for caller in ended})
    errors = {type(caller.error) for caller in callers if caller.error}
    assert errors <= {Overloaded, DeadlineExceeded, EngineFault, InvalidImage}
    for caller in callers:
        if isinstance(caller.error, InvalidImage):
            assert BAD in caller.images
    assert any("shared" in caller.sources for caller in answered)
