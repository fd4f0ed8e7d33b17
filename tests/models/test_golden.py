"""The golden samples come from a framework's forward pass, where one is installed, and never from an engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interpreters import mindspore
from models.checkpoints import write_checkpoint
from models.cli import main
from models.errors import InvalidValueError
from models.frameworks.forward import forward_of, installed_forward
from models.networks import describe
from models.weights import random_weights

PYTORCH = f"PyTorch {torch.__version__.removesuffix('+cpu')}"
NETWORK = ["publish", "--network", "sknet8", "--input-size", "32", "--model", "a"]


def _golden(repository: Path) -> dict[str, Any]:
    return dict(json.loads((repository / "a/1/model.json").read_text())["golden"])


def _scores(golden: dict[str, Any]) -> list[list[float]]:
    return [sample["scores"] for sample in golden["samples"]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.ckpt"
    write_checkpoint(path, random_weights(describe("sknet8", width=1 / 16), seed=1))
    return path


def _published(checkpoint: Path, repository: Path, *words: str) -> dict[str, Any]:
    assert main([*NETWORK, "--checkpoint", str(checkpoint), "--repository", str(repository), *words]) == 0
    return _golden(repository)


def test_pytorch_computes_them_where_it_is_installed(checkpoint: Path, tmp_path: Path) -> None:
    found = _published(checkpoint, tmp_path / "default")
    evaluated = _published(checkpoint, tmp_path / "onnx", "--golden", "onnx")
    assert found["computed_by"].startswith(PYTORCH)
    assert evaluated["computed_by"] == "onnx reference evaluator, float32"
    np.testing.assert_allclose(_scores(found), _scores(evaluated), rtol=1e-4)
    files = ("model.onnx", "golden/0.png", "golden/1.png", "golden/2.png")
    default, onnx = (tmp_path / name / "a/1" for name in ("default", "onnx"))
    assert all((default / name).read_bytes() == (onnx / name).read_bytes() for name in files)


def test_mindspore_computes_them_for_what_it_has_trained(checkpoint: Path, tmp_path: Path) -> None:
    words = [*NETWORK, "--checkpoint", checkpoint, "--repository", tmp_path / "mindspore"]
    mindspore("cardinal-models", *words, folder=tmp_path)
    found, evaluated = _golden(tmp_path / "mindspore"), _published(checkpoint, tmp_path, "--golden", "onnx")
    assert found["computed_by"].startswith("MindSpore 2.")
    np.testing.assert_allclose(_scores(found), _scores(evaluated), rtol=1e-4)


def test_a_network_that_answers_no_numbers_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights(describe("sknet8", width=1 / 16), seed=1)
    path = tmp_path / "overflown.ckpt"
    write_checkpoint(path, weights | {"fc.weight": weights["fc.weight"] * np.float32(1e38)})
    words = ["publish", "--network", "sknet8", "--input-size", "32", "--model", "a", "--repository"]
    assert main([*words, str(tmp_path / "models"), "--checkpoint", str(path)]) == 2
    assert "the network answers no numbers to the golden pictures" in capsys.readouterr().err
    assert not list(tmp_path.glob("models/a/[0-9]*"))


@pytest.mark.parametrize("trained_by", ["pytorch", "mindspore", None])
def test_another_framework_does_where_the_trainer_is_missing(trained_by: str | None) -> None:
    forward = installed_forward(trained_by)
    assert forward is not None
    assert forward.computed_by.startswith(PYTORCH)


def test_a_framework_that_is_asked_for_and_missing_is_a_fault() -> None:
    with pytest.raises(InvalidValueError, match="come from mindspore, but mindspore is not installed"):
        forward_of("mindspore")
