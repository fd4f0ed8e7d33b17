"""Serves engines for tests, watches their log lines, and knows what a simulated engine answers."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
import pytest

from patience import PATIENCE_S
from service.bell import Bell
from service.engines import BatchAnswer, Engine, EngineOrder, EngineProcess, NotBegun
from service.errors import EngineFault
from service.metrics import Metrics
from service.tensors import Rows


class LogWatch(logging.Handler):
    """Keeps the log lines of engines; tests wait for them instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self._bell = Bell()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), getattr(record, "fields", {})))
        self._bell.ring()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [values for name, values in self.lines if name == event]

    async def seen(self, event: str, times: int = 1) -> dict[str, Any]:
        while len(self.of(event)) < times:
            await self._bell.wait()
        return self.of(event)[times - 1]

    async def printed(self, line: str) -> dict[str, Any]:
        while True:
            for values in self.of("engine_output"):
                if values["line"] == line:
                    return values
            await self._bell.wait()

    @property
    def pid(self) -> int:
        return int(self.of("engine_loaded")[-1]["pid"])


async def unproven(_: EngineProcess) -> None:
    """Take a process as it is."""


@dataclass
class Serving:
    engine: Engine
    metrics: Metrics = field(default_factory=Metrics)
    bell: Bell = field(default_factory=Bell)

    @classmethod
    def of(cls, order: EngineOrder) -> "Serving":
        metrics, bell = Metrics(), Bell()
        return cls(Engine([order], metrics, bell, unproven), metrics, bell)

    @property
    def restarts(self) -> float | None:
        labels = {"model": "cats", "version": "3", "device": "cpu:0"}
        return self.metrics.registry.get_sample_value("cardinal_engine_restarts_total", labels)

    async def lost(self) -> None:
        while self.engine.is_ready:
            await self.bell.wait()


@asynccontextmanager
async def serving(order: EngineOrder) -> AsyncIterator[Serving]:
    """Serve until the block is left."""
    served = Serving.of(order)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(served.engine.serve)
            yield served
            tasks.cancel_scope.cancel()


async def fault_at_start(order: EngineOrder) -> str:
    with anyio.fail_after(PATIENCE_S), pytest.raises(EngineFault) as fault:
        await Serving.of(order).engine.serve()
    return str(fault.value)


def pictures(rows: int, side: int = 4, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).integers(0, 256, (rows, side, side, 3), np.uint8)


async def answer_of(engine: Engine, rows: Rows, gear: int | None = None) -> BatchAnswer:
    """Run a batch on whichever process takes it, as the queue does."""
    while True:
        await engine.ready()
        with suppress(NotBegun):
            return await engine.run([rows], gear or len(rows))


async def logits(engine: Engine, rows: Rows, gear: int | None = None) -> np.ndarray[Any, Any]:
    return (await answer_of(engine, rows, gear)).logits


async def fault_at(engine: Engine, rows: int, side: int = 4) -> str:
    with pytest.raises(EngineFault) as fault:
        await answer_of(engine, pictures(rows, side))
    return str(fault.value)


def simulated_answers(rows: Rows) -> np.ndarray[Any, Any]:
    """Compute what the simulated engine must answer."""
    sums = rows.reshape(len(rows), -1).sum(axis=1, dtype=np.uint64)
    return np.stack([np.random.RandomState(int(each)).randn(10) for each in sums]).astype(np.float32)
