"""Trainings in processes of their own, on either framework, and what they leave behind."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from interpreters import ROOT, mindspore_python
from models.training.recipe import Recipe
from models.training.savepoints import Savepoint, read_savepoint

Framework = Literal["torch", "mindspore"]

TIMEOUT_S = 280


def torchrun(processes: int = 2) -> list[str]:
    """Return the beginning of a command that runs a program in so many processes."""
    count = str(processes)
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]


def command(framework: Framework, recipe: Recipe, folder: Path, *words: str) -> list[str]:
    """Return the command that trains into a folder, whose recipe is beside it."""
    file = folder.with_suffix(".yaml")
    file.write_text(recipe.text())
    python = sys.executable if framework == "torch" else mindspore_python()
    training = ["-m", "models", "train", str(file), "--framework", framework, "--device", "cpu"]
    return [python, *training, "--output", str(folder), *words]


def begin(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program that finds our packages."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def said(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for a program's end, and return what it told and its errors."""
    told, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code, errors
    return told, errors


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a program's end, and return its errors."""
    return said(process, code)[1]


def train(framework: Framework, recipe: Recipe, folder: Path, *words: str, code: int = 0) -> str:
    """Train to the end, and return what was told on stderr."""
    return end(begin(command(framework, recipe, folder, *words)), code)


def newest(folder: Path) -> Savepoint:
    """Return the last checkpoint of a run."""
    return read_savepoint(max((folder / "checkpoints").glob("[0-9]*.safetensors")))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the log of a run, without what depends on the time."""
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in read]


def losses(folder: Path) -> list[float]:
    """Return the loss of each step."""
    return [line["loss"] for line in lines(folder) if line["event"] == "step"]


def is_same(one: Savepoint, other: Savepoint) -> bool:
    """Tell whether two checkpoints hold the same, to the bit."""
    pairs = [
        (one.state.weights, other.state.weights),
        (one.state.raw, other.state.raw),
        (one.state.velocities, other.state.velocities),
    ]
    return all(
        mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
        for mine, theirs in pairs
    )


def assert_learnt_alike(one: Path, other: Path, *, pictures: int) -> None:
    """Check that two runs have the same losses, and evaluated each of so many pictures alike."""
    assert losses(other) == pytest.approx(losses(one), rel=1e-4)
    measured = [
        [line["evaluation"] for line in lines(folder) if line["event"] == "epoch"] for folder in (one, other)
    ]
    for first, second in zip(*measured, strict=True):
        assert (first["n"], first["confusion"]) == (pictures, second["confusion"])
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
