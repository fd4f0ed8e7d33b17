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

from service.engines import CHILD, EngineOrder, EngineProcess
from service.tensors import Logits, Rows

_WARM_UPS = 10


class InsideEngine(Protocol):
    """What a file of engines/child declares."""

    about: str

    def run(self, images: Rows) -> Logits:
        """Answer one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Times of single pictures, in seconds: each pair was measured one right after the other."""

    about: str
    inside_s: Sequence[float]
    outside_s: Sequence[float]

    def __str__(self) -> str:
        added_ms = [1000 * (out - within) for out, within in zip(self.outside_s, self.inside_s, strict=True)]
        lines = [f"{self.about}, batches of 1, {len(added_ms)} pairs", f"{'':20}{'p50 ms':>10}{'p99 ms':>10}"]
        for name, times_ms in (
            ("in this process", [1000 * each for each in self.inside_s]),
            ("in its own", [1000 * each for each in self.outside_s]),
            ("added", added_ms),
        ):
            p50, p99 = np.percentile(times_ms, [50, 99])
            lines.append(f"{name:20}{p50:10.3f}{p99:10.3f}")
        return "\n".join(lines)

    @property
    def added_p50_s(self) -> float:
        """The median of what the boundary adds."""
        return float(np.median(np.subtract(self.outside_s, self.inside_s)))


async def compare(order: EngineOrder, runs: int) -> Comparison:
    """Run the same picture on both, in turns.

    Raises:
        EngineFault: the process could not load the model.
        ImportError: this process has not the engine's library.
    """
    inside = load_inside(order)
    image = np.random.default_rng(0).integers(0, 256, (1, order.side, order.side, 3), np.uint8)
    process = EngineProcess.start(order)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.log_output)
        try:
            await process.load()
            pairs = [await _pair(inside, process, image) for _ in range(runs + _WARM_UPS)][_WARM_UPS:]
        finally:
            await process.end()
    inside_s, outside_s = zip(*pairs, strict=True)
    return Comparison(about=process.about, inside_s=inside_s, outside_s=outside_s)


def load_inside(order: EngineOrder) -> InsideEngine:
    """Load the engine into this process, which a server never does."""
    sys.path.insert(0, str(CHILD))
    try:
        module = importlib.import_module(f"engine_{order.engine}")
    finally:
        sys.path.remove(str(CHILD))
    return cast("InsideEngine", module.Engine(json.loads(order.packed())))


async def _pair(inside: InsideEngine, process: EngineProcess, image: Rows) -> tuple[float, float]:
    began = time.perf_counter()
    inside.run(image)
    between = time.perf_counter()
    await process.run([image], 1)
    return between - began, time.perf_counter() - between
