"""What MindSpore exports from a checkpoint answers as the network that is in it."""

from pathlib import Path

import numpy as np
import openvino
import pytest

from interpreters import mindspore, mindspore_program
from models.checkpoints import dialect_of, export_weights, write_checkpoint
from models.cli import main
from models.frameworks import torch_network
from models.networks import Network, describe
from models.weights import random_weights
from recipes import small
from trained import write_trained

WIDTHS = {"se_resnext50": 1 / 8, "resnext101": 1 / 16, "sknet50": 1 / 8}
PLANES = np.random.default_rng(2).normal(size=(2, 3, 64, 64)).astype(np.float32)


def _checkpoint(folder: Path, name: str) -> Network:
    network = describe(name, classes=10, width=WIDTHS[name])
    weights = random_weights(network, seed=1)
    write_checkpoint(
        folder / "a.ckpt", export_weights(network, weights, dialect_of("mindspore-split", network))
    )
    return network


@pytest.mark.parametrize("name", WIDTHS)
def test_onnx_and_mindir_answer_as_the_network(name: str, tmp_path: Path) -> None:
    network = _checkpoint(tmp_path, name)
    expected = torch_network.logits(network, random_weights(network, seed=1), PLANES)
    for file in ("a.onnx", "a.mindir"):
        words = ["export", "a.ckpt", file, "--batch", "2", "--input-size", "64"]
        told = mindspore("cardinal-models", *words, folder=tmp_path)
        assert f"exported a.ckpt to {file}: {name}, 10 classes, input float32 (2, 3, 64, 64)" in told
    np.save(tmp_path / "planes.npy", PLANES)
    mindspore_program("mindir", "a.mindir", "planes.npy", "mindir.npy", folder=tmp_path)
    compiled = openvino.Core().compile_model(tmp_path / "a.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for found in (compiled(PLANES)[0], np.load(tmp_path / "mindir.npy")):
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_what_was_trained_is_exported_for_rows_of_its_own_size(tmp_path: Path) -> None:
    recipe = small(network={"name": "sknet8", "classes": 4, "width": 1 / 16}, preprocessing__input_size=40)
    write_trained(tmp_path / "a.safetensors", recipe)
    told = mindspore("cardinal-models", "export", "a.safetensors", "a.onnx", folder=tmp_path)
    assert "sknet8, 4 classes, input float32 (1, 3, 40, 40)" in told


def test_air_says_that_it_needs_an_ascend_host(tmp_path: Path) -> None:
    _checkpoint(tmp_path, "sknet50")
    told = mindspore("cardinal-models", "export", "a.ckpt", "a.air", folder=tmp_path, fails=True)
    assert (
        "cardinal-models: AIR is written by the Ascend build of MindSpore on a host with an Ascend NPU"
        in told
    )
    assert "here MindSpore runs on CPU" in told
    assert not (tmp_path / "a.air").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a.om"], "a.om ends in '.om'; allowed are .mindir, .onnx, .air"),
        (["a.onnx", "--batch", "0"], "batch is 0; allowed is at least 1"),
        (["a.onnx", "--input-size", "30"], "input size is 30; allowed are multiples of 4"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    _checkpoint(tmp_path, "sknet50")
    told = mindspore("cardinal-models", "export", "a.ckpt", *words, folder=tmp_path, fails=True)
    assert f"cardinal-models: {sentence}" in told


def test_without_mindspore_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "a.ckpt", "a.onnx"]) == 2
    assert capsys.readouterr().err == (
        "cardinal-models: export needs MindSpore, but mindspore is not installed\n"
    )
