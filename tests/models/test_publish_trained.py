"""What a training has left is published with all that its checkpoint says."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.cli import main
from trained import small_recipe, write_trained


def _published(tmp_path: Path, *words: str) -> tuple[dict[str, Any], list[str]]:
    path = tmp_path / "best.safetensors"
    flags = ["--checkpoint", str(path), "--repository", str(tmp_path / "models"), "--model", "tiny"]
    assert main(["publish", *flags, "--lite-gears", "none", *words]) == 0
    bundle = tmp_path / "models" / "tiny" / "1"
    return json.loads((bundle / "model.json").read_text()), (bundle / "labels.txt").read_text().splitlines()


def test_network_labels_preprocessing_accuracy_and_provenance_are_the_trainings(tmp_path: Path) -> None:
    write_trained(tmp_path / "best.safetensors", small_recipe(), top1=0.75)
    manifest, labels = _published(tmp_path)
    assert labels == [f"pattern {index}" for index in range(7)]
    assert manifest["network"] == {"name": "sknet50", "width": 0.0625}
    assert manifest["preprocessing"] == {
        "mode": "shortest",
        "size": 37,
        "crop": 32,
        "interpolation": "bilinear",
        "antialias": True,
    }
    assert manifest["accuracy"] == {"dataset": "synthetic", "top1": 0.75, "top5": 0.9, "n": 50}
    provenance = manifest["provenance"]
    assert (provenance["recipe"], provenance["seed"]) == ("tiny", 5)
    assert provenance["framework"] == "pytorch 2.13.0"
    assert manifest["golden"]["computed_by"].startswith("PyTorch ")


def test_what_was_not_measured_is_not_told(tmp_path: Path) -> None:
    write_trained(tmp_path / "best.safetensors", small_recipe(), top1=None)
    assert _published(tmp_path)[0]["accuracy"] is None


def test_what_is_said_wins_over_the_training(tmp_path: Path) -> None:
    write_trained(tmp_path / "best.safetensors", small_recipe())
    (tmp_path / "labels").write_text("".join(f"label {index}\n" for index in range(7)))
    words = ["--labels", str(tmp_path / "labels"), "--preprocessing", "mindspore", "--input-size", "64"]
    manifest, labels = _published(tmp_path, *words)
    assert labels[0] == "label 0"
    preprocessing = manifest["preprocessing"]
    assert (preprocessing["mode"], preprocessing["size"], preprocessing["crop"]) == ("exact", 73, 64)


def test_random_weights_need_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--untrained", "--repository", str(tmp_path)]) == 2
    assert "network is required with --untrained; allowed are se_resnext50" in capsys.readouterr().err
