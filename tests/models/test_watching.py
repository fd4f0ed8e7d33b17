import json
import math
from pathlib import Path

import numpy as np
import pytest

from models.training.evaluation import Evaluation
from models.training.watching import EpochRecord, JsonLines, StepRecord, read_lines


def _step(step: int, *, loss: float = 1.5, is_skipped: bool = False) -> StepRecord:
    return StepRecord(
        epoch=(step + 3) // 4,
        step=step,
        steps=8,
        rate=0.1,
        loss=loss,
        is_skipped=is_skipped,
        loss_scale=1.0,
        images_per_s=123.456,
    )


def _epoch(epoch: int, classes: int = 2) -> EpochRecord:
    evaluation = Evaluation(
        n=10, top1=0.5, top5=1.0, loss=0.7, confusion=np.full((classes, classes), 3, np.int64)
    )
    return EpochRecord(
        epoch=epoch,
        step=4 * epoch,
        loss=1.25,
        evaluation=evaluation,
        is_best=True,
        checkpoint=Path("run/checkpoints/1-4.safetensors"),
    )


def _train(path: Path, first: int, last: int, *, resumed_at: int = 0) -> None:
    lines = JsonLines(path, resumed_at=resumed_at)
    for step in range(first, last + 1):
        lines.stepped(_step(step))
        if step % 4 == 0:
            lines.epoch_ended(_epoch(step // 4))
    lines.close()


def test_each_step_and_epoch_is_a_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = JsonLines(path)
    lines.stepped(_step(1))
    lines.epoch_ended(_epoch(1))
    first, second = map(json.loads, path.read_text().splitlines())  # while the file is still open
    lines.close()
    assert first == {
        "event": "step",
        "epoch": 1,
        "step": 1,
        "steps": 8,
        "rate": 0.1,
        "loss": 1.5,
        "is_skipped": False,
        "loss_scale": 1.0,
        "images_per_s": 123.5,
    }
    assert second == {
        "event": "epoch",
        "epoch": 1,
        "step": 4,
        "loss": 1.25,
        "evaluation": {"n": 10, "top1": 0.5, "top5": 1.0, "loss": 0.7, "confusion": [[3, 3], [3, 3]]},
        "is_best": True,
        "checkpoint": "1-4.safetensors",
    }


@pytest.mark.parametrize("died_at", [4, 5, 6, 7])
def test_a_resumed_training_leaves_the_log_of_an_unbroken_one(tmp_path: Path, died_at: int) -> None:
    _train(tmp_path / "unbroken.jsonl", 1, 8)
    path = tmp_path / "log.jsonl"
    _train(path, 1, died_at)
    with path.open("a") as file:
        file.write('{"event": "step", "epo')  # killed while it wrote
    _train(path, 5, 8, resumed_at=4)
    assert path.read_text() == (tmp_path / "unbroken.jsonl").read_text()


def test_a_training_that_begins_anew_has_a_log_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    _train(path, 1, 8)
    _train(path, 1, 2)
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def test_lines_that_a_power_cut_has_damaged_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    _train(path, 1, 3)
    first, second, third = path.read_text().splitlines()
    path.write_bytes(f"{first}\nnothing\n{third}\n".encode() + b"\0\0\xff\n" + second[:9].encode())
    assert [line["step"] for line in read_lines(path)] == [1, 3]
    _train(path, 4, 4, resumed_at=3)
    assert [line["step"] for line in read_lines(path)] == [1, 3, 4, 4]


def test_a_loss_that_is_no_number_is_still_json(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.stepped(_step(1, loss=math.inf, is_skipped=True))
    lines.close()
    assert read_lines(tmp_path / "log.jsonl")[0]["loss"] is None


def test_the_confusion_of_many_classes_is_left_out(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.epoch_ended(_epoch(1, classes=1000))
    lines.close()
    assert "confusion" not in read_lines(tmp_path / "log.jsonl")[0]["evaluation"]
