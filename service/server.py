"""Builds every object, starts and stops them in order. The only file that knows them all.

start: ports are taken, models load: live at once, ready when they are verified
stop:  SIGTERM -> not ready, but requests are still taken for a moment -> doors close, accepted requests are
       answered -> queues end -> engines end -> exit code 0; a second signal ends it at once
"""

import gc
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp

from service.batching import Bounds
from service.bell import Bell
from service.cache import AnswerCache
from service.decoding import Decoder, give_large_pictures_back
from service.engines import LiteOptions, SimulatedOptions
from service.gate import Gate
from service.health import Health
from service.inference import Inference
from service.journal import Journal
from service.latency_tables import TABLES
from service.logs import fields
from service.machine import Machine, python_with_lite
from service.metrics import Metrics
from service.repository import Repository, RepositoryError, ServingOptions
from service.rest import HttpListener, RestDoor, build_app, build_control_app
from service.rpc import Classifier, RpcServer
from service.settings import MIB, Settings, parse_faults
from service.sharing import Sharing
from service.uploads import BodyLimits, Uploads

_log = logging.getLogger("cardinal.server")


class CannotStart(Exception):
    """The server cannot start; the message says why."""


def run_server(settings: Settings, *, is_check: bool = False) -> list[str]:
    """Serve until a signal ends it, or only check; return why the server would not be ready.

    Raises:
        CannotStart: a port is taken, or the repository cannot be read.
    """
    options = serving_options(settings, Machine.look())

    async def work() -> list[str]:
        server = Server(settings, options)
        if is_check:
            return await server.check()
        await server.run()
        return []

    give_large_pictures_back()
    gc.freeze()  # what is imported stays: looking through it for garbage would stop everything for 50 ms
    return anyio.run(work, backend_options={"use_uvloop": True})


class Server:
    """A whole server. Made inside the event loop; `run` serves until a signal ends it, `check` takes no port."""

    def __init__(self, settings: Settings, options: ServingOptions) -> None:
        self._settings = settings
        self._bell = Bell()
        self._metrics = Metrics()
        try:
            self._repository = Repository(settings.model_repository, options, self._metrics, self._bell)
        except RepositoryError as error:
            raise CannotStart(str(error)) from error
        self._health = Health(self._repository, settings.required_names, self._bell)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order.

        Each block below outlives what is inside it: leaving one waits until all its tasks are through.

        Raises:
            CannotStart: a port is taken, which is known before anything is loaded.
        """
        self._take_ports()
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with anyio.create_task_group() as life, self._rpc:
                async with anyio.create_task_group() as models:
                    await models.start(self._repository.run)
                    async with anyio.create_task_group() as control:
                        control.start_soon(self._control.run_until_stopped)
                        async with anyio.create_task_group() as doors:
                            await self._open(doors)
                            life.start_soon(self._announce)
                            await self._wait_for_the_end(signals, life)
                            self._close(doors, life)
                        self._repository.close()
                        self._control.stop()
                life.cancel_scope.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # one more would only spoil the exit code
        _log.info("stopped")

    async def check(self) -> list[str]:
        """Load and verify all models without listening; return why the server would not be ready."""
        async with anyio.create_task_group() as models:
            await models.start(self._repository.run)
            while any(slot.is_loading for slot in self._repository.slots):
                await self._bell.wait()
            reasons = self._health.reasons()
            self._repository.close()
        return reasons

    def _take_ports(self) -> None:
        settings = self._settings
        decoder = Decoder(threads=settings.threads_to_decode, max_pixels=settings.max_image_pixels)
        cache = AnswerCache(max_bytes=settings.cache_mib * MIB, metrics=self._metrics)
        inference = Inference(
            self._repository,
            decoder,
            Sharing(cache, self._metrics),
            max_images=settings.max_images,
            longest_s=settings.request_timeout_s,
        )
        self._journal = Journal(self._metrics, max_requests=settings.max_requests)
        limits = BodyLimits(
            max_bytes=settings.max_body_bytes,
            max_images=settings.max_images,
            max_upload_bytes=settings.max_upload_bytes,
        )
        self._uploads = Uploads(limits)
        self._rest = self._rest_listener(inference)
        self._control = self._control_listener()
        self._rpc = self._rpc_server(inference)

    async def _open(self, doors: TaskGroup) -> None:
        doors.start_soon(self._rest.run_until_stopped)
        await self._rpc.start()
        host = _bracketed(self._settings.host)
        _log.info(
            "listening",
            extra=fields(
                rest=self._page,
                grpc=f"{host}:{self._rpc.port}",
                control=f"http://{host}:{self._control.port}",
            ),
        )

    @property
    def _page(self) -> str:
        return f"http://{_bracketed(self._settings.host)}:{self._rest.port}"

    async def _wait_for_the_end(self, signals: AsyncIterator[signal.Signals], life: TaskGroup) -> None:
        """Return when no more requests are to be taken."""
        first = await anext(signals)
        life.start_soon(self._force_at_next, signals, life)
        self._health.begin_to_stop()
        _log.info("stopping", extra=fields(signal=first.name))
        if first == signal.SIGTERM:  # not for Ctrl-C: no load balancer has to learn of it
            await anyio.sleep(self._settings.lame_duck_s)

    def _close(self, doors: TaskGroup, life: TaskGroup) -> None:
        self._health.end()
        self._rest.stop()
        doors.start_soon(self._rpc.close, self._settings.drain_timeout_s)
        life.start_soon(self._cut_off)

    async def _cut_off(self) -> None:
        """Answer what is left with an error when the time to drain is over."""
        await anyio.sleep(self._settings.drain_timeout_s)
        self._journal.cut_off()
        self._repository.cut_off()

    async def _force_at_next(self, signals: AsyncIterator[signal.Signals], life: TaskGroup) -> None:
        second = await anext(signals)
        _log.warning("forced", extra=fields(signal=second.name))
        life.cancel_scope.cancel()

    async def _announce(self) -> None:
        """Log each change of readiness."""
        was_ready = False
        while True:
            if self._health.is_ready != was_ready:
                was_ready = not was_ready
                if was_ready:
                    _log.info("ready", extra=fields(models=len(self._repository.slots), page=self._page))
                else:
                    _log.warning("not_ready", extra=fields(reasons=self._health.reasons()))
            await self._bell.wait()

    def _rest_listener(self, inference: Inference) -> HttpListener:
        settings = self._settings
        door = RestDoor(inference, self._repository, self._health, self._journal, self._uploads)
        answers = Gate()
        return self._listener(
            build_app(door, self._health, answers), answers, "rest_port", settings.rest_port
        )

    def _control_listener(self) -> HttpListener:
        app = build_control_app(self._health, self._metrics.registry)
        return self._listener(app, Gate(), "control_port", self._settings.control_port)

    def _listener(self, app: ASGIApp, answers: Gate, name: str, port: int) -> HttpListener:
        host, limit_s = self._settings.host, self._settings.drain_timeout_s
        try:
            return HttpListener(app, host, port, answers, drain_timeout_s=limit_s)
        except OSError as error:
            raise CannotStart(f"{name} is {port}: cannot listen on {host}: {error.strerror}") from error

    def _rpc_server(self, inference: Inference) -> RpcServer:
        settings = self._settings
        classifier = Classifier(inference, self._journal, self._uploads)
        address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
        try:
            return RpcServer(
                classifier, self._health, self._repository, address=address, max_bytes=settings.max_body_bytes
            )
        except RuntimeError as error:
            raise CannotStart(f"grpc_port is {settings.grpc_port}: cannot listen on {address}") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def serving_options(settings: Settings, machine: Machine) -> ServingOptions:
    """Give the repository its part of the settings."""
    state = settings.state_directory
    config = settings.mindspore_lite_config
    return ServingOptions(
        engine=settings.engine,
        devices=settings.chosen_devices,
        machine=machine,
        engine_threads=settings.engine_threads,
        pins_threads={"auto": None, "on": True, "off": False}[settings.engine_pinning],
        load_timeout_s=settings.load_timeout_s,
        engine_timeout_s=settings.engine_timeout_s,
        max_batch_rows=settings.max_batch_rows,
        bounds=Bounds(max_rows=settings.max_queued_rows, max_device_s=settings.max_queued_s),
        profile_s=settings.profile_s,
        state_folder=state,
        max_image_pixels=settings.max_image_pixels,
        openvino_precision=settings.openvino_precision,
        openvino_cache=state and state / "openvino",
        lite=LiteOptions(
            precision=settings.ascend_precision,
            config_file=None if config == "none" else Path(config),
            allows_uncompiled=settings.ascend_uncompiled == "allow",
        ),
        lite_python=python_with_lite(settings.mindspore_lite_python),
        ascend_target=None if settings.ascend_target == "auto" else settings.ascend_target,
        simulated=SimulatedOptions(
            table=settings.simulated_table,
            latency_s=TABLES[settings.simulated_table],
            jitter=settings.simulated_jitter,
            faults=parse_faults(settings.simulated_faults),
        ),
    )
