"""The bundled recipes are what the code of the references does."""

import json
import subprocess
import sys
import zipfile
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from models.initial import Initialisation
from models.networks import NETWORKS
from models.preprocessing import PREPROCESSINGS
from models.training.recipe import BUNDLED, Augmentation, Optimizer, Precision, Recipe, read_recipe
from models.training.run import Order, run
from models.training.schedules import EpochCosine, Poly, rates

ROOT = Path(__file__).parents[2]

IMAGENET = ["se_resnext50_imagenet_mindspore", "resnext101_imagenet"]
COLOURS = Augmentation(
    crop="resized", aspect=(0.75, 1.333), mirror=True, brightness=0.4, contrast=0.4, saturation=0.4
)
NAMES = [*IMAGENET, "se_resnext50_imagenet_torch", "sknet50_cifar10"]


def recipes(names: list[str] = NAMES) -> list[Recipe]:
    return [read_recipe(name) for name in names]


def test_their_networks_are_the_references_own() -> None:
    networks = [recipe.network.describe() for recipe in recipes()]
    names = ["se_resnext50", "resnext101", "se_resnext50", "sknet50"]
    assert networks == [NETWORKS[name] for name in names]


def test_their_rows_are_those_on_which_the_references_evaluate() -> None:
    names = ["mindspore", "mindspore", "standard", "cifar10"]
    assert [recipe.preprocessing.build() for recipe in recipes()] == [
        PREPROCESSINGS[name](224) for name in names
    ]


def test_their_pictures_are_augmented_as_the_references_do() -> None:
    cropped = Augmentation(crop="resized", scale=(0.08, 1.0), aspect=(3 / 4, 4 / 3), mirror=True)
    padded = Augmentation(crop="padded", padding=4, mirror=True)
    assert [recipe.augmentation for recipe in recipes()] == [COLOURS, COLOURS, cropped, padded]


def test_their_length_and_batches_are_the_references() -> None:
    figures = [(recipe.epochs, recipe.batch, recipe.accumulate, recipe.seed) for recipe in recipes()]
    assert figures == [(150, 128, 1, 1), (150, 128, 1, 1), (100, 128, 1, 1), (90, 32, 1, 1)]


def test_their_optimizers_are_the_references() -> None:
    spared = Optimizer(momentum=0.9, nesterov=False, weight_decay=1e-4, decays_all=False)
    all_decay = Optimizer(momentum=0.9, nesterov=False, weight_decay=1e-4, decays_all=True)
    assert [recipe.optimizer for recipe in recipes()] == [spared, spared, all_decay, spared]


def test_their_loss_and_precision_are_the_references() -> None:
    assert [recipe.label_smoothing for recipe in recipes()] == [0.1, 0.1, 0, 0]
    precisions = [Precision(compute="f16", loss_scale=scale) for scale in (1024, 1024, 16, 1024)]
    assert [recipe.precision for recipe in recipes()] == precisions
    assert {(recipe.ema, recipe.norms) for recipe in recipes()} == {(0.0, "per_device")}


def test_they_begin_as_the_references_do() -> None:
    begun = [recipe.start.initial(recipe.network.name) for recipe in recipes()]
    uniform = Initialisation(convolution="fan in", dense="fan in", norm="one", is_block_silent=False)
    narrow = Initialisation(convolution="group fan out", dense="narrow", norm="narrow")
    assert begun == [uniform, uniform, uniform, narrow]


def test_their_checkpoints_are_kept_as_the_references_keep_them() -> None:
    kept = [(recipe.checkpoints.every_epochs, recipe.checkpoints.keep) for recipe in recipes()]
    assert kept == [(5, 5), (5, 5), (1, 1), (1, 90)]


@pytest.mark.parametrize("name", IMAGENET)
def test_the_rates_of_the_imagenet_recipes_have_the_references_check_values(name: str) -> None:
    recipe = read_recipe(name)
    assert astuple(recipe.schedule) == astuple(EpochCosine(rate=0.4, warmup_epochs=1, cycle_epochs=150))
    values = rates(recipe.schedule, steps_per_epoch=1251, epochs=recipe.epochs)
    checked = values[[0, 1250, 1251, 75 * 1251, -1]]
    np.testing.assert_allclose(checked, [3.19744e-4, 0.4, 0.399956, 0.2, 4.3863e-5], rtol=1e-5)


def test_the_rates_of_the_torch_recipe_are_a_cosine_of_the_epochs() -> None:
    recipe = read_recipe("se_resnext50_imagenet_torch")
    values = rates(recipe.schedule, steps_per_epoch=3, epochs=recipe.epochs)
    epochs = np.arange(300) // 3
    np.testing.assert_allclose(values, 0.4 * 0.5 * (1 + np.cos(np.pi * epochs / 100)), rtol=1e-12)


def test_the_rates_of_the_cifar10_recipe_have_the_references_check_values() -> None:
    recipe = read_recipe("sknet50_cifar10")
    assert astuple(recipe.schedule) == astuple(Poly(rate=0.1, initial=0.01, warmup_epochs=5, power=2))
    values = rates(recipe.schedule, steps_per_epoch=390, epochs=recipe.epochs)
    checked = values[[0, 1949, 1950, 20000, -1]]
    np.testing.assert_allclose(checked[:4], [0.01, 0.099954, 0.1, 0.020749], rtol=0, atol=1e-6)
    np.testing.assert_allclose(checked[4], 9.1e-11, rtol=5e-3)


def test_each_recipe_says_where_its_numbers_come_from_and_is_documented() -> None:
    document = (ROOT / "models/README.md").read_text()
    for path in BUNDLED.glob("*.yaml"):
        assert path.read_text().startswith("# "), path
        assert f"`{path.stem}`" in document


def test_the_wheel_holds_the_recipes(tmp_path: Path) -> None:
    single = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for path in [*ROOT.glob("service/**/*"), *ROOT.glob("models/**/*"), *single]:
        if path.is_file() and "__pycache__" not in path.parts:
            link = tmp_path / path.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    program = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    recipes = {path.relative_to(ROOT).as_posix() for path in BUNDLED.glob("*.yaml")}
    assert len(recipes) > len(NAMES)
    assert {*recipes, "models/py.typed", "service/py.typed", "service/rest/page/index.html"} <= held
    assert not [name for name in held if name.startswith("models/demo/")]


@pytest.mark.parametrize("name", [path.stem for path in BUNDLED.glob("*.yaml")])
def test_each_recipe_takes_steps(name: str, tmp_path: Path) -> None:
    """A narrow network on small pictures, at a rate and a loss scale for so few; all else is the recipe's."""
    data = "data={format: synthetic, images: 12, workers: 1}"
    small = ["network.width=0.0625", "preprocessing.input_size=32", "preprocessing.size=36", "batch=6"]
    slow = ["schedule.rate=0.01", "schedule.warmup_epochs=0", "precision.loss_scale=1"]
    overrides = [data, *small, *slow, "epochs=1"]
    if read_recipe(name).start.checkpoint:
        first = run(_order(read_recipe(name, [*overrides, "start={}"]), tmp_path / "first"))
        overrides.append(f"start.checkpoint={first.newest}")
    ended = run(_order(read_recipe(name, overrides), tmp_path))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [record for record in log if record["event"] == "step"]
    assert [record["step"] for record in steps] == [1, 2]
    assert all(0 < record["loss"] < 20 and not record["is_skipped"] for record in steps)
    assert ended.newest is not None


def _order(recipe: Recipe, folder: Path) -> Order:
    return Order(recipe=recipe, framework="torch", device="cpu", folder=folder, is_resumed=False)
