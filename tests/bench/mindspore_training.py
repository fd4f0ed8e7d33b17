"""Trainings in MindSpore that take minutes, so that they are asked for: msrun with two processes, and by heart.

.venv/bin/pytest tests/bench/mindspore_training.py
"""

import os
import socket
from pathlib import Path

import pytest

from interpreters import MINDSPORE
from models.checkpoints import write_checkpoint
from models.training.recipe import Recipe
from models.weights import random_weights
from recipes import noise_folder, small
from training import begin, command, end, lines, losses, train

NETWORK = {"name": "se_resnext50", "classes": 4, "width": 1 / 16}


def recipe(start: Path, **changes: object) -> Recipe:
    """Describe a training with frozen norms, since those of a process see its own pictures only."""
    return small(
        network=NETWORK,
        data__images=25,
        norms="frozen",
        ema=0.5,
        schedule={"kind": "step_cosine", "rate": 0.01},
        start={"checkpoint": str(start)},
        checkpoints={"every_steps": 1, "keep": 2},
        **changes,
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    write_checkpoint(path, random_weights(small(network=NETWORK).network.describe(), seed=1))
    return path


@pytest.fixture(scope="module")
def alone(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train("mindspore", recipe(start), folder)
    return folder


def test_two_processes_learn_what_one_does_from_batches_of_twice_the_size(
    alone: Path, start: Path, tmp_path: Path
) -> None:
    words = command("mindspore", recipe(start, batch=2), tmp_path / "together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    msrun = [str(MINDSPORE / "msrun"), "--worker_num", "2", "--local_worker_num", "2", "--join", "True"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(MINDSPORE), prepend=os.pathsep)  # msrun starts the python that it finds
        process = begin(
            [*msrun, "--master_port", port, "--log_dir", str(tmp_path / "log"), "python", *words[1:]]
        )
        end(process)
    assert losses(tmp_path / "together") == pytest.approx(losses(alone), rel=1e-4)
    measured = [
        [line["evaluation"] for line in lines(folder) if line["event"] == "epoch"]
        for folder in (alone, tmp_path / "together")
    ]
    for one, two in zip(*measured, strict=True):
        assert (one["n"], one["confusion"]) == (25, two["confusion"])
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def test_256_pictures_of_noise_are_learnt_by_heart(tmp_path: Path) -> None:
    pictures = str(noise_folder(tmp_path / "pictures", 256, 4))
    by_heart = small(
        network={**NETWORK, "width": 1 / 8},
        data={"format": "folder", "train": pictures, "evaluation": pictures, "is_cached": True},
        augmentation={},
        batch=32,
        epochs=16,
        evaluate_every=16,
        schedule={"kind": "step_cosine", "rate": 0.1, "warmup_epochs": 1},
        start={"initialisation": "fan_out_silent"},
        checkpoints={"every_epochs": 100},
    )
    train("mindspore", by_heart, tmp_path / "run")
    assert lines(tmp_path / "run")[-1]["evaluation"]["top1"] == 1.0
