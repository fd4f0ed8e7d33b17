"""The demo model is what its recipe, its log and its report say, and small."""

import json
from pathlib import Path
from typing import Any

import pytest

from bundles import assert_every_file_is_declared, manifest_of, size_of
from models.training.datasets import CIFAR10_NAMES
from models.training.recipe import Recipe, read_recipe

DEMO = Path(__file__).parents[2] / "models/demo"
BUNDLE = DEMO / "cifar10/1"
MOST_BYTES = 8_000_000
PICTURES = 10_000  # of CIFAR-10's test set


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return manifest_of(BUNDLE)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("demo")


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


def test_its_log_goes_to_the_end_and_measured_what_the_manifest_says(
    manifest: dict[str, Any], recipe: Recipe
) -> None:
    records = [json.loads(line) for line in (DEMO / "log.jsonl").read_text().splitlines()]
    epochs = {record["epoch"]: record for record in records if record["event"] == "epoch"}
    assert list(epochs) == list(range(1, recipe.epochs + 1))
    best = max(
        (record["evaluation"] for record in epochs.values() if record["evaluation"]), key=lambda e: e["top1"]
    )
    assert manifest["accuracy"]["n"] == best["n"] == PICTURES
    assert (manifest["accuracy"]["top1"], manifest["accuracy"]["top5"]) == (best["top1"], best["top5"])


def test_its_report_tells_the_same_accuracy_and_no_place(manifest: dict[str, Any]) -> None:
    page = (DEMO / "report.html").read_text()
    assert f"{manifest['accuracy']['top1']:.2%}".replace("%", "") in page
    assert "file://" not in page
