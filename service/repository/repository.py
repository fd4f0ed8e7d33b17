"""Turns a directory of bundles into served models: scan, load the newest version of each, say how each one is."""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskStatus
from anyio.to_thread import run_sync

from service.bell import Bell
from service.errors import ModelNotFound, ModelNotReady, ServiceError, quoted
from service.logs import fields
from service.metrics import Metrics
from service.repository.bundle import BundleError, load_bundle
from service.repository.curves import CurveStore
from service.repository.lineup import ServingOptions
from service.repository.model import ServedModel
from service.repository.profiler import Profiler

_log = logging.getLogger("cardinal.repository")

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_LOADS_AT_ONCE = 2  # each takes the memory of a whole model while it compiles
_NAMES_IN_AN_ERROR = 10


class RepositoryError(Exception):
    """The repository as a whole cannot be read."""


@dataclass(slots=True, kw_only=True)
class Slot:
    """A model of the repository, in whatever state it is."""

    model: str
    version: str  # the newest; "" where the directory holds none
    directory: Path  # of the version
    served: ServedModel | None = None
    failure: str | None = None
    tasks: anyio.CancelScope = field(default_factory=anyio.CancelScope)  # around all that serves it

    @property
    def is_loading(self) -> bool:
        """Tell whether it may yet become ready."""
        return self.served is None and self.failure is None

    @property
    def is_ready(self) -> bool:
        """Tell whether a request would be answered now."""
        return self.served is not None and self.served.is_ready

    def readiness(self) -> float:
        """Give readiness as a metric."""
        return float(self.is_ready)

    @property
    def reason(self) -> str:
        """Say why it is not ready, in a sentence; empty where it is."""
        if self.is_ready:
            return ""
        if self.failure is not None:
            return self.failure
        if self.served is None:
            return "it is being loaded"
        return self.served.trouble or "its engine is being started again"


class Repository:
    """The models of one directory. `run` serves them; nothing else changes them."""

    def __init__(self, directory: Path, options: ServingOptions, metrics: Metrics, bell: Bell) -> None:
        self._options, self._metrics, self._bell = options, metrics, bell
        self._profiler = Profiler(CurveStore(options.state_folder), options.profile_s)
        self._slots = {slot.model: slot for slot in _scan(directory)}
        self._loading = anyio.Semaphore(_LOADS_AT_ONCE)

    @property
    def slots(self) -> list[Slot]:
        """All models, by name."""
        return list(self._slots.values())

    def slot(self, model: str, version: str | None = None) -> Slot:
        """Find a model in any state.

        Raises:
            ModelNotFound: there is no such model, or not this version.
        """
        slot = self._slots.get(model)
        if slot is None:
            names = list(self._slots)
            there = ", ".join(names[:_NAMES_IN_AN_ERROR]) + (
                ", ..." if len(names) > _NAMES_IN_AN_ERROR else ""
            )
            raise ModelNotFound(f"there is no model {quoted(model)}; there is {there or 'none at all'}")
        if version is not None and version != slot.version:
            raise ModelNotFound(
                f"model {model} has no version {quoted(version)}; {slot.version or 'none'} is served"
            )
        return slot

    def find(self, model: str, version: str | None = None) -> ServedModel:
        """Find a model that can answer, if only after its engine has been started again.

        Raises:
            ModelNotFound: there is no such model, or not this version.
            ModelNotReady: it is there, but cannot serve; the sentence says why.
        """
        slot = self.slot(model, version)
        if slot.served is None or slot.served.trouble:
            raise ModelNotReady(f"model {model} is not ready: {slot.reason}")
        return slot.served

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Load and serve all models until close(); started at once, before any is loaded."""
        async with anyio.create_task_group() as models:
            for slot in self._slots.values():
                gauge = self._metrics.model_ready.labels(slot.model, slot.version)
                gauge.set_function(slot.readiness)
                if slot.failure is None:
                    models.start_soon(self._serve, slot)
                else:
                    _say_failed(slot)
            task_status.started()

    def close(self) -> None:
        """Take no more requests; run() returns when the accepted ones are answered."""
        for slot in self._slots.values():
            if slot.served is None:
                slot.tasks.cancel()
            else:
                slot.served.queue.close()

    def cut_off(self) -> None:
        """Answer the accepted requests with an error, at once, and wait for no engine."""
        for slot in self._slots.values():
            if slot.served is not None:
                slot.served.queue.cut_off()
            slot.tasks.cancel()

    async def _serve(self, slot: Slot) -> None:
        try:
            with slot.tasks:
                await self._load_and_serve(slot)
        except* (BundleError, ServiceError) as group:
            slot.failure = "; ".join(_sentences(group))
            _say_failed(slot)
        except* Exception:  # noqa: BLE001 - a fault of ours at one model must not take the others down
            _log.exception("unforeseen_error", extra=fields(model=slot.model, version=slot.version))
            slot.failure = "an unforeseen error while it was served; the log has it"
        finally:
            slot.served = None
            slot.failure = slot.failure or "it has been stopped"
            self._bell.ring()

    async def _load_and_serve(self, slot: Slot) -> None:
        async with anyio.create_task_group() as tasks:
            async with self._loading:
                bundle = await run_sync(load_bundle, slot.directory)
                served = ServedModel(bundle, self._options, self._profiler, self._metrics, self._bell)
                await tasks.start(served.serve)
            self._say_ready(slot, served)

    def _say_ready(self, slot: Slot, served: ServedModel) -> None:
        slot.served = served
        self._bell.ring()
        about = served.about
        untrained = str(served.bundle.manifest.provenance.untrained).lower()
        _log.info(
            "model_ready",
            extra=fields(model=slot.model, version=slot.version, engine=about, untrained=untrained),
        )


def _say_failed(slot: Slot) -> None:
    _log.error(
        "model_failed",
        extra=fields(model=slot.model, version=slot.version, path=slot.directory, error=slot.failure),
    )


def _scan(directory: Path) -> list[Slot]:
    """List the models; hidden entries are bundles that are still being published."""
    try:
        entries = sorted(entry for entry in directory.iterdir() if entry.is_dir() and entry.name[0] != ".")
        return [_newest(entry) for entry in entries if _is_model(entry)]
    except OSError as error:
        raise RepositoryError(f"model repository {directory}: {error.strerror}") from error


def _is_model(directory: Path) -> bool:
    """Pass over what volumes bring along, such as lost+found, but say so."""
    if MODEL_NAME.fullmatch(directory.name):
        return True
    _log.warning("directory_ignored", extra=fields(path=directory, reason=f"a name is {MODEL_NAME.pattern}"))
    return False


def _newest(directory: Path) -> Slot:
    name = directory.name
    try:
        folders = [entry.name for entry in directory.iterdir() if entry.is_dir()]
    except OSError as error:
        reason = f"{directory}: {error.strerror}"
        return Slot(model=name, version="", directory=directory, failure=reason)
    versions = [int(name) for name in folders if _VERSION.fullmatch(name)]
    if not versions:
        reason = f"{directory}: holds no version, a directory named by a positive integer"
        return Slot(model=name, version="", directory=directory, failure=reason)
    version = str(max(versions))
    return Slot(model=name, version=version, directory=directory / version)


def _sentences(group: BaseExceptionGroup[BaseException]) -> list[str]:
    sentences: list[str] = []
    for error in group.exceptions:
        sentences += _sentences(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return sentences
