"""PyTorch, MindSpore and the deployment graph in OpenVINO answer alike, to 1e-4 of the largest logit."""

from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from PIL import Image

from interpreters import ROOT, arrays, mindspore_program
from models.frameworks import torch_network
from models.graph import deployment_graph, graph_bytes
from models.networks import Network
from models.preprocessing import Preprocessing, standard_preprocessing
from models.weights import random_weights
from pictures import photo
from variants import FULL, NARROW, SIDE, VARIANTS

PHOTOS = ROOT.parent / "shared" / "data" / "imagenet-samples"
NATIVE = ["native/graph", "native/pynative"]
SPLIT = ["split/graph", "split/pynative"]


def _rows(images: list[Image.Image], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return np.stack([preprocessing.rows(image) for image in images])


def _openvino(network: Network, rows: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    model = deployment_graph(network, random_weights(network, seed=1), preprocessing)
    core = openvino.Core()
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(graph_bytes(model)), "CPU", precision)(rows)["logits"].copy()


def _assert_alike(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(np.argsort(-found)[:, :5], np.argsort(-expected)[:, :5])


STANDARD = standard_preprocessing(SIDE)
ROWS = _rows([photo(seed=seed) for seed in range(3)], STANDARD)


def _pytorch(name: str) -> NDArray[np.float32]:
    return torch_network.logits(VARIANTS[name], random_weights(VARIANTS[name], seed=1), STANDARD.planes(ROWS))


def _mindspore(name: str, planes: NDArray[np.float32], folder: Path) -> dict[str, NDArray[np.float32]]:
    np.save(folder / "planes.npy", planes)
    mindspore_program("answers", "planes.npy", "answers.npz", name, folder=folder)
    return arrays(folder / "answers.npz")


@pytest.mark.parametrize("name", VARIANTS)
def test_pytorch_answers_as_the_deployment_graph(name: str) -> None:
    _assert_alike(_pytorch(name), _openvino(VARIANTS[name], ROWS, STANDARD))


@pytest.mark.parametrize("name", VARIANTS)
def test_mindspore_answers_as_pytorch_in_every_way(name: str, tmp_path: Path) -> None:
    found = _mindspore(name, STANDARD.planes(ROWS), tmp_path)
    assert list(found) == (NATIVE + SPLIT if name in NARROW else NATIVE)
    expected = _pytorch(name)
    for answers in found.values():
        _assert_alike(answers, expected)


@pytest.mark.parametrize("name", FULL)
def test_the_full_networks_answer_alike_to_real_photos(name: str, tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"{PHOTOS} is missing: there are no real photos to compare answers to")
    preprocessing = standard_preprocessing(224)
    rows = _rows([Image.open(file) for file in sorted(PHOTOS.glob("*.JPEG"))[:2]], preprocessing)
    planes = preprocessing.planes(rows)
    expected = torch_network.logits(FULL[name], random_weights(FULL[name], seed=1), planes)
    found = _mindspore(name, planes, tmp_path)
    assert list(found) == NATIVE
    for answers in found.values():
        _assert_alike(answers, expected)
    _assert_alike(_openvino(FULL[name], rows, preprocessing), expected)
