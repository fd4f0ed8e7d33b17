"""Measures images a second: through queue and engine process with rows that are decoded already, and in plain loops.

They have their turns one after the other, each as often first as last, so that whatever else the machine does hits
all of them.
"""

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import anyio
import numpy as np
from anyio.streams.text import TextReceiveStream

from service.batching import BatchQueue, Bounds, QueuePolicy, Urgency
from service.bell import Bell
from service.engines import Curve, Engine, EngineOrder, EngineProcess, OpenvinoOptions, measure
from service.errors import EngineFault
from service.metrics import Metrics

PLAIN, SERVED, OTHER = "plain loop", "queue and engine process", "onnxruntime f32, plain loop"

_BARE = Path(__file__).with_name("bare.py")
_TURNS = 8
_CALLERS_A_ROW = 4  # for each row of a batch: so many that a full one always waits
_ROWS = 64  # that are told apart
_LONGEST_S = 3600.0
_PROFILE_SHARE = 0.2  # of the whole time, to find the best batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was done in one turn."""

    images: int
    seconds: float


Runner: TypeAlias = Callable[[float], Awaitable[Turn]]  # runs images for so many seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was done each way; the plain loop of the same library is among them."""

    about: str
    turns: dict[str, list[Turn]]

    def __str__(self) -> str:
        lines = [self.about, f"{'':28}{'images/s':>10}"]
        for name in self.turns:
            share = 100 * self.images_a_s(name) / self.images_a_s(PLAIN)
            lines.append(f"{name:28}{self.images_a_s(name):10.2f}{share:8.1f} %")
        if OTHER in self.turns:
            times = self.images_a_s(SERVED) / self.images_a_s(OTHER)
            lines.append(f"served at {times:.2f} times the pace of onnxruntime f32")
        else:
            lines.append("onnxruntime is not installed, and left out")
        return "\n".join(lines)

    def images_a_s(self, name: str) -> float:
        """Tell the pace of one way over all its turns."""
        turns = self.turns[name]
        return sum(turn.images for turn in turns) / sum(turn.seconds for turn in turns)


async def pace(order: EngineOrder, seconds: float) -> Pace:
    """Run a model of OpenVINO each way, `seconds` in all, with batches of the gear that is best here.

    Raises:
        EngineFault: the engine or a loop failed.
    """
    try:
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(_serving(order, seconds * _PROFILE_SHARE))
            runners: dict[str, Runner] = {
                PLAIN: await stack.enter_async_context(_looping(order, "openvino", served.gear)),
                SERVED: served.run,
            }
            if find_spec("onnxruntime"):
                runners[OTHER] = await stack.enter_async_context(_looping(order, "onnxruntime", served.gear))
            turns = await _in_turns(runners, seconds)
    except ExceptionGroup as group:
        raise _fault_in(group) from group
    threads = f"{order.threads} threads" if order.threads else "as many threads as it likes"
    about = f"{order.model}, {served.about}, {threads}, batches of {served.gear}"
    return Pace(about=f"{about}, {_TURNS} turns of {seconds / _TURNS / len(runners):.3g} s", turns=turns)


async def _in_turns(runners: dict[str, Runner], seconds: float) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in runners}
    names = list(runners)
    for _ in range(_TURNS):
        for name in names:
            turns[name].append(await runners[name](seconds / _TURNS / len(runners)))
        names.reverse()
    return turns


class _Served:
    """An engine in its process, and the queue before it."""

    def __init__(self, order: EngineOrder, profile_s: float) -> None:
        metrics, labels = Metrics(), (order.model, order.version)
        self._profile_s = profile_s
        self.engine = Engine([order], metrics, Bell(), self._prove)
        bounds = Bounds(max_rows=2**16, max_device_s=_LONGEST_S)
        shape = (order.side, order.side, 3)
        self.queue = BatchQueue([self.engine], QueuePolicy(row_shape=shape, bounds=bounds), metrics, labels)
        self._rows = np.random.default_rng(0).integers(0, 256, (_ROWS, 1, *shape), np.uint8)

    @property
    def about(self) -> str:
        return self.engine.about

    @property
    def gear(self) -> int:
        """The batch size with the most images a second."""
        times = self.engine.curve.times
        return min(times, key=lambda gear: times[gear].p50_s / gear)

    async def run(self, seconds: float) -> Turn:
        images, began = 0, time.monotonic()
        urgency = Urgency(deadline=began + _LONGEST_S, caller="bench", priority=0)

        async def call(number: int) -> None:
            nonlocal images
            while time.monotonic() < began + seconds:
                await self.queue.submit(self._rows[number % _ROWS], urgency)
                images += 1

        async with anyio.create_task_group() as callers:
            for number in range(_CALLERS_A_ROW * self.gear):
                callers.start_soon(call, number)
        return Turn(images=images, seconds=time.monotonic() - began)

    async def _prove(self, process: EngineProcess) -> Curve:
        side = process.order.side
        row = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)

        async def run(gear: int) -> None:
            await process.run([row], gear)

        return await measure(run, process.order.gears_to_measure, self._profile_s)


@asynccontextmanager
async def _serving(order: EngineOrder, profile_s: float) -> AsyncIterator[_Served]:
    served = _Served(order, profile_s)
    async with anyio.create_task_group() as tasks:
        await tasks.start(served.engine.serve)
        tasks.start_soon(served.queue.run)
        yield served
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _looping(order: EngineOrder, library: str, batch: int) -> AsyncIterator[Runner]:
    assert isinstance(order.options, OpenvinoOptions)  # noqa: S101 - the caller has looked
    told = {
        "library": library,
        "graph": str(order.files[0].path),
        "batch": batch,
        "side": order.side,
        "threads": order.threads,
        "precision": order.options.precision,
    }
    async with await anyio.open_process([sys.executable, str(_BARE), json.dumps(told)], stderr=None) as loop:
        assert loop.stdin is not None and loop.stdout is not None  # noqa: S101, PT018 - both are pipes
        send, lines = loop.stdin.send, TextReceiveStream(loop.stdout)

        async def run(seconds: float) -> Turn:
            try:
                await send(f"{seconds}\n".encode())
                images, took_s = (await lines.receive()).split()
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise EngineFault(f"the plain loop of {library} ended") from error
            return Turn(images=int(images), seconds=float(took_s))

        await run(0.0)  # loads and warms up
        yield run
        await loop.stdin.aclose()


def _fault_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Find the fault of the engine that a group of tasks ended for, or give back the group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _fault_in(error)
        if isinstance(error, EngineFault):
            return error
    return group
