"""Recipes for trainings in MindSpore, and the weights that they begin with."""

from pathlib import Path

from models.checkpoints import write_checkpoint
from models.training.recipe import Recipe
from models.weights import random_weights
from recipes import small

NETWORK = {"name": "sknet8", "classes": 4, "width": 1 / 16}


def recipe(start: Path, **changes: object) -> Recipe:
    """Describe a training with frozen norms, since those of a process see its own pictures only."""
    return small(
        network=NETWORK,
        data__images=25,
        preprocessing__input_size=36,
        small_first={"input_size": 32, "epochs": 1},
        norms="frozen",
        ema=0.5,
        schedule={"kind": "step_cosine", "rate": 0.01},
        start={"checkpoint": str(start)},
        checkpoints={"every_steps": 1, "keep": 2},
        **changes,
    )


def written_start(folder: Path) -> Path:
    """Write weights to begin with, as of a trained network."""
    path = folder / "start.safetensors"
    write_checkpoint(path, random_weights(small(network=NETWORK).network.describe(), seed=1))
    return path
