import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import numpy as np
import pytest
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from gated import GatedEngine, logits_of
from patience import PATIENCE_S
from service.batching import BatchQueue, Bounds, QueueAnswer, QueuePolicy, Urgency
from service.engines import BatchAnswer, Curve
from service.errors import DeadlineExceeded, EngineFault, InvalidInput, Overloaded, ServiceError, Stopping
from service.metrics import Metrics
from service.tensors import Rows

pytestmark = pytest.mark.anyio

LABELS = {"model": "cats", "version": "3"}
ANYBODY = Urgency()


def rows_of(numbers: Sequence[int]) -> Rows:
    """Make rows (n, 1, 1, 3), each with a number in its three bytes."""
    return np.array(numbers, "<u4").view(np.uint8).reshape(-1, 1, 1, 4)[..., :3]


@dataclass(eq=False)
class Caller:
    """A task that submits rows and keeps what becomes of them."""

    numbers: Sequence[int]
    urgency: Urgency = ANYBODY
    answer: QueueAnswer | None = None
    error: ServiceError | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    through: anyio.Event = field(default_factory=anyio.Event)

    async def ask(self, queue: BatchQueue, *, task_status: TaskStatus[None]) -> None:
        """Be started when the rows are in the queue: submit() runs to its wait without a pause."""
        task_status.started()
        try:
            with self.scope:
                self.answer = await queue.submit(rows_of(self.numbers), self.urgency)
        except ServiceError as error:
            self.error = error
        finally:
            self.through.set()

    @property
    def answered(self) -> list[int] | None:
        if self.answer is None:
            return None
        numbers = [int(number) for number in self.answer.logits[:, 0]]
        assert self.answer.logits.tolist() == [logits_of(number) for number in numbers]
        return numbers

    @property
    def has_its_own_rows(self) -> bool:
        return self.answered == list(self.numbers)


class Stage:
    """A queue that is being served, its engine, its metrics, and a group for callers."""

    def __init__(self, tasks: TaskGroup, policy: QueuePolicy, curve: Curve) -> None:
        self.tasks, self.engine, self.metrics = tasks, GatedEngine(curve), Metrics()
        self.queue = BatchQueue([self.engine], policy, self.metrics, ("cats", "3"))
        self.loop = anyio.CancelScope()
        self.loop_ended = anyio.Event()

    async def serve(self) -> None:
        with self.loop:
            await self.queue.run()
        self.loop_ended.set()

    async def call(self, *numbers: int, urgency: Urgency = ANYBODY) -> Caller:
        caller = Caller(numbers, urgency)
        await self.tasks.start(caller.ask, self.queue)
        return caller

    async def busy(self) -> Caller:
        """Occupy the engine, so that what follows waits in the queue."""
        caller = await self.call(0)
        await self.engine.begun(1)
        return caller

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, LABELS | labels)


@asynccontextmanager
async def staged(
    *, gears: Sequence[int] = (), max_batch_rows: int = 8, max_queued_rows: int = 64, batch_s: float = 1e-4
) -> AsyncIterator[Stage]:
    gears = gears or range(1, max_batch_rows + 1)
    curve = Curve.exact(
        {gear: batch_s * (1 + gear / 100) for gear in gears}
    )  # more rows cost next to nothing
    policy = QueuePolicy(row_shape=(1, 1, 3), bounds=Bounds(max_rows=max_queued_rows, max_device_s=1000))
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            stage = Stage(tasks, policy, curve)
            tasks.start_soon(stage.serve)
            await tuned(stage.queue)
            yield stage
            stage.engine.let_through(100)
            stage.queue.close()


async def tuned(queue: BatchQueue) -> None:
    """Wait until the queue has tuned itself to its engine, which it does in a thread."""
    while not queue.tunings:
        await checkpoint()


async def settled() -> None:
    """Let all tasks run until they wait: nothing here needs more than a few turns of the loop, and none time."""
    for _ in range(20):
        await checkpoint()


async def all_through(*callers: Caller) -> None:
    for caller in callers:
        await caller.through.wait()


async def test_a_request_is_answered_with_its_own_rows_in_order() -> None:
    async with staged() as stage:
        stage.engine.let_through()
        caller = await stage.call(7, 70_000, 3)
        await all_through(caller)
    assert caller.has_its_own_rows


async def test_a_request_never_waits_while_the_engine_is_idle() -> None:
    async with staged() as stage:
        await settled()
        await stage.call(1)
        await settled()
        assert stage.engine.batches == [[1]]


async def test_requests_that_arrive_while_the_engine_is_busy_share_the_next_batch() -> None:
    async with staged() as stage:
        await stage.busy()
        callers = [await stage.call(1, 2), await stage.call(3), await stage.call(4, 5, 6)]
        stage.engine.let_through(2)
        await all_through(*callers)
    assert stage.engine.batches == [[0], [1, 2, 3, 4, 5, 6]]
    assert all(caller.has_its_own_rows for caller in callers)


async def test_a_full_queue_refuses_at_once_and_tells_when_to_come_back() -> None:
    async with staged(max_queued_rows=4) as stage:
        await stage.busy()
        waiting = await stage.call(1, 2, 3, 4)
        with pytest.raises(Overloaded, match="4 images are waiting; with 1 more") as refusal:
            await stage.queue.submit(rows_of([5]), ANYBODY)
        assert refusal.value.retry_after_s is not None
        assert refusal.value.retry_after_s > 0
        stage.engine.let_through(2)
        await all_through(waiting)
    assert waiting.has_its_own_rows
    assert stage.engine.batches == [[0], [1, 2, 3, 4]]


async def test_the_time_to_come_back_is_when_there_will_be_room() -> None:
    async with staged(gears=[2], batch_s=3.0, max_queued_rows=8) as stage:
        await stage.busy()
        await stage.call(*range(8))
        with pytest.raises(Overloaded) as refusal:
            stage.queue.check_room(3, ANYBODY)
    # The batch that has just begun, and two more that make room for three rows.
    assert refusal.value.retry_after_s == pytest.approx(3 * 3.06, rel=0.05)


async def test_rows_are_counted_not_requests() -> None:
    async with staged(max_queued_rows=8) as stage:
        await stage.busy()
        await stage.call(1, 2, 3, 4, 5)
        with pytest.raises(Overloaded):
            stage.queue.check_room(4, ANYBODY)
        await stage.call(6, 7, 8)
        assert stage.queue.waiting_rows == 8


async def test_rows_that_run_take_no_room_in_the_queue() -> None:
    async with staged(max_queued_rows=4) as stage:
        await stage.call(1, 2, 3, 4)
        await stage.engine.begun(1)
        stage.queue.check_room(4, ANYBODY)


async def test_a_caller_that_leaves_gives_its_room_back() -> None:
    async with staged(max_queued_rows=4) as stage:
        await stage.busy()
        caller = await stage.call(1, 2, 3, 4)
        caller.scope.cancel()
        await all_through(caller)
        stage.queue.check_room(4, ANYBODY)


async def test_a_request_that_could_never_fit_is_told_what_is_allowed() -> None:
    async with staged(max_queued_rows=4) as stage:
        with pytest.raises(InvalidInput, match="the request has 5 images; allowed are 4"):
            await stage.queue.submit(rows_of(range(5)), ANYBODY)


async def test_a_caller_that_left_is_dropped_before_the_engine_runs() -> None:
    async with staged() as stage:
        await stage.busy()
        gone, stays = await stage.call(1, 2), await stage.call(3)
        gone.scope.cancel()
        stage.engine.let_through(2)
        await all_through(gone, stays)
    assert stage.engine.batches == [[0], [3]]
    assert stays.has_its_own_rows


async def test_a_caller_that_left_is_dropped_even_if_its_task_has_not_run_since() -> None:
    async with staged() as stage:
        await stage.busy()
        gone, stays = await stage.call(1), await stage.call(2)
        stage.engine.let_through(2)  # the loop's task is woken first
        gone.scope.cancel()
        await all_through(stays)
    assert stage.engine.batches == [[0], [2]]


async def test_a_caller_that_leaves_mid_batch_does_not_disturb_its_neighbours() -> None:
    async with staged() as stage:
        await stage.busy()
        before, gone, after = await stage.call(1), await stage.call(2, 3), await stage.call(4)
        stage.engine.let_through()
        await stage.engine.begun(2)
        gone.scope.cancel()
        await all_through(gone)
        stage.engine.let_through()
        await all_through(before, after)
    assert stage.engine.batches[1] == [1, 2, 3, 4]
    assert before.has_its_own_rows
    assert after.has_its_own_rows
    assert gone.answer is None


async def test_an_engine_error_fails_its_batch_only_and_the_loop_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with staged(max_batch_rows=2) as stage:
        await stage.busy()
        failed = await stage.call(1), await stage.call(2)
        fine = await stage.call(3)
        stage.engine.let_through()
        await stage.engine.begun(2)
        stage.engine.errors.append(EngineFault("the engine process ended"))
        stage.engine.let_through(2)
        await all_through(*failed, fine)
        later = await stage.call(4)
        stage.engine.let_through()
        await all_through(later)
    assert [str(caller.error) for caller in failed] == ["the engine process ended"] * 2
    assert failed[0].error is not failed[1].error  # each raises one of its own, with its own trace
    assert fine.has_its_own_rows
    assert later.has_its_own_rows
    assert [record.getMessage() for record in caplog.records] == ["batch_failed"]


async def test_an_unforeseen_exception_fails_its_batch_only_and_its_trace_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with staged() as stage:
        stage.engine.errors.append(ZeroDivisionError("secret"))
        failed = await stage.call(1)
        stage.engine.let_through()
        await all_through(failed)
        later = await stage.call(2)
        stage.engine.let_through()
        await all_through(later)
    assert isinstance(failed.error, EngineFault)
    assert "secret" not in str(failed.error)
    assert "ZeroDivisionError: secret" in caplog.text
    assert later.has_its_own_rows


@pytest.mark.parametrize("surplus", [-3, -1, 1])
async def test_a_wrong_row_count_is_an_engine_error(surplus: int) -> None:
    async with staged() as stage:
        await stage.busy()
        callers = await stage.call(1), await stage.call(2, 3)
        stage.engine.let_through()
        await stage.engine.begun(2)
        stage.engine.surplus_rows = surplus
        stage.engine.let_through()
        await all_through(*callers)
        stage.engine.surplus_rows = 0
        stage.engine.let_through()
        later = await stage.call(4)
        await all_through(later)
    sentence = f"the engine answered {3 + surplus} rows for 3"
    assert [str(caller.error) for caller in callers] == [sentence] * 2
    assert later.has_its_own_rows


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((1, 2, 1, 3), np.uint8),
        np.zeros((1, 1, 1, 4), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 1, 1, 1, 3), np.uint8),
        np.zeros((0, 1, 1, 3), np.uint8),
        np.zeros((1, 1, 1, 3), np.float32),
        np.zeros((1, 1, 1, 3), np.int8),
    ],
    ids=lambda rows: f"{rows.dtype}{rows.shape}",
)
async def test_shapes_and_types_are_checked_before_queueing(rows: Rows) -> None:
    async with staged() as stage:
        with pytest.raises(ValueError, match=r"not uint8 \(n, \*\(1, 1, 3\)\)"):
            await stage.queue.submit(rows, ANYBODY)
        await settled()
        assert stage.engine.batches == []


async def test_if_the_loop_is_cancelled_nobody_is_left_waiting() -> None:
    async with staged(max_batch_rows=2) as stage:
        await stage.busy()
        stage.engine.let_through()
        split, queued = await stage.call(1, 2, 3), await stage.call(4)
        await stage.engine.begun(2)
        stage.loop.cancel()
        await all_through(split, queued)
        with pytest.raises(Stopping):
            await stage.queue.submit(rows_of([5]), ANYBODY)
    assert [type(caller.error) for caller in (split, queued)] == [Stopping, Stopping]


async def test_closing_answers_what_was_accepted_and_refuses_what_is_new() -> None:
    async with staged(max_batch_rows=2) as stage:
        accepted = [await stage.busy(), *[await stage.call(number, number) for number in (1, 2, 3)]]
        stage.queue.close()
        with pytest.raises(Stopping):
            await stage.queue.submit(rows_of([4]), ANYBODY)
        stage.engine.let_through(4)
        await stage.loop_ended.wait()
        await all_through(*accepted)
    assert all(caller.has_its_own_rows for caller in accepted)


async def test_closing_an_idle_queue_ends_its_loop_at_once() -> None:
    async with staged() as stage:
        await settled()
        stage.queue.close()
        await stage.loop_ended.wait()


async def test_a_queue_that_was_closed_before_it_was_served_ends_at_once() -> None:
    async with staged() as stage:
        stage.queue.close()
        await stage.loop_ended.wait()


async def test_closing_ends_the_loop_if_nobody_waits_for_an_engine_that_is_not_ready() -> None:
    async with staged() as stage:
        stage.engine.be_ready(is_ready=False)
        caller = await stage.call(1)
        await settled()
        caller.scope.cancel()
        await all_through(caller)
        stage.queue.close()
        await stage.loop_ended.wait()


async def test_cutting_off_answers_everybody_at_once() -> None:
    async with staged(max_batch_rows=2) as stage:
        running = await stage.busy()
        queued = await stage.call(1, 2, 3), await stage.call(4)
        stage.queue.cut_off()
        await all_through(running, *queued)
        with pytest.raises(Stopping):
            stage.queue.check_room(1, ANYBODY)
    assert {type(caller.error) for caller in (running, *queued)} == {Stopping}
    assert stage.engine.batches == [[0]]


async def test_cutting_off_answers_those_who_wait_for_an_engine_that_is_not_ready() -> None:
    async with staged() as stage:
        stage.engine.be_ready(is_ready=False)
        caller = await stage.call(1)
        await settled()
        stage.queue.cut_off()
        await all_through(caller)
        stage.loop.cancel()
    assert isinstance(caller.error, Stopping)


async def test_a_big_request_is_split_over_batches_and_joined_in_order() -> None:
    async with staged(max_batch_rows=4) as stage:
        await stage.busy()
        small, big, last = await stage.call(1), await stage.call(*range(10, 20)), await stage.call(2)
        stage.engine.let_through(4)
        await all_through(small, big, last)
    assert stage.engine.batches == [[0], [1, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 2]]
    assert small.has_its_own_rows
    assert big.has_its_own_rows
    assert last.has_its_own_rows


async def test_the_engine_time_of_a_big_request_is_that_of_all_its_batches() -> None:
    async with staged(max_batch_rows=4) as stage:
        stage.engine.let_through(3)
        caller = await stage.call(*range(10))
        await all_through(caller)
    assert caller.answer is not None
    assert caller.answer.engine_s == pytest.approx(3 * stage.engine.batch_s)
    assert 0 <= caller.answer.queue_s < PATIENCE_S


async def test_a_part_that_fails_fails_the_whole_request_and_drops_its_rest() -> None:
    async with staged(max_batch_rows=4) as stage:
        big, neighbour = await stage.call(*range(10, 20)), await stage.call(1)
        await stage.engine.begun(1)
        stage.engine.let_through()
        await stage.engine.begun(2)
        stage.engine.errors.append(EngineFault("broken"))
        stage.engine.let_through(2)
        await all_through(big, neighbour)
    assert str(big.error) == "broken"
    assert neighbour.has_its_own_rows
    assert stage.engine.batches == [[10, 11, 12, 13], [14, 15, 16, 17], [1]]


async def test_the_rest_of_a_big_request_is_not_run_for_a_caller_that_left() -> None:
    async with staged(max_batch_rows=4) as stage:
        big, neighbour = await stage.call(*range(10, 20)), await stage.call(1)
        await stage.engine.begun(1)
        big.scope.cancel()
        stage.engine.let_through(2)
        await all_through(big, neighbour)
    assert stage.engine.batches == [[10, 11, 12, 13], [1]]
    assert neighbour.has_its_own_rows


async def test_requests_wait_while_the_engine_is_not_ready_and_are_answered_later() -> None:
    async with staged() as stage:
        stage.engine.be_ready(is_ready=False)
        gone, first, second = await stage.call(1), await stage.call(2), await stage.call(3, 4)
        await settled()
        assert stage.engine.batches == []
        gone.scope.cancel()
        stage.engine.let_through()
        stage.engine.be_ready(is_ready=True)
        await all_through(first, second)
    assert stage.engine.batches == [[2, 3, 4]]
    assert first.has_its_own_rows
    assert second.has_its_own_rows


@pytest.mark.parametrize(
    ("rows", "gears"),
    [(1, [1]), (2, [4]), (4, [4]), (5, [8]), (8, [8]), (9, [8, 1]), (14, [8, 8]), (20, [8, 8, 4])],
)
async def test_a_batch_runs_at_the_smallest_gear_that_holds_it(rows: int, gears: list[int]) -> None:
    async with staged(gears=(1, 4, 8), max_batch_rows=2) as stage:
        stage.engine.let_through(len(gears))
        caller = await stage.call(*range(rows))
        await all_through(caller)
    assert stage.engine.gears == gears
    assert caller.has_its_own_rows
    assert stage.metric("cardinal_batch_rows_sum") == rows
    assert stage.metric("cardinal_batch_rows_count") == len(gears)
    assert stage.metric("cardinal_batch_padding_rows_total") == sum(gears) - rows


async def test_without_gears_a_batch_is_as_large_as_it_is() -> None:
    async with staged(max_batch_rows=8) as stage:
        stage.engine.let_through(2)
        await all_through(await stage.call(*range(11)))
    assert stage.engine.gears == [8, 3]
    assert stage.metric("cardinal_batch_padding_rows_total") == 0


async def test_a_batch_that_failed_is_not_counted_as_run() -> None:
    async with staged() as stage:
        stage.engine.errors.append(EngineFault("broken"))
        stage.engine.let_through()
        await all_through(await stage.call(1))
    assert not stage.metric("cardinal_batch_rows_count")


async def test_the_gauges_show_what_waits_and_return_to_zero() -> None:
    async with staged() as stage:
        await stage.busy()
        stage.engine.let_through()
        running, waiting = await stage.call(1, 2), []
        await stage.engine.begun(2)
        waiting = [await stage.call(3, 4, 5), await stage.call(6)]
        assert stage.metric("cardinal_queue_rows") == 4
        assert stage.metric("cardinal_queue_device_seconds") == pytest.approx(4 * 1.08e-4 / 8)
        stage.engine.let_through(2)
        await all_through(running, *waiting)
        assert stage.metric("cardinal_queue_rows") == 0
        assert stage.metric("cardinal_queue_device_seconds") == 0


async def test_the_gauges_return_to_zero_when_the_callers_leave() -> None:
    async with staged() as stage:
        await stage.busy()
        gone = await stage.call(1, 2)
        gone.scope.cancel()
        await all_through(gone)
        assert stage.metric("cardinal_queue_rows") == 0


async def test_the_gauges_return_to_zero_when_the_callers_leave_as_their_batch_is_formed() -> None:
    async with staged() as stage:
        await stage.busy()
        gone = await stage.call(1, 2)
        stage.engine.let_through()  # the loop's task is woken first
        gone.scope.cancel()
        await all_through(gone)
        await settled()
        assert stage.metric("cardinal_queue_rows") == 0


async def test_the_gauges_return_to_zero_when_a_split_request_fails() -> None:
    async with staged(max_batch_rows=4) as stage:
        stage.engine.errors.append(EngineFault("broken"))
        stage.engine.let_through()
        await all_through(await stage.call(*range(10)))
        await settled()
        assert stage.metric("cardinal_queue_rows") == 0


async def test_the_gauges_return_to_zero_when_the_loop_is_cut_off() -> None:
    async with staged() as stage:
        running, queued = await stage.busy(), await stage.call(1, 2)
        stage.queue.cut_off()
        stage.engine.let_through()
        await all_through(running, queued)
        await stage.loop_ended.wait()
        assert stage.metric("cardinal_queue_rows") == 0


class RestlessEngine(GatedEngine):
    """Takes a random number of turns of the loop for each batch, and fails one in twenty."""

    def __init__(self, curve: Curve, chance: random.Random) -> None:
        super().__init__(curve)
        self._chance = chance

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float) -> BatchAnswer:
        for _ in range(self._chance.randrange(6)):
            await checkpoint()
        if self._chance.random() < 1 / 20:
            self.errors.append(EngineFault("one in twenty"))
        self.let_through()
        return await super().run(batch, gear, expected_s)


async def _come_and_perhaps_leave(caller: Caller, queue: BatchQueue, chance: random.Random) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(caller.ask, queue)
        if chance.random() < 1 / 5:
            for _ in range(chance.randrange(12)):
                await checkpoint()
            caller.scope.cancel()


@pytest.mark.parametrize("gears", [range(1, 17), (1, 4, 16)])
async def test_whatever_happens_each_of_3000_requests_gets_its_own_rows_once(
    gears: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    chance, metrics = random.Random(20), Metrics()
    engine = RestlessEngine(Curve.exact({gear: 1e-4 + gear * 1e-6 for gear in gears}), chance)
    policy = QueuePolicy(row_shape=(1, 1, 3), bounds=Bounds(max_rows=20_000, max_device_s=1000))
    queue = BatchQueue([engine], policy, metrics, ("cats", "3"))
    callers, first = [], 0
    for _ in range(3000):
        rows = chance.randint(1, 5)
        callers.append(Caller(range(first, first + rows)))
        first += rows

    async with anyio.create_task_group() as loop:
        loop.start_soon(queue.run)
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(_come_and_perhaps_leave, caller, queue, chance)
                for _ in range(chance.randrange(3)):
                    await checkpoint()
        assert queue.waiting_rows == 0
        queue.close()

    run = [number for batch in engine.batches for number in batch]
    left = [caller for caller in callers if caller.scope.cancelled_caught]
    failed = [caller for caller in callers if caller.error]
    answered = [caller for caller in callers if caller.answer]
    assert len(left) + len(failed) + len(answered) == 3000
    assert len(left) > 100
    assert len(failed) > 20
    assert all(caller.has_its_own_rows for caller in answered)
    assert {str(caller.error) for caller in failed} == {"one in twenty"}
    assert len(set(run)) == len(run)  # no row was run twice
    assert set(run) >= {number for caller in answered for number in caller.numbers}
    assert max(map(len, engine.batches)) <= 16


async def test_an_earlier_deadline_is_served_first_and_a_higher_priority_before_all() -> None:
    async with staged(gears=[1]) as stage:
        await stage.busy()
        now = time.monotonic()
        late, soon, first = [
            await stage.call(number, urgency=Urgency(deadline=now + left_s, priority=priority))
            for number, left_s, priority in ((1, 3600, 1), (2, 1800, 1), (3, 7200, 0))
        ]
        stage.engine.let_through(4)
        await all_through(late, soon, first)
    assert stage.engine.batches == [[0], [3], [2], [1]]


async def test_one_caller_with_hundreds_of_images_does_not_starve_the_single_ones_of_others() -> None:
    async with staged(gears=[4], max_queued_rows=600) as stage:
        await stage.busy()
        greedy = await stage.call(*range(1000, 1500), urgency=Urgency(caller="greedy"))
        modest = [await stage.call(number, urgency=Urgency(caller=str(number))) for number in range(1, 9)]
        stage.engine.let_through(200)
        await all_through(greedy, *modest)
    assert greedy.has_its_own_rows
    served = [number for batch in stage.engine.batches for number in batch]
    assert set(served[: 1 + 8 + 8]) >= set(range(1, 9))  # after one turn of the greedy caller


async def test_a_request_that_would_be_answered_too_late_is_refused_at_once() -> None:
    async with staged(gears=[1], batch_s=300) as stage:
        await stage.busy()
        urgency = Urgency(deadline=time.monotonic() + 400)
        with pytest.raises(
            Overloaded,
            match=r"the answer would take (59|60)\d\.\d+ s; the request has (39\d|400)\.\d+ s left",
        ) as refusal:
            await stage.queue.submit(rows_of([1]), urgency)
        assert refusal.value.retry_after_s == pytest.approx(206, abs=10)
        assert stage.metric("cardinal_admissions_total", verdict="late") == 1


async def test_a_request_whose_turn_would_come_too_late_is_dropped_before_the_engine_runs() -> None:
    async with staged(gears=[1], batch_s=0.01) as stage:
        await stage.busy()  # and the engine takes longer than it ever did
        late = await stage.call(1, urgency=Urgency(deadline=time.monotonic() + 2))
        await anyio.sleep(late.urgency.deadline - time.monotonic())
        fine = await stage.call(2)
        stage.engine.let_through(2)
        await all_through(late, fine)
    assert isinstance(late.error, DeadlineExceeded)
    assert stage.engine.batches == [[0], [2]]


async def test_a_batch_that_an_engine_could_not_take_is_run_when_it_can() -> None:
    async with staged() as stage:
        await stage.busy()
        waiting = await stage.call(1, 2)
        stage.engine.be_ready(is_ready=False)
        stage.engine.let_through()
        await settled()
        assert stage.queue.waiting_rows == 2
        stage.engine.be_ready(is_ready=True)
        stage.engine.let_through()
        await all_through(waiting)
    assert waiting.has_its_own_rows


async def test_several_engines_share_the_line() -> None:
    curve = Curve.exact({1: 1e-4})
    engines = [GatedEngine(curve), GatedEngine(curve)]
    policy = QueuePolicy(row_shape=(1, 1, 3), bounds=Bounds(max_rows=64, max_device_s=1000))
    queue = BatchQueue(engines, policy, Metrics(), ("cats", "3"))
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.run)
            while len(queue.tunings) < 2:
                await checkpoint()
            callers = [Caller((number,)) for number in range(4)]
            for caller in callers:
                await tasks.start(caller.ask, queue)
            for engine in engines:
                await engine.begun(1)
            engines[1].let_through(3)
            await all_through(*callers[1:])
            assert not callers[0].through.is_set()
            engines[0].let_through()
            await all_through(callers[0])
            queue.close()
    assert [engine.batches for engine in engines] == [[[0]], [[1], [2], [3]]]


async def test_an_engine_is_told_how_long_its_batch_should_take() -> None:
    async with staged(gears=[2], batch_s=0.5) as stage:
        stage.engine.let_through()
        await all_through(await stage.call(1))
    assert stage.engine.expected_s == [pytest.approx(0.51)]


async def test_the_curve_is_corrected_when_batches_take_longer_than_they_did() -> None:
    async with staged(gears=[1], batch_s=1e-6) as stage:
        for number in range(60):
            stage.engine.let_through()
            await all_through(await stage.call(number))
        (device,) = stage.queue.devices
        assert device.curve is not None
        assert device.curve.usual_s(1) > 2e-6


async def test_how_far_off_the_prediction_was_is_measured_for_each_request() -> None:
    async with staged(gears=[4]) as stage:
        stage.engine.let_through(3)
        await all_through(await stage.call(1, 2), await stage.call(3, 4, 5, 6, 7, 8))
        assert stage.metric("cardinal_prediction_error_seconds_count") == 2
