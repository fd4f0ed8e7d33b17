import io
from dataclasses import dataclass

import numpy as np
import pytest

from models.training.datasets import SyntheticPictures
from models.training.evaluation import Evaluation
from models.training.progress import CountedPictures, Progress
from models.training.watching import EpochRecord, StepRecord


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and shows what would be seen of the last line."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return self.getvalue().rpartition("\r")[2].removesuffix("\x1b[K")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def _step(step: int, *, steps: int = 100, images_per_s: float = 1280.0) -> StepRecord:
    return StepRecord(
        epoch=1,
        step=step,
        steps=steps,
        rate=0.05,
        loss=2.5,
        is_skipped=False,
        loss_scale=1.0,
        images_per_s=images_per_s,
    )


def _epoch(epoch: int = 1) -> EpochRecord:
    evaluation = Evaluation(n=1000, top1=0.9, top5=0.995, loss=0.31, confusion=np.zeros((2, 2), np.int64))
    return EpochRecord(epoch=epoch, step=10, loss=1.75, evaluation=evaluation, is_best=True, checkpoint=None)


def _take(progress: Progress, clock: Clock, first: int, last: int, step_s: float = 2.0) -> None:
    for step in range(first, last + 1):
        clock.now_s += step_s
        progress.stepped(_step(step))


def test_a_terminal_has_one_line_with_the_pace_and_the_time_that_is_left() -> None:
    terminal, clock = Terminal(), Clock()
    _take(Progress(terminal, clock=clock), clock, 1, 10)
    assert "\n" not in terminal.getvalue()
    words = terminal.shown()
    for word in (" 10%", "epoch 1", "1,280 img/s", "loss 2.5000", "rate 0.05", "3:00 left"):
        assert word in words
    assert words.startswith("#......... ")


def test_a_resumed_training_foretells_from_its_own_steps_alone() -> None:
    terminal, clock = Terminal(), Clock()
    _take(Progress(terminal, clock=clock), clock, 81, 90)
    assert "0:20 left" in terminal.shown()


def test_a_terminal_is_not_written_to_at_every_step() -> None:
    terminal, clock = Terminal(), Clock()
    _take(Progress(terminal, clock=clock), clock, 1, 99, step_s=0.01)
    assert terminal.getvalue().count("\r") == 10


def test_a_line_is_never_longer_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal, clock = Terminal(), Clock()
    _take(Progress(terminal, clock=clock), clock, 1, 1)
    assert len(terminal.shown()) == 39


def test_without_a_terminal_there_is_a_plain_line_a_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    _take(Progress(stream, clock=clock), clock, 1, 100)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1%", "31%", "61%", "91%", "100%"]
    assert not {"\r", "\x1b", "#"} & set(stream.getvalue())


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_an_epoch_has_a_line_that_stays(stream: io.StringIO) -> None:
    clock = Clock()
    progress = Progress(stream, clock=clock)
    _take(progress, clock, 1, 10)
    progress.epoch_ended(_epoch())
    progress.close()
    assert stream.getvalue().endswith("\n")
    line = stream.getvalue().splitlines()[-1].removesuffix("\x1b[K")
    assert line == (
        "epoch 1  loss 1.7500  top-1 90.00%  top-5 99.50%  of 1,000  evaluation loss 0.3100  the best so far  0:20"
    )


def test_what_ends_in_the_middle_leaves_a_line_of_its_own() -> None:
    terminal, clock = Terminal(), Clock()
    progress = Progress(terminal, clock=clock)
    _take(progress, clock, 1, 3)
    progress.close()
    assert terminal.getvalue().endswith("\n")


def test_pictures_that_are_read_are_counted_on_a_terminal_alone() -> None:
    dataset = SyntheticPictures(1200, "evaluation", seed=1, classes=3)
    clock, terminal, file = Clock(), Terminal(), io.StringIO()
    counted, silent = (
        CountedPictures(dataset, terminal, clock=clock),
        CountedPictures(dataset, file, clock=clock),
    )
    for index in range(1100):
        clock.now_s += 1
        counted.encoded(index)  # which these do not have
    assert terminal.getvalue() == ""
    for pictures in (counted, silent):
        clock.now_s += 1
        assert pictures.picture(7) == dataset.picture(7)
    assert terminal.shown() == "1 of 1,200 pictures"
    assert file.getvalue() == ""
