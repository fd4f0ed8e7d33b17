"""What a learner makes of some batches, in either framework: a plan is played, and leaves arrays that can be compared.

Runs in MindSpore's interpreter too, where pytest is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.networks import Network
from models.training.learner import Batch, Learner, LossScale, State
from models.training.recipe import NetworkChoice, Recipe
from models.weights import Weights, random_weights
from recipes import small
from variants import NARROW

Arrays = dict[str, NDArray[Any]]

CLASSES = 10
ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortChoice(NetworkChoice):
    """A network of a block in each stage, which compiles in seconds; no recipe can ask for it."""

    def describe(self) -> Network:
        return replace(NARROW[self.name], stages=(1, 1, 1, 1))


def short(network: str, **changes: Any) -> Recipe:
    """Return a recipe for a short network."""
    choice = ShortChoice(name=network, classes=CLASSES)
    return replace(small(batch=ROWS, **changes), network=choice)


def batch(seed: int, count: int = ROWS) -> Batch:
    """Draw a batch."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return Batch(rows=rows, labels=generator.integers(0, CLASSES, count))


def joined(*batches: Batch) -> Batch:
    """Return the batches as one."""
    return Batch(
        rows=np.concatenate([one.rows for one in batches]),
        labels=np.concatenate([one.labels for one in batches]),
    )


def first_weights(recipe: Recipe) -> Weights:
    """Return what every learner begins with."""
    return random_weights(recipe.network.describe(), seed=1)


def play(learner: Learner, steps: Sequence[Sequence[Batch]], rate: float) -> Arrays:
    """Take steps, and return all that came of them."""
    taken = [learner.step(batches, rate) for batches in steps]
    learner.agree()
    return {
        "losses": np.array([step.loss for step in taken]),
        "is_skipped": np.array([step.is_skipped for step in taken]),
        "scale": np.array([learner.loss_scale.factor, learner.loss_scale.steady_steps]),
        "logits": learner.logits(steps[0][0].rows[:3]),
        **flat(learner.state()),
    }


def flat(state: State) -> Arrays:
    """Return the arrays of a state."""
    kinds = {"weights": state.weights, "raw": state.raw, "velocities": state.velocities}
    return {f"{kind}.{name}": array for kind, arrays in kinds.items() for name, array in arrays.items()}


def part(whole: Batch, rank: int, size: int) -> Batch:
    """Return the rows of one of several processes."""
    mine = np.array_split(np.arange(len(whole.rows)), size)[rank]
    return Batch(rows=whole.rows[mine], labels=whole.labels[mine])


def apart(state: State, rank: int) -> State:
    """Return the state with norm statistics that only this process has."""

    def moved(weights: Weights) -> Weights:
        return {
            name: array * np.float32(rank + 1) if ".running_" in name else array
            for name, array in weights.items()
        }

    return replace(state, weights=moved(state.weights), raw=moved(state.raw))


def assert_agreed(before: Sequence[Arrays], agreed: Sequence[Arrays]) -> None:
    """Check that processes have the mean of the norm statistics that each had, and all else as it was."""
    for key, array in before[0].items():
        expected = np.mean([one[key] for one in before], axis=0) if ".running_" in key else array
        for one in agreed:
            assert np.allclose(one[key], expected, rtol=1e-5), key
    assert any(".running_" in key for key in before[0])


def with_scale(state: State, factor: float) -> State:
    """Return the state with another loss scale."""
    return replace(state, loss_scale=LossScale(factor=factor))


RATE = 1e-4  # small, since norms by batches of four let differences of rounding grow
STEPS = [[batch(0)], [batch(1)], [batch(2)]]
PAIRS = [[batch(0), batch(1)], [batch(2), batch(3)]]
PLAIN = short("sknet50_paper", ema=0.75, label_smoothing=0.1, optimizer={"weight_decay": 1.0})
FROZEN = short(
    "se_resnext50", norms="frozen", optimizer={"nesterov": True, "weight_decay": 0.01, "decays_all": True}
)
SYNCHRONISED = short("sknet50_paper", norms="synchronised")
HALF = short("se_resnext50", precision={"compute": "f16", "loss_scale": "dynamic"})
