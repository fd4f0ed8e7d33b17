"""The three networks at full size: published from random weights, served, and compared with PyTorch."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lite import lite_python, photos
from models.bundle import untrained_source
from models.cli import main
from models.frameworks.forward import forward_of
from models.golden import softmax
from models.networks import Network, describe
from models.preprocessing import standard_preprocessing
from patience import PATIENCE_S
from pictures import encoded
from serving import ROOT, RunningServer

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("published")]  # published once for all of them

NAMES = ["se_resnext50", "resnext101", "sknet50"]

# VmHWM is the process's own peak; ru_maxrss can also be that of the process which has started it.
MEASURED = """
import sys
from pathlib import Path
from models.cli import main

assert main(sys.argv[1:]) == 0
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@dataclass
class Published:
    """A repository with the three networks, and the peak of the process that published each."""

    repository: Path
    peak_bytes: dict[str, int]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    repository = tmp_path_factory.mktemp("models")
    peaks = {name: _publish(name, repository) for name in NAMES}
    yield Published(repository, peaks)
    shutil.rmtree(repository)  # half a gigabyte


def _publish(name: str, repository: Path) -> int:
    words = [
        "publish",
        "--network",
        name,
        "--untrained",
        "--seed",
        "1",
        "--golden",
        "onnx",
        "--lite-gears",
        "none",
        "--repository",
        str(repository),
    ]
    command = [sys.executable, "-c", MEASURED, *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    return 1024 * int(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_publishing_peaks_below_4_times_the_weights(published: Published, name: str) -> None:
    weights_bytes = (published.repository / name / "1" / "model.onnx").stat().st_size
    assert published.peak_bytes[name] < 4 * weights_bytes


def test_what_is_served_answers_as_the_network_does(
    published: Published, start: Callable[..., RunningServer]
) -> None:
    (photo,) = photos(1)
    server = start(published.repository, "--load-timeout-s", "300", wait="listening")
    for name in NAMES:
        server.event("model_ready", model=name)
    for name in NAMES:
        _assert_answers(server, name, describe(name), photo)


def test_what_was_published_for_mindspore_lite_is_served_by_it(
    tmp_path: Path, start: Callable[..., RunningServer]
) -> None:
    lite_python()
    words = [
        "--untrained",
        "--seed",
        "1",
        "--width",
        "0.125",
        "--lite-gears",
        "1",
        "--repository",
        str(tmp_path),
    ]
    assert main(["publish", "--network", "sknet50", *words]) == 0
    server = start(tmp_path, "--engine", "mindspore_lite")
    assert "mindspore_lite 2.0.0" in server.event("model_ready")["engine"]
    _assert_answers(server, "sknet50", describe("sknet50", width=0.125), photos(1)[0])


def _assert_answers(server: RunningServer, model: str, network: Network, photo: Image.Image) -> None:
    """Compare the scores of a photo, and its five best classes, with PyTorch's."""
    url = f"{server.rest}/v1/models/{model}/classify?top_k=1000"
    response = httpx.post(url, content=encoded(photo, "PNG"), timeout=PATIENCE_S)
    (result,) = response.raise_for_status().json()["results"]
    expected = _scores(network, photo)
    scores = np.zeros_like(expected)
    for entry in result["classes"]:
        scores[entry["index"]] = entry["score"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * expected.max())
    assert [entry["index"] for entry in result["classes"][:5]] == list(np.argsort(-expected)[:5])


def _scores(network: Network, photo: Image.Image) -> NDArray[np.float64]:
    """Have PyTorch compute the scores, from the weights that were published."""
    preprocessing = standard_preprocessing(224)
    planes = preprocessing.planes(preprocessing.rows(photo)[np.newaxis])
    weights = untrained_source(network, seed=1).weights
    return softmax(forward_of("pytorch").logits(network, weights, planes))[0]
