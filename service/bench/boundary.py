"""Measures what the process boundary costs: the same engine in this process and in one of its own, side by side."""

import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import anyio
import numpy as np

from service.engines import CHILD, EngineOrder, EngineProcess, SimulatedOptions
from service.tensors import Logits, Rows

_TURN = 10  # calls of one before the other has its turn; one more comes first, while the other's threads go to sleep
_SIDE, _CLASSES = 224, 1000


class InsideEngine(Protocol):
    """What a file of engines/child declares."""

    about: str

    def run(self, images: Rows) -> Logits:
        """Answer one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Times of single pictures, in seconds; what is at the same place was measured in neighbouring turns."""

    about: str
    inside_s: Sequence[float]
    outside_s: Sequence[float]
    engine_s: Sequence[float]  # of each time outside, what the engine itself took

    def __str__(self) -> str:
        lines = [f"{self.about}, {len(self.inside_s)} of each", f"{'':28}{'p50 ms':>10}{'p99 ms':>10}"]
        for name, times_s in (
            ("in this process", self.inside_s),
            ("in its own", self.outside_s),
            ("added", np.subtract(self.outside_s, self.inside_s)),
            ("on the way to it and back", np.subtract(self.outside_s, self.engine_s)),
        ):
            p50, p99 = 1000 * np.percentile(times_s, [50, 99])
            lines.append(f"{name:28}{p50:10.3f}{p99:10.3f}")
        return "\n".join(lines)

    @property
    def added_p50_s(self) -> float:
        """The median of what the boundary adds."""
        return float(np.median(np.subtract(self.outside_s, self.inside_s)))


def idle_order() -> EngineOrder:
    """Order an engine that does next to nothing with a picture of the usual size."""
    return EngineOrder(
        model="",
        version="1",
        files=(),
        side=_SIDE,
        classes=_CLASSES,
        threads=1,
        load_timeout_s=60,
        run_timeout_s=60,
        options=SimulatedOptions(table="at no pace", latency_s={1: 0.0}),
    )


async def compare(order: EngineOrder, runs: int) -> Comparison:
    """Run the same picture on both, in turns.

    Raises:
        EngineFault: the process could not load the model.
        ImportError: this process has not the engine's library.
    """
    inside = load_inside(order)
    image = np.random.default_rng(0).integers(0, 256, (1, order.side, order.side, 3), np.uint8)
    inside_s: list[float] = []
    outside_s: list[float] = []
    engine_s: list[float] = []
    process = EngineProcess.start(order)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.log_output)
        try:
            await process.load()
            for _ in range(max(1, runs // _TURN)):
                inside_s += [_inside_s(inside, image) for _ in range(_TURN + 1)][1:]
                turn = [await _outside_s(process, image) for _ in range(_TURN + 1)][1:]
                outside_s += [took_s for took_s, _ in turn]
                engine_s += [of_engine_s for _, of_engine_s in turn]
        finally:
            await process.end()
    about = f"{process.about}, batches of 1: {image.nbytes} bytes in, {order.classes * 4} out"
    return Comparison(about=about, inside_s=inside_s, outside_s=outside_s, engine_s=engine_s)


def load_inside(order: EngineOrder) -> InsideEngine:
    """Load the engine into this process, which a server never does."""
    sys.path.insert(0, str(CHILD))
    try:
        module = importlib.import_module(f"engine_{order.engine}")
    finally:
        sys.path.remove(str(CHILD))
    return cast("InsideEngine", module.Engine(json.loads(order.packed())))


def _inside_s(inside: InsideEngine, image: Rows) -> float:
    began = time.perf_counter()
    inside.run(image)
    return time.perf_counter() - began


async def _outside_s(process: EngineProcess, image: Rows) -> tuple[float, float]:
    began = time.perf_counter()
    answer = await process.run([image], 1)
    return time.perf_counter() - began, answer.engine_s
