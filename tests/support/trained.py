"""Checkpoints as a training leaves them, without a training: random weights that answer all classes."""

from pathlib import Path

import numpy as np

from models.frameworks import torch_network
from models.training.datasets import open_dataset
from models.training.learner import LossScale, State
from models.training.recipe import Recipe, parse_recipe
from models.training.savepoints import Accuracy, Position, Savepoint, write_savepoint
from models.weights import random_weights

CLASSES = 7


def small_recipe(**changes: object) -> Recipe:
    """Describe a training of a tiny network on synthetic pictures."""
    document = {
        "name": "tiny",
        "network": {"name": "sknet50", "classes": CLASSES, "width": 0.0625},
        "data": {"format": "synthetic", "images": 50, "workers": 2},
        "preprocessing": {"input_size": 32, "std": [50.0, 60.0, 70.0]},
        "epochs": 3,
        "batch": 16,
        "seed": 5,
        "schedule": {"kind": "linear", "rate": 0.05},
    }
    return parse_recipe({**document, **changes}, where="of a test")


def write_trained(
    path: Path, recipe: Recipe, *, epoch: int = 1, seed: int = 0, top1: float | None = 0.5
) -> None:
    """Write a checkpoint; the bias of the classifier makes its answers to the evaluation's pictures vary."""
    network, preprocessing = recipe.network.describe(), recipe.preprocessing.build()
    dataset = open_dataset(recipe.data, "evaluation", seed=recipe.seed, classes=network.classes)
    weights = random_weights(network, seed)
    rows = np.stack([preprocessing.rows(dataset.picture(index)) for index in range(len(dataset))])
    logits = torch_network.logits(network, weights, preprocessing.planes(rows))
    weights["fc.bias"] = weights["fc.bias"] - logits.mean(axis=0)
    point = Savepoint(
        recipe=recipe,
        framework="pytorch 2.13.0",
        labels=dataset.names,
        devices=1,
        pictures=len(dataset),
        position=Position(epoch=epoch),
        accuracy=None if top1 is None else Accuracy(top1=top1, top5=0.9, n=len(dataset)),
        state=State(
            weights=weights,
            raw=weights | {"fc.bias": weights["fc.bias"] + 1},
            velocities={"fc.bias": weights["fc.bias"]},
            loss_scale=LossScale(),
        ),
    )
    write_savepoint(path, point)
