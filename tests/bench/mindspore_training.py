"""Trainings in MindSpore that take minutes, so that they are asked for: msrun with two processes, and by heart.

.venv/bin/pytest tests/bench/mindspore_training.py
"""

from pathlib import Path

import pytest

from interpreters import under_msrun
from mindspore_recipes import NETWORK, recipe, written_start
from recipes import by_heart, noise_folder
from training import command, lines, losses, train


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def alone(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train("mindspore", recipe(start), folder)
    return folder


def test_two_processes_learn_what_one_does_from_batches_of_twice_the_size(
    alone: Path, start: Path, tmp_path: Path
) -> None:
    words = command("mindspore", recipe(start, batch=2), tmp_path / "together")
    ended = under_msrun("python", *words[1:], folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert losses(tmp_path / "together") == pytest.approx(losses(alone), rel=1e-4)
    measured = [
        [line["evaluation"] for line in lines(folder) if line["event"] == "epoch"]
        for folder in (alone, tmp_path / "together")
    ]
    for one, two in zip(*measured, strict=True):
        assert (one["n"], one["confusion"]) == (25, two["confusion"])
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def test_256_pictures_of_noise_are_learnt_by_heart(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 256, 4)
    learnt = by_heart(pictures, network={**NETWORK, "width": 1 / 8}, evaluate_every=16)
    train("mindspore", learnt, tmp_path / "run")
    assert lines(tmp_path / "run")[-1]["evaluation"]["top1"] == 1.0
