"""One engine for as long as its model is served: a loaded process, and another one after a fault."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio
from anyio.abc import TaskStatus

from service.bell import Bell
from service.engines.curve import Curve
from service.engines.order import EngineOrder
from service.engines.process import BatchAnswer, EngineProcess, NotBegun, Refused
from service.errors import EngineFault
from service.logs import fields
from service.metrics import Metrics
from service.tensors import Rows

_log = logging.getLogger("cardinal.engine")

FAILURES_BEFORE_TROUBLE = 3
REFUSALS_BEFORE_RESTART = 3
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_DOUBLINGS = 10  # more would overflow in the end
_LAST_LINES_S = 0.5


Proof: TypeAlias = Callable[[EngineProcess], Awaitable[Curve]]


class Engine:
    """Runs batches in a process that `serve` keeps alive. Each process is proven before it gets any.

    It is given the ways to run its model, the best one first; another one is taken only where one is refused.
    One that stands in for others is wanted only while they are not ready.
    While a process is being started again, `is_ready` is false and `ready()` waits. `trouble` is the reason once
    several processes in a row have not started, or failed at a batch, and none was answered meanwhile; further ones
    are still tried, after pauses that grow. The bell rings whenever this changes.
    """

    def __init__(
        self,
        ways: Sequence[EngineOrder],
        metrics: Metrics,
        bell: Bell,
        prove: Proof,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.about = ""
        self.trouble: str | None = None
        self._order, *self._other_ways = ways
        self._bell, self._prove, self._is_wanted = bell, prove, is_wanted
        self._process: EngineProcess | None = None
        self._failures = 0  # of processes, since a batch was answered
        self._refusals = 0  # of the last batches
        self._curve: Curve | None = None
        labels = (self._order.model, self._order.version, self.device)
        self._restarts = metrics.engine_restarts.labels(*labels)
        metrics.engine_ready.labels(*labels).set_function(lambda: float(self.is_ready))

    @property
    def device(self) -> str:
        """What it runs on, as logs and metrics name it."""
        return str(self._order.device)

    @property
    def curve(self) -> Curve:
        """How long its batches take, as it was proven; known once it has been ready."""
        if self._curve is None:
            raise ValueError("an engine has no curve before its first process is proven")
        return self._curve

    @property
    def is_ready(self) -> bool:
        """Tell whether a loaded process is there, and wanted."""
        return self._process is not None and self._is_wanted()

    async def ready(self) -> None:
        """Wait until a loaded process is there, and wanted."""
        while not self.is_ready:
            await self._bell.wait()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep a proven process until cancelled; started once the first one is there.

        Raises:
            EngineFault: the first process refused, or several ended before they were ready.
        """
        has_lived = False
        while True:
            try:
                fault = await self._live(task_status)
                task_status, has_lived = anyio.TASK_STATUS_IGNORED, True
            except EngineFault as error:
                fault = str(error)
                self._failures += 1
                is_hopeless = isinstance(error, Refused) or self._failures == FAILURES_BEFORE_TROUBLE
                if is_hopeless and not has_lived:
                    self._take_another_way(error)
                    self._failures = 0
                    continue
            if self._failures >= FAILURES_BEFORE_TROUBLE:
                self.trouble = f"its engine failed {self._failures} times in a row: {fault}"
                self._bell.ring()
            pause_s = min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2 ** min(self._failures, _DOUBLINGS))
            _log.warning("engine_restart", extra=self._fields(fault=fault, pause_s=pause_s))
            await anyio.sleep(pause_s)
            self._restarts.inc()

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float | None = None) -> BatchAnswer:
        """Run one batch. Never waits for a process: that is `ready`, while the rows may still be given to others.

        Raises:
            EngineFault: the batch failed.
            NotBegun: there is no process, it is not wanted, or it was gone before it took the batch.
        """
        process = self._process
        if process is None or not self._is_wanted():
            raise NotBegun
        try:
            answer = await process.run(batch, gear, expected_s)
        except EngineFault as error:
            self._count_fault(process, error)
            raise
        finally:
            if process.is_lost:
                self._lose(process)
        self._refusals = self._failures = 0
        return answer

    async def _live(self, task_status: TaskStatus[None]) -> str:
        """Live one life of a process; return how it ended, or raise EngineFault if it never loaded."""
        process = EngineProcess.start(self._order)
        fault: EngineFault | None = None
        how = ""
        async with anyio.create_task_group() as group:
            group.start_soon(process.log_output)
            try:
                await process.load()
                self._gain(process, await self._prove(process))
                task_status.started()
                how = await process.ended()
            except EngineFault as error:  # kept until the group is closed, which would wrap it
                fault = error
            except NotBegun:
                fault = EngineFault("the engine process ended before it was proven")
            finally:
                self._lose(process)
                await process.end()
                # Its last lines are read; a grandchild that holds the pipe open is not waited for.
                group.cancel_scope.deadline = anyio.current_time() + _LAST_LINES_S
        if fault is not None:
            raise fault
        return how

    def _take_another_way(self, error: EngineFault) -> None:
        """Go on with the next order, or raise the error where there is none."""
        if not self._other_ways:
            self.trouble = str(error)
            self._bell.ring()
            raise error
        refused, self._order = self._order, self._other_ways.pop(0)
        _log.info(
            "engine_way_refused",
            extra=self._fields(
                refused=str(refused.options), taken=str(self._order.options), reason=str(error)
            ),
        )

    def _count_fault(self, process: EngineProcess, error: EngineFault) -> None:
        """Count the processes that were lost; end one that answers, but has not run one of the last batches."""
        self._refusals += isinstance(error, Refused)
        if self._refusals == REFUSALS_BEFORE_RESTART:
            _log.warning("engine_useless", extra=self._fields(refusals=self._refusals, fault=str(error)))
            process.kill()
        self._failures += process.is_lost

    def _gain(self, process: EngineProcess, curve: Curve) -> None:
        self.about, self.trouble, self._process, self._curve = process.about, None, process, curve
        self._bell.ring()
        self._refusals = 0
        _log.info("engine_loaded", extra=self._fields(engine=process.about, pid=process.pid))

    def _lose(self, process: EngineProcess) -> None:
        if self._process is process:
            self._process = None
            self._bell.ring()

    def _fields(self, **values: object) -> dict[str, object]:
        return fields(model=self._order.model, version=self._order.version, device=self.device, **values)
