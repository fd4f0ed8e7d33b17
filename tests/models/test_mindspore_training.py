"""Trainings as users start them, in MindSpore; those in PyTorch are in test_training.py."""

import os
import random
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from interpreters import under_msrun
from mindspore_recipes import NETWORK, recipe, written_start
from models.training import torch_learner
from models.training.datasets import open_dataset
from models.training.evaluation import evaluate
from models.training.learner import Alone
from recipes import by_heart, noise_folder
from training import assert_learnt_alike, begin, command, is_same, lines, losses, newest, train


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def alone(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train("mindspore", recipe(start), folder)
    return folder


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_weights(
    alone: Path, start: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = begin(command("mindspore", recipe(start), folder))
    assert process.stderr
    while "img/s" not in process.stderr.readline():
        assert process.poll() is None
    try:
        process.wait(random.Random(os.urandom(8)).uniform(0, 2))
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(losses(folder)) < len(losses(alone))
    train("mindspore", recipe(start), folder, "--resume")
    assert is_same(newest(folder), newest(alone))
    assert lines(folder) == lines(alone)


def test_256_pictures_of_noise_are_learnt_by_heart(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 256, 4)
    learnt = by_heart(pictures, network=NETWORK, evaluate_every=16)
    train("mindspore", learnt, tmp_path / "run")
    assert lines(tmp_path / "run")[-1]["evaluation"]["top1"] == 1.0


def test_two_processes_learn_what_one_does_from_batches_of_twice_the_size(
    alone: Path, start: Path, tmp_path: Path
) -> None:
    words = command("mindspore", recipe(start, batch=2), tmp_path / "together")
    ended = under_msrun("python", *words[1:], folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert_learnt_alike(alone, tmp_path / "together", pictures=25)


def test_pytorch_evaluates_a_checkpoint_alike(alone: Path) -> None:
    point = newest(alone)
    found = next(line["evaluation"] for line in reversed(lines(alone)) if line["event"] == "epoch")
    learner = torch_learner.build(point.recipe, point.state.weights, device="cpu")
    pictures = open_dataset(point.recipe.data, "evaluation", seed=point.recipe.seed, classes=4)
    preprocessing = point.recipe.preprocessing.build()
    expected = evaluate(learner.logits, pictures, preprocessing, Alone(), batch=5, workers=1)
    assert np.array_equal(expected.confusion, found["confusion"])
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-4)
