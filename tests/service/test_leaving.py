"""Callers that leave, over real sockets: wherever their images are, nothing more is done for them."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import anyio
import grpc
import httpx
import pytest
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync

from gated import LABELS, GatedEngine, becomes_true, picture_of
from patience import PATIENCE_S
from service.bell import Bell
from service.cache import AnswerCache
from service.decoding import Decoder
from service.gate import Gate
from service.health import Health
from service.inference import Inference
from service.journal import Journal
from service.metrics import Metrics
from service.rest import HttpListener, RestDoor, build_app
from service.rpc import Classifier, RpcServer
from service.sharing import Sharing
from service.stubs.cardinal.v1 import classifier_pb2 as wire
from service.stubs.cardinal.v1.classifier_pb2_grpc import ClassifierStub
from service.uploads import BodyLimits, Uploads
from shelf import BUNDLE, Shelf

pytestmark = pytest.mark.anyio

MODEL = LABELS[0]


class Plug(bytes):
    """A picture that keeps a decode thread busy until it is pulled."""

    def __new__(cls) -> Self:
        return super().__new__(cls, b"no picture")

    def __init__(self) -> None:
        self.pulled = threading.Event()

    def startswith(self, *prefix: Any) -> bool:
        self.pulled.wait(PATIENCE_S)
        return super().startswith(*prefix)


@dataclass(eq=False)
class Caller:
    """One request on a connection of its own, and the number of the picture that it was answered for."""

    picture: int
    answered: int | None = None
    leave: Callable[[], Any] = lambda: None


class Site:
    """Both doors on real ports, one thread to decode and an engine that the test holds."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self.metrics, self.engine = Metrics(), GatedEngine()
        self.shelf = Shelf([self.engine], self.metrics)
        self.decoder = Decoder(threads=1, max_pixels=1_000_000)
        self.sharing = Sharing(AnswerCache(max_bytes=0, metrics=self.metrics), self.metrics)
        self.journal = Journal(self.metrics, max_requests=64)
        self.uploads = Uploads(BodyLimits(max_bytes=10_000, max_images=4, max_upload_bytes=100_000))
        self.plug = Plug()

    async def open(self, doors: TaskGroup) -> None:
        inference = Inference(self.shelf, self.decoder, self.sharing, max_images=4, longest_s=PATIENCE_S)
        health = Health(self.shelf, frozenset(), Bell())
        door = RestDoor(inference, self.shelf, health, self.journal, self.uploads)
        app = await run_sync(build_app, door, health, Gate())  # which looks for files
        self.rest = HttpListener(app, "127.0.0.1", 0, Gate(), drain_timeout_s=0)
        classifier = Classifier(inference, self.journal, self.uploads)
        self.rpc = RpcServer(classifier, health, self.shelf, address="127.0.0.1:0", max_bytes=10_000)
        doors.start_soon(self.rest.run_until_stopped)
        doors.start_soon(self.shelf.queue.run)
        await self.rpc.start()
        await becomes_true(lambda: self.rest.started and bool(self.shelf.queue.tunings))

    def close(self) -> None:
        self.plug.pulled.set()
        self.rest.stop()
        self.shelf.queue.close()

    async def call(self, door: str, picture: int) -> Caller:
        caller = Caller(picture)
        self._tasks.start_soon(self._over_rest if door == "rest" else self._over_grpc, caller)
        return caller

    async def _over_rest(self, caller: Caller) -> None:
        with anyio.CancelScope() as scope:
            caller.leave = scope.cancel
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.rest.port}", timeout=PATIENCE_S
            ) as rest:
                url = f"/v1/models/{MODEL}/classify"
                response = await rest.post(url, content=picture_of(caller.picture), params={"top_k": 2})
                assert response.status_code == 200, response.text
                (scored, _) = response.json()["results"][0]["classes"]
                caller.answered = self.shelf.number_in(scored["score"])

    async def _over_grpc(self, caller: Caller) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.rpc.port}") as channel:
            request = wire.ClassifyRequest(model=MODEL, images=[picture_of(caller.picture)], top_k=2)
            call = ClassifierStub(channel).Classify(request)
            caller.leave = call.cancel
            with suppress(asyncio.CancelledError):  # of gRPC's own making, which anyio does not know
                answer = await call
                caller.answered = self.shelf.number_in(answer.results[0].classes[0].score)

    @property
    def in_progress(self) -> int:
        return sum(self.journal.in_progress.values())

    @property
    def asking(self) -> int:
        return sum(len(errand.askers) for errand in self.sharing._errands.values())

    @property
    def waiting_to_decode(self) -> int:
        return self.decoder._limiter.statistics().tasks_waiting

    async def hold_the_decoder(self) -> None:
        spec = BUNDLE.manifest.preprocessing
        self._tasks.start_soon(self.decoder.decode, [self.plug], spec, lambda _place, _fault: None)
        await becomes_true(lambda: self.decoder._limiter.borrowed_tokens == 1)

    async def hold_the_engine(self) -> None:
        await self.call("rest", 9)
        await self.engine.begun(1)

    async def hold_nothing(self) -> None:
        """The engine does not answer before it is let through."""

    def let_go(self) -> None:
        self.plug.pulled.set()
        self.engine.let_through(100)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as doors:
            async with anyio.create_task_group() as tasks:
                opened = Site(tasks)
                await opened.open(doors)
                try:
                    yield opened
                    opened.let_go()
                    await becomes_true(lambda: opened.in_progress == 0)
                finally:
                    opened.close()
            await opened.rpc.close(0)
    assert len(opened.sharing) == 0
    assert opened.uploads.held_bytes == 0


Hold = Callable[[Site], Awaitable[None]]
HOLDS: list[Hold] = [Site.hold_the_decoder, Site.hold_the_engine, Site.hold_nothing]
doors = pytest.mark.parametrize("door", ["rest", "grpc"])
holds = pytest.mark.parametrize("hold", HOLDS, ids=["waits to be decoded", "waits for the engine", "runs"])


def codes(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.fields["code"] for record in log.records if record.getMessage() == "request"]


@doors
@holds
async def test_of_a_caller_that_leaves_nothing_is_done_that_has_not_begun(
    door: str, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cardinal.request")
    async with site() as opened:
        await hold(opened)
        held = opened.in_progress
        before = await opened.call("rest", 2)
        await becomes_true(lambda: opened.asking == held + 1)
        gone = await opened.call(door, 1)
        await becomes_true(lambda: opened.asking == held + 2)
        after = await opened.call("grpc", 3)
        await becomes_true(lambda: opened.asking == held + 3)
        waiting = {
            Site.hold_the_decoder: lambda: opened.waiting_to_decode,
            Site.hold_the_engine: lambda: opened.shelf.queue.waiting_rows,
        }.get(hold)
        if waiting:
            await becomes_true(lambda: waiting() == 3)

        gone.leave()
        await becomes_true(lambda: opened.in_progress == held + 2)
        assert codes(caplog) == ["CANCELLED"]
        if waiting:
            assert waiting() == 2  # while nothing has gone on
        opened.let_go()
        await becomes_true(lambda: opened.in_progress == 0)
    assert gone.answered is None
    assert (before.answered, after.answered) == (2, 3)
    assert opened.engine.ran.count(1) <= (1 if hold is Site.hold_nothing else 0)
    assert (opened.engine.ran.count(2), opened.engine.ran.count(3)) == (1, 1)


@doors
@holds
@pytest.mark.parametrize("leaves", ["the first", "the second"])
async def test_of_two_with_the_same_picture_the_other_is_answered_whichever_leaves(
    door: str, hold: Hold, leaves: str
) -> None:
    async with site() as opened:
        await hold(opened)
        held = opened.in_progress
        first = await opened.call(door, 1)
        await becomes_true(lambda: opened.asking == held + 1)
        second = await opened.call("grpc" if door == "rest" else "rest", 1)
        await becomes_true(lambda: opened.asking == held + 2)
        gone, stays = (first, second) if leaves == "the first" else (second, first)
        if hold is Site.hold_nothing:
            await opened.engine.begun(1)
        gone.leave()
        await becomes_true(lambda: opened.in_progress == held + 1)
        opened.let_go()
        await becomes_true(lambda: opened.in_progress == 0)
    assert (gone.answered, stays.answered) == (None, 1)
    is_run_again = hold is Site.hold_nothing and leaves == "the first"
    assert opened.engine.ran.count(1) == 1 + is_run_again


async def test_nothing_is_left_of_a_crowd_that_leaves_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cardinal.request")
    async with site() as opened:
        await opened.hold_the_engine()
        callers = [await opened.call(door, picture) for door in ("rest", "grpc") for picture in (1, 1, 2, 3)]
        await becomes_true(lambda: opened.asking == 9)
        for caller in callers:
            caller.leave()
        await becomes_true(lambda: opened.in_progress == 1)
        await becomes_true(lambda: opened.shelf.queue.waiting_rows == 0)
        assert codes(caplog) == ["CANCELLED"] * 8
        opened.let_go()
    assert opened.engine.ran == [9]
