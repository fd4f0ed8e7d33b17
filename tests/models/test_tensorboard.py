import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from models.training.evaluation import Evaluation
from models.training.tensorboard import TensorBoard
from models.training.watching import EpochRecord, StepRecord


def _events(folder: Path) -> Iterator[Event]:
    """Read event files as TensorBoard does: records of a length, its checksum, an event, its checksum."""
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack_from("<Q", content)
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def _points(folder: Path) -> dict[tuple[str, int], float]:
    """Return the points of all curves, with those taken back that a resumed training has taken again."""
    points: dict[tuple[str, int], float] = {}
    for event in _events(folder):
        if event.session_log.status == SessionLog.START:
            points = {key: value for key, value in points.items() if key[1] < event.step}
        points |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return points


def _step(step: int, loss: float, *, is_skipped: bool = False) -> StepRecord:
    return StepRecord(
        epoch=1,
        step=step,
        steps=8,
        rate=0.25,
        loss=loss,
        is_skipped=is_skipped,
        loss_scale=1.0,
        images_per_s=100.0,
    )


def test_steps_and_epochs_are_points_of_curves(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.stepped(_step(1, 2.5))
    board.stepped(_step(2, float("inf"), is_skipped=True))
    evaluation = Evaluation(n=4, top1=0.5, top5=1.0, loss=0.75, confusion=np.zeros((2, 2), np.int64))
    board.epoch_ended(
        EpochRecord(epoch=1, step=2, loss=2.5, evaluation=evaluation, is_best=True, checkpoint=None)
    )
    board.close()
    assert _points(tmp_path) == {
        ("training/loss", 1): 2.5,
        ("training/rate", 1): 0.25,
        ("training/loss_scale", 1): 1.0,
        ("training/images_per_s", 1): 100.0,
        ("training/rate", 2): 0.25,
        ("training/loss_scale", 2): 1.0,
        ("training/images_per_s", 2): 100.0,
        ("epoch/loss", 2): 2.5,
        ("evaluation/top1", 2): 0.5,
        ("evaluation/top5", 2): 1.0,
        ("evaluation/loss", 2): 0.75,
    }


def test_a_resumed_training_takes_back_what_it_takes_again(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for step in range(1, 6):
        board.stepped(_step(step, 1.0))
    board.close()
    board = TensorBoard(tmp_path, resumed_at=3)
    board.stepped(_step(4, 2.0))
    board.close()
    losses = {step: value for (curve, step), value in _points(tmp_path).items() if curve == "training/loss"}
    assert losses == {1: 1.0, 2: 1.0, 3: 1.0, 4: 2.0}


def test_a_full_disk_is_told_at_the_latest_when_an_epoch_ends(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    board = TensorBoard(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        with pytest.raises(OSError, match="File too large"):  # noqa: PT012 - as soon as what is written is flushed
            for step in range(1, 10):
                board.stepped(_step(step, 1.0))
            board.epoch_ended(
                EpochRecord(epoch=1, step=9, loss=1.0, evaluation=None, is_best=False, checkpoint=None)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        board.close()
