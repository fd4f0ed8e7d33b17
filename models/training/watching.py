"""What a training tells those who watch it: steps and epochs -> lines of a file."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.training.evaluation import Evaluation

_MAX_CLASSES = 100  # whose confusion is in a line; it grows with the square


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step that was taken: the `step`-th of all `steps`, in the `epoch`-th epoch, both counted from 1."""

    epoch: int
    step: int
    steps: int
    rate: float
    loss: float
    is_skipped: bool
    loss_scale: float
    images_per_s: float  # of all devices together


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """The end of the `epoch`-th epoch, after `step` steps: the mean loss of its steps, and what came of it."""

    epoch: int
    step: int
    loss: float
    evaluation: Evaluation | None
    is_best: bool
    checkpoint: Path | None


class Watcher(Protocol):
    """Is told of a training by its first process."""

    def stepped(self, record: StepRecord) -> None:
        """Hear of a step."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """Hear of the end of an epoch."""

    def close(self) -> None:
        """Hear that no more follows, whether or not the training went well."""


class JsonLines:
    """Writes each step and each epoch as a line of JSON, at once.

    A training that goes on after `resumed_at` steps keeps the lines up to there, and takes back those of steps that
    will be taken again; 0 begins anew.
    """

    def __init__(self, path: Path, *, resumed_at: int = 0) -> None:
        if path.exists():
            _cut(path, resumed_at)
        self._file = path.open("a", encoding="utf-8", buffering=1)  # a line at a time

    def stepped(self, record: StepRecord) -> None:
        """Write a line."""
        self._write(
            {
                "event": "step",
                "epoch": record.epoch,
                "step": record.step,
                "steps": record.steps,
                "rate": record.rate,
                "loss": _finite(record.loss),
                "is_skipped": record.is_skipped,
                "loss_scale": record.loss_scale,
                "images_per_s": round(record.images_per_s, 1),
            }
        )

    def epoch_ended(self, record: EpochRecord) -> None:
        """Write a line."""
        self._write(
            {
                "event": "epoch",
                "epoch": record.epoch,
                "step": record.step,
                "loss": _finite(record.loss),
                "evaluation": None if record.evaluation is None else evaluation_document(record.evaluation),
                "is_best": record.is_best,
                "checkpoint": None if record.checkpoint is None else record.checkpoint.name,
            }
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values; the confusion only where classes are few."""
    document: dict[str, Any] = {
        "n": evaluation.n,
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "loss": _finite(evaluation.loss),
    }
    if len(evaluation.confusion) <= _MAX_CLASSES:
        document["confusion"] = evaluation.confusion.tolist()
    return document


def evaluation_of(document: Mapping[str, Any]) -> Evaluation | None:
    """Return the evaluation that plain values are of; None where they lack the confusion."""
    if "confusion" not in document:
        return None
    loss = document["loss"]
    return Evaluation(
        n=document["n"],
        top1=document["top1"],
        top5=document["top5"],
        loss=math.nan if loss is None else loss,
        confusion=np.array(document["confusion"], np.int64),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without those that a killed training or a power cut has left unfinished."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def _cut(path: Path, resumed_at: int) -> None:
    """Take back the lines after a step, at once or not at all."""
    kept = [line for line in read_lines(path) if line["step"] <= resumed_at] if resumed_at else []
    shorter = path.with_name(f".{path.name}.shorter")
    shorter.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
    shorter.replace(path)


def _finite(value: float) -> float | None:
    """Return the value; None, which is JSON, for what is not."""
    return value if math.isfinite(value) else None
