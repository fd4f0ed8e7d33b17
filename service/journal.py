"""Accounts for each request: its id, its log line, its metrics. Both doors write here, and nowhere else.

door -> Journal.entry() -> Entry, filled in on the way -> one log line, one count, one time
"""

import asyncio
import logging
import re
import time
import uuid
from types import TracebackType
from typing import Literal, Self

import anyio

from service.errors import ClientGone, InternalError, Overloaded, ServiceError, Stopping
from service.logs import fields, request_id
from service.metrics import Metrics

Door = Literal["rest", "grpc"]

_log = logging.getLogger("cardinal.request")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Journal:
    """Opens one entry for each request, and refuses those above the limit of their door."""

    def __init__(self, metrics: Metrics, *, max_requests: int) -> None:
        self.metrics = metrics
        self.max_requests = max_requests
        self.in_progress: dict[Door, int] = {"rest": 0, "grpc": 0}
        self.scopes: set[anyio.CancelScope] = set()

    def entry(self, door: Door, proposed_id: str | None) -> "Entry":
        """Make the entry of a request that has just arrived."""
        return Entry(self, door, choose_id(proposed_id))

    def cut_off(self) -> None:
        """End every request in progress with Stopping, whatever it waits for."""
        for scope in self.scopes:
            scope.cancel()


def choose_id(proposed: str | None) -> str:
    """Keep a caller's own request id if it is harmless in logs and headers, or make one."""
    return proposed if proposed and _ID.fullmatch(proposed) else uuid.uuid4().hex


class Entry:
    """What is known of one request. Used as a context manager around all that answers it.

    Whatever leaves the block is a ServiceError or a cancellation: anything else is logged with its trace and
    becomes an InternalError.
    """

    def __init__(self, journal: Journal, door: Door, id: str) -> None:  # noqa: A002 - it is the id
        self.id = id
        self.model = ""  # only ever the name of a served model, so that metric labels stay bounded
        self.version = ""
        self.images = 0
        self._journal, self._door = journal, door
        self._scope = anyio.CancelScope()
        self._started = time.monotonic()
        request_id.set(id)  # each request runs in a task, and so in a context, of its own

    @property
    def seconds(self) -> float:
        """How long ago the request arrived."""
        return time.monotonic() - self._started

    def __enter__(self) -> Self:
        in_progress, limit = self._journal.in_progress, self._journal.max_requests
        if in_progress[self._door] >= limit:
            error = Overloaded(f"{limit} requests are in progress; no more are taken for now")
            self._write(error.code, error)
            raise error
        self._count(+1)
        self._journal.scopes.add(self._scope)
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_cut_off = self._scope.__exit__(kind, error, trace)
        self._journal.scopes.discard(self._scope)
        self._count(-1)
        if is_cut_off:
            stopping = Stopping("the server stopped before the answer was there")
            self._write(stopping.code, stopping)
            raise stopping
        match error:
            case None:
                self._write("OK", None)
            case ServiceError():
                self._write(error.code, error)
            case asyncio.CancelledError():
                self._write(ClientGone.code, None)
            case Exception():
                _log.error("unforeseen_error", exc_info=error)
                hidden = InternalError(f"an unforeseen error; the log has it under request id {self.id}")
                self._write(hidden.code, hidden)
                raise hidden from error

    def _count(self, change: int) -> None:
        self._journal.in_progress[self._door] += change
        gauge = self._journal.metrics.requests_in_progress.labels(self._door)
        gauge.set(self._journal.in_progress[self._door])

    def _write(self, code: str, error: ServiceError | None) -> None:
        seconds = self.seconds
        metrics = self._journal.metrics
        metrics.requests.labels(self.model, self.version, self._door, code).inc()
        metrics.request_seconds.labels(self.model, self.version, self._door).observe(seconds)
        _log.info(
            "request",
            extra=fields(
                door=self._door,
                code=code,
                model=self.model,
                version=self.version,
                images=self.images,
                seconds=round(seconds, 6),
                error="" if error is None else str(error),
            ),
        )
