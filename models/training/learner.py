"""What the loop asks of a framework: a network that takes steps, answers, and can be put aside and taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.weights import Array, Weights

Rows: TypeAlias = NDArray[np.uint8]  # (n, side, side, 3)
Labels: TypeAlias = NDArray[np.int64]  # (n,)
Logits: TypeAlias = NDArray[np.float32]  # (n, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of one pass of one device, and their classes."""

    rows: Rows
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LossScale:
    """By what the loss is multiplied, and the steps since that last changed; it is the same on all devices."""

    factor: float = 1.0
    steady_steps: int = 0

    def after(self, *, is_finite: bool) -> "LossScale":
        """Return the dynamic scale after a step: halved when gradients overflowed, doubled after 2,000 without."""
        if not is_finite:
            return LossScale(factor=max(self.factor / 2, 1.0))
        if self.steady_steps + 1 == DOUBLED_AFTER_STEPS:
            return LossScale(factor=self.factor * 2)
        return LossScale(factor=self.factor, steady_steps=self.steady_steps + 1)


DOUBLED_AFTER_STEPS = 2000
FIRST_DYNAMIC_FACTOR = 65536.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a learner has learnt: what it would go on from.

    `weights` are those that are evaluated and published; `raw` those that are trained, where the first are their
    moving average, else empty. `velocities` are the optimizer's, by the names of the trained weights.
    """

    weights: Weights
    raw: Weights
    velocities: Mapping[str, Array]
    loss_scale: LossScale


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step came to: the mean loss over all devices, and whether overflowing gradients made it be skipped."""

    loss: float
    is_skipped: bool


class World(Protocol):
    """The processes that train together, one a device."""

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""

    @property
    def size(self) -> int:
        """Return how many there are."""

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over all processes; each calls it with an array of the same shape, and gets the same."""

    def close(self) -> None:
        """Leave the others."""


class Learner(Protocol):
    """A network in a framework, its optimizer and its device."""

    @property
    def framework(self) -> str:
        """Return the framework's name and version, for the manifest and the log."""

    @property
    def world(self) -> World:
        """Return the processes that train together."""

    @property
    def loss_scale(self) -> LossScale:
        """Return by what the loss is multiplied now."""

    def step(self, batches: Sequence[Batch], rate: float) -> Step:
        """Take one step on the mean gradient of these batches, of equal size, on all devices."""

    def agree(self) -> None:
        """Give all devices the same norm statistics, the mean of theirs; before answers or a state are taken."""

    def logits(self, rows: Rows) -> Logits:
        """Return the answers of the weights that are published, in float32 and without learning from the rows."""

    def state(self) -> State:
        """Return a copy of what was learnt."""

    def restore(self, state: State) -> None:
        """Go on from a state."""


class Alone:
    """The world of a single process."""

    rank = 0
    size = 1

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values."""
        return values

    def close(self) -> None:
        """Do nothing."""
