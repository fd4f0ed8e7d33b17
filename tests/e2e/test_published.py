"""The three networks at full size: published from random weights, served, and compared with PyTorch."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from full_size import NAMES, best_five, by_grpc, by_pytorch, by_rest, publish_words
from lite import lite_python, photos
from models.cli import main
from models.networks import describe
from serving import ROOT, RunningServer

pytestmark = pytest.mark.e2e

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
    command = [sys.executable, "-c", MEASURED, *publish_words(name, repository, "none")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    return 1024 * int(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_publishing_peaks_below_4_times_the_weights(published: Published, name: str) -> None:
    weights_bytes = (published.repository / name / "1" / "model.onnx").stat().st_size
    assert published.peak_bytes[name] < 4 * weights_bytes


def test_what_is_served_answers_as_the_network_does(
    published: Published, start: Callable[..., RunningServer]
) -> None:
    server = start(published.repository, "--load-timeout-s", "300", wait="listening")
    for name in NAMES:
        server.event("model_ready", model=name)
    for name in NAMES:
        answer = by_rest(server, name, photos(1))
        expected = by_pytorch(describe(name), photos(1))
        np.testing.assert_allclose(answer.scores, expected, rtol=0, atol=1e-4 * expected.max())
        assert answer.best == best_five(expected)


def test_what_mindspore_lite_serves_at_full_size_is_answered_by_both_doors_as_the_network_does(
    tmp_path: Path, start: Callable[..., RunningServer]
) -> None:
    """Of the cheapest network; tests/bench/full_size.py compares all of them, and with OpenVINO."""
    lite_python()
    assert main(publish_words("sknet50", tmp_path, "1")) == 0
    # One thread: several wait for each other by spinning, which takes for ever where other work is done.
    patient = ("--load-timeout-s", "300", "--engine-timeout-s", "100", "--request-timeout-s", "100")
    server = start(tmp_path, "--engine", "mindspore_lite", "--engine-threads", "1", *patient)
    expected = by_pytorch(describe("sknet50"), photos(2))
    for door in (by_rest, by_grpc):
        answer = door(server, "sknet50", photos(2))
        assert answer.engine.startswith("mindspore_lite 2.0.0 cpu")
        np.testing.assert_allclose(answer.scores, expected, rtol=0, atol=1e-4 * expected.max())
        assert answer.best == best_five(expected)
    shutil.rmtree(tmp_path / "sknet50")  # 0.3 GB
