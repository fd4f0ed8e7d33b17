"""The demo model is what its recipes, its logs and its report say, and small."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bundles import assert_every_file_is_declared, manifest_of, size_of
from models.training.datasets import CIFAR10_NAMES
from models.training.recipe import Recipe, read_recipe

DEMO = Path(__file__).parents[2] / "models/demo"
BUNDLE = DEMO / "cifar10/1"
MOST_BYTES = 8_000_000
TRAININGS = ["demo", "demo_longer", "demo_last"]
PICTURES = 10_000  # of CIFAR-10's test set


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return manifest_of(BUNDLE)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(TRAININGS[-1])


def epochs_of(recipe: Recipe) -> dict[int, dict[str, Any]]:
    """Return what a training logged of each of its epochs, the last line of one that was begun twice."""
    records = [json.loads(line) for line in (DEMO / f"{recipe.name}.jsonl").read_text().splitlines()]
    return {record["epoch"]: record for record in records if record["event"] == "epoch"}


def test_it_is_one_small_bundle() -> None:
    assert [path.name for path in DEMO.iterdir() if path.is_dir()] == ["cifar10"]
    assert size_of(BUNDLE) <= MOST_BYTES


def test_every_file_of_it_is_in_its_manifest_with_its_digest() -> None:
    assert_every_file_is_declared(BUNDLE)


def test_it_is_what_the_recipe_makes(manifest: dict[str, Any], recipe: Recipe) -> None:
    assert manifest["network"] == {"name": recipe.network.name, "width": recipe.network.width}
    assert manifest["input_size"] == recipe.preprocessing.input_size
    assert manifest["provenance"]["recipe"] == recipe.name
    assert manifest["provenance"]["seed"] == recipe.seed
    assert not manifest["provenance"]["untrained"]
    assert tuple((BUNDLE / "labels.txt").read_text().split()) == CIFAR10_NAMES


@pytest.mark.parametrize(("before", "name"), [*pairwise(TRAININGS)])
def test_each_training_goes_on_from_the_weights_of_the_one_before(before: str, name: str) -> None:
    recipe, first = read_recipe(name), read_recipe(before)
    assert recipe.start.checkpoint == f"runs/{before}/checkpoints/best.safetensors"
    assert (recipe.network, recipe.preprocessing) == (first.network, first.preprocessing)


@pytest.mark.parametrize("name", TRAININGS)
def test_each_log_goes_to_the_end(name: str) -> None:
    recipe = read_recipe(name)
    assert list(epochs_of(recipe)) == list(range(1, recipe.epochs + 1))


def test_the_last_log_measured_what_the_manifest_says(manifest: dict[str, Any], recipe: Recipe) -> None:
    measured = [record["evaluation"] for record in epochs_of(recipe).values() if record["evaluation"]]
    best = max(measured, key=lambda evaluation: evaluation["top1"])
    assert manifest["accuracy"]["n"] == best["n"] == PICTURES
    assert (manifest["accuracy"]["top1"], manifest["accuracy"]["top5"]) == (best["top1"], best["top5"])


def test_its_report_tells_the_same_accuracy_and_no_place(manifest: dict[str, Any]) -> None:
    page = (DEMO / "report.html").read_text()
    assert f"{manifest['accuracy']['top1']:.2%}".replace("%", "") in page
    assert "file://" not in page
