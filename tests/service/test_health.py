import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from grpc_health.v1 import health_pb2

from options import serving_options
from patience import PATIENCE_S
from service.bell import Bell
from service.health import Health
from service.metrics import Metrics
from service.repository import Repository
from service.rpc.health import HealthService
from serving import UNTRAINED

pytestmark = pytest.mark.anyio

UNTRAINED_BUNDLE = UNTRAINED / "sknet50" / "1"

SIMULATED = serving_options("simulated")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Make a repository with a model that serves and one that does not."""
    shutil.copytree(UNTRAINED_BUNDLE, tmp_path / "good/1")
    (tmp_path / "bad/1").mkdir(parents=True)
    return tmp_path


def health_of(directory: Path, required: Iterable[str] | None) -> tuple[Health, Repository]:
    bell = Bell()
    repository = Repository(directory, SIMULATED, Metrics(), bell)
    return Health(repository, None if required is None else frozenset(required), bell), repository


@asynccontextmanager
async def watched(directory: Path, required: Iterable[str] | None) -> AsyncIterator[Health]:
    """Serve the repository; its models are loading when the block begins."""
    health, repository = health_of(directory, required)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(repository.run)
            yield health
            repository.close()


async def until(health: Health, reasons: list[str]) -> None:
    """Wait for these reasons; only the bell wakes us, so a change without a ring is noticed."""
    while health.reasons() != reasons:
        await health.bell.wait()
    assert health.is_ready == (not reasons)


BAD = "model bad: model.json: No such file or directory"
LOADING = "model good: it is being loaded"


async def test_without_a_choice_all_models_are_required(directory: Path) -> None:
    async with watched(directory, None) as health:
        assert health.reasons() == ["model bad: it is being loaded", LOADING]
        await until(health, [BAD])
    shutil.rmtree(directory / "bad")
    async with watched(directory, None) as health:
        await until(health, [LOADING])
        await until(health, [])


async def test_only_the_models_that_are_named_are_required(directory: Path) -> None:
    async with watched(directory, ["good"]) as health:
        assert health.reasons() == [LOADING]
        await until(health, [])


async def test_a_model_that_is_named_but_not_there_keeps_the_server_from_being_ready(directory: Path) -> None:
    async with watched(directory, ["good", "cats"]) as health:
        await until(health, ["model cats: it is not in the repository"])


async def test_where_no_model_is_required_the_server_is_ready_at_once(directory: Path) -> None:
    async with watched(directory, []) as health:
        assert health.is_ready
    for model in ("good", "bad"):
        shutil.rmtree(directory / model)
    async with watched(directory, []) as health:
        assert health.is_ready


async def test_an_empty_repository_is_not_ready(tmp_path: Path) -> None:
    health, _ = health_of(tmp_path, None)
    assert health.reasons() == ["the repository holds no model"]
    assert not health.is_ready


async def test_readiness_is_lost_with_the_engine_and_comes_back_with_it(directory: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    async with watched(directory, ["good"]) as health:
        await until(health, [])
        (child,) = {child.pid for child in psutil.Process().children()} - before
        os.kill(child, signal.SIGKILL)
        await until(health, ["model good: its engine is being started again"])
        await until(health, [])


async def test_a_server_that_stops_is_not_ready_whatever_its_models_are(directory: Path) -> None:
    async with watched(directory, ["good"]) as health:
        await until(health, [])
        assert not health.is_stopping
        health.begin_to_stop()
        assert health.is_stopping
        assert health.reasons() == ["the server is stopping"]
        assert not health.is_ready


async def test_the_bell_rings_when_the_stop_begins_and_when_those_who_watch_should_go(tmp_path: Path) -> None:
    health, _ = health_of(tmp_path, None)
    heard: list[tuple[bool, bool]] = []

    async def listen() -> None:
        while not health.is_over:
            await health.bell.wait()
            heard.append((health.is_stopping, health.is_over))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            health.begin_to_stop()
            await anyio.lowlevel.checkpoint()
            health.end()
    assert heard == [(True, False), (True, True)]


async def test_a_watcher_is_told_of_a_stop_that_is_over_before_it_looks(tmp_path: Path) -> None:
    health, repository = health_of(tmp_path, [])
    service, asked = HealthService(health, repository, frozenset({""})), health_pb2.HealthCheckRequest()
    early = service.Watch(asked, None)
    with anyio.fail_after(PATIENCE_S):
        assert (await anext(early)).status == health_pb2.HealthCheckResponse.SERVING
        health.begin_to_stop()
        health.end()
        for watch in (early, service.Watch(asked, None)):
            assert [told.status async for told in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_a_bell_wakes_all_who_wait_and_nobody_who_comes_later() -> None:
    bell, woken = Bell(), list[int]()

    async def wait(number: int) -> None:
        await bell.wait()
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        bell.ring()
        for number in (1, 2):
            tasks.start_soon(wait, number)
        await anyio.lowlevel.checkpoint()
        assert woken == []
        bell.ring()
        tasks.start_soon(wait, 3)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert sorted(woken) == [1, 2]
        tasks.cancel_scope.cancel()
