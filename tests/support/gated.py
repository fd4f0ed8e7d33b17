"""An engine that runs a batch only when it is let through, and pictures that it can tell apart by their colour."""

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import numpy as np
from PIL import Image

from pictures import encoded
from service.batching import BatchQueue, Bounds, QueuePolicy
from service.bell import Bell
from service.engines import BatchAnswer, Curve, NotBegun
from service.metrics import Metrics
from service.tensors import Logits, Rows

LABELS = ("cats", "3")


def picture_of(number: int) -> bytes:
    """Make a picture of one colour, whose row holds a number."""
    return encoded(Image.new("RGB", (8, 8), (number & 255, number >> 8 & 255, number >> 16)), "PNG")


def row_of(number: int, side: int = 1) -> Rows:
    """Make a row (side, side, 3) with a number in each pixel."""
    return np.broadcast_to(np.array([number], "<u4").view(np.uint8)[:3], (side, side, 3)).copy()


def logits_of(number: int) -> list[float]:
    """Answer a number with itself and its negative; float32 holds all of its 24 bits."""
    return [number, -number]


def numbers_in(rows: Rows) -> list[int]:
    return [int(number) for number in rows[:, 0, 0, :].astype(np.int64) @ (1, 256, 65536)]


class GatedEngine:
    """Runs nothing before it is let through, notes what it began to run, and then does as it was told."""

    def __init__(self, curve: Curve | None = None) -> None:
        # More rows cost next to nothing, so that all that waits is one batch.
        self.curve = curve or Curve.exact({gear: 1e-4 * (1 + gear / 100) for gear in range(1, 9)})
        self.batches: list[list[int]] = []  # the numbers in the rows of each batch, once it has begun
        self.gears: list[int] = []
        self.expected_s: list[float] = []
        self.errors: deque[Exception] = deque()  # for the next batches, instead of answers
        self.surplus_rows = 0  # answered above what was asked
        self.about = "gated"
        self.batch_s = 0.001  # what it says that a batch took
        self._permits = anyio.Semaphore(0)
        self._bell = Bell()
        self._is_ready = True

    @property
    def ran(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    async def ready(self) -> None:
        while not self._is_ready:
            await self._bell.wait()

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float) -> BatchAnswer:
        if not self._is_ready:
            raise NotBegun
        numbers = [number for rows in batch for number in numbers_in(rows)]
        assert len(numbers) <= gear
        assert expected_s > 0
        self.batches.append(numbers)
        self.gears.append(gear)
        self.expected_s.append(expected_s)
        self._bell.ring()
        await self._permits.acquire()
        if self.errors:
            raise self.errors.popleft()
        answered = (numbers + [0] * max(0, self.surplus_rows))[: len(numbers) + self.surplus_rows]
        logits: Logits = np.array([logits_of(number) for number in answered], np.float32).reshape(-1, 2)
        return BatchAnswer(logits=logits, engine=self.about, engine_s=self.batch_s)

    def be_ready(self, *, is_ready: bool) -> None:
        self._is_ready = is_ready
        self._bell.ring()

    def let_through(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._permits.release()

    async def begun(self, batches: int) -> None:
        while len(self.batches) < batches:
            await self._bell.wait()


def queue_over(
    engines: Sequence[GatedEngine], metrics: Metrics, *, side: int = 1, max_queued_rows: int = 64
) -> BatchQueue:
    """Put a queue before engines; whoever uses it has to run it."""
    bounds = Bounds(max_rows=max_queued_rows, max_device_s=1000)
    policy = QueuePolicy(row_shape=(side, side, 3), bounds=bounds)
    return BatchQueue(engines, policy, metrics, LABELS)


async def becomes_true(truth: Callable[[], bool]) -> None:
    """Look again and again at what nobody tells of; the caller sets the limit."""
    while not truth():  # noqa: ASYNC110 - sockets and threads ring no bell
        await anyio.sleep(0.001)
