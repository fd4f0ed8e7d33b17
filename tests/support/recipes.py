"""Recipes for tests: a small network, few small pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.training.recipe import Recipe, parse_recipe

SMALL: dict[str, Any] = {
    "name": "small",
    "network": {"name": "sknet50", "classes": 4, "width": 1 / 16},
    "data": {"format": "synthetic", "images": 24, "workers": 2, "is_cached": True},
    "preprocessing": {"name": "cifar10", "input_size": 32},
    "augmentation": {"crop": "padded", "mirror": True},
    "epochs": 2,
    "batch": 4,
    "schedule": {"kind": "step_cosine", "rate": 0.05, "warmup_epochs": 1},
    "start": {"initialisation": "fan_in"},
}


def small(**changes: Any) -> Recipe:
    """Return the recipe, with other values for some keys; those within sections have a double underscore."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            document[section] = {**document.get(section, {}), name: value}
        else:
            document[section] = value
    return parse_recipe(document, where="of a test")


def noise_folder(folder: Path, pictures: int, classes: int) -> Path:
    """Write pictures of mere noise into a folder for each class: there is nothing to learn but each by heart."""
    generator = np.random.default_rng(5)
    for index in range(pictures):
        of_class = folder / f"class {index % classes}"
        of_class.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((32, 32), Image.Resampling.NEAREST).save(of_class / f"{index:04d}.png")
    return folder


def by_heart(pictures: Path, **changes: Any) -> Recipe:
    """Return a recipe that learns the pictures of a folder by heart, of a network for four classes."""
    where = str(pictures)
    return small(
        data={"format": "folder", "train": where, "evaluation": where, "is_cached": True},
        augmentation={},
        batch=32,
        epochs=16,
        schedule={"kind": "step_cosine", "rate": 0.1, "warmup_epochs": 1},
        start={"initialisation": "fan_out_silent"},
        checkpoints={"every_epochs": 100},
        **changes,
    )
