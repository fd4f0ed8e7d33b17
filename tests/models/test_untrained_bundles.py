import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundles import assert_every_file_is_declared, manifest_of, size_of
from models.cli import main
from serving import UNTRAINED

ROOT = Path(__file__).parents[2]
NAMES = ["se_resnext50", "resnext101", "sknet50"]
COMMANDS = [
    line.split()
    for line in (UNTRAINED / "README.md").read_text().splitlines()
    if line.startswith("    cardinal")
]


def _without_samples(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest | {"golden": manifest["golden"] | {"samples": None}}


def _scores(manifest: dict[str, Any]) -> list[list[float]]:
    return [sample["scores"] for sample in manifest["golden"]["samples"]]


def test_they_are_the_three_networks() -> None:
    assert sorted(path.name for path in UNTRAINED.iterdir() if path.is_dir()) == sorted(NAMES)
    assert [command[command.index("--network") + 1] for command in COMMANDS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_small(name: str) -> None:
    assert size_of(UNTRAINED / name) < 2e6


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_a_bundle_is_in_its_manifest_with_its_digest(name: str) -> None:
    assert_every_file_is_declared(UNTRAINED / name / "1")


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_says_what_the_bundle_is(name: str) -> None:
    manifest = manifest_of(UNTRAINED / name / "1")
    assert list(manifest) == [
        "format",
        "network",
        "input_size",
        "preprocessing",
        "classes",
        "labels",
        "artifacts",
        "golden",
        "accuracy",
        "provenance",
        "temperature",
    ]
    assert manifest["network"]["name"] == name
    assert manifest["provenance"] == {
        "untrained": True,
        "recipe": None,
        "framework": None,
        "checkpoint_sha256": None,
        "seed": 1,
    }
    assert manifest["accuracy"] is None
    assert manifest["preprocessing"] == {
        "mode": "shortest",
        "size": 256,
        "crop": 224,
        "interpolation": "bilinear",
        "antialias": True,
    }


@pytest.mark.parametrize("name", NAMES)
def test_golden_scores_tell_the_pictures_apart(name: str) -> None:
    scores = np.array(_scores(manifest_of(UNTRAINED / name / "1")))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert np.all((scores.max(axis=1) > 0.15) & (scores.max(axis=1) < 0.9))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(scores[first] - scores[second]).max() > 0.05


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_command_in_the_readme_makes_the_committed_bundle_again(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(
        " ".join(command[1:]).replace("--repository tests/untrained", f"--repository {tmp_path}")
    )
    assert main(words) == 0
    (made,) = tmp_path.glob("*/*")
    committed = UNTRAINED / made.relative_to(tmp_path)
    for name in ("model.onnx", "labels.txt"):
        assert (made / name).read_bytes() == (committed / name).read_bytes()
    # The last digits of float32 sums depend on the CPU, and a PNG's bytes on the build of its compressor.
    for name in ("golden/0.png", "golden/1.png", "golden/2.png"):
        np.testing.assert_array_equal(Image.open(made / name), Image.open(committed / name))
    first, second = manifest_of(made), manifest_of(committed)
    assert _without_samples(first) == _without_samples(second)
    np.testing.assert_allclose(_scores(first), _scores(second), rtol=1e-4)
