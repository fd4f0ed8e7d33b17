"""What MindSpore Lite itself makes of the graphs, against OpenVINO and the reference evaluator."""

from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from lite import lite_python, photos
from models.golden import evaluate
from models.graph import deployment_graph, graph_bytes
from models.lite.convert import convert_graph
from models.lite.interpreter import run_lite
from models.networks import Network, describe
from models.preprocessing import standard_preprocessing
from models.weights import random_weights

NARROW = [
    describe("se_resnext50", width=1 / 8),
    describe("resnext101", width=1 / 16),
    describe("sknet50", width=1 / 8, classes=1000),
    describe("sknet8", width=1 / 4),
]

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def python() -> Path:
    return lite_python()


def _in_lite(python: Path, graph: Path, gear: int, rows: NDArray[np.uint8]) -> Floats:
    target = graph.with_name(f"{gear}.mindir")
    convert_graph(graph, gear, target, python)
    np.save(graph.with_name("rows.npy"), rows)
    run_lite(python, "answer", target, graph.with_name("rows.npy"), graph.with_name("logits.npy"))
    return np.asarray(np.load(graph.with_name("logits.npy")))


def _in_openvino(graph: Path, rows: NDArray[np.uint8]) -> Floats:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled(rows)["logits"])


def _assert_agreement(actual: Floats, expected: Floats) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(np.argsort(-actual)[:, :5], np.argsort(-expected)[:, :5])


def _compare(network: Network, side: int, gears: tuple[int, ...], folder: Path, python: Path) -> None:
    preprocessing = standard_preprocessing(side)
    model = deployment_graph(network, random_weights(network, seed=3), preprocessing)
    graph = folder / "model.onnx"
    graph.write_bytes(graph_bytes(model))
    rows = np.stack([preprocessing.rows(photo) for photo in photos(3)])
    in_openvino = _in_openvino(graph, rows)
    _assert_agreement(in_openvino[:1], evaluate(model, rows[:1]))
    for gear in gears:
        _assert_agreement(_in_lite(python, graph, gear, rows), in_openvino)


@pytest.mark.parametrize("network", NARROW, ids=lambda network: f"{network.name} {network.classes}")
def test_narrow_networks_agree_at_every_gear(network: Network, tmp_path: Path, python: Path) -> None:
    _compare(network, 96, (1, 4), tmp_path, python)


@pytest.mark.parametrize("name", ["se_resnext50", "resnext101", "sknet50"])
def test_full_size_networks_agree(name: str, tmp_path: Path, python: Path) -> None:
    _compare(describe(name), 224, (2,), tmp_path, python)
