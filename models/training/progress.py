"""Tell a person how far it is: steps and epochs -> one line of a terminal, or a line now and then elsewhere."""

import shutil
import time
from collections.abc import Callable
from threading import Lock
from typing import TextIO

from PIL import Image

from models.training.datasets import Dataset
from models.training.evaluation import Evaluation
from models.training.watching import EpochRecord, StepRecord

_REDRAWN_S = 0.1  # on a terminal at most so often
_REPEATED_S = 60.0  # elsewhere
_BAR = 10  # characters, so that all fits into 80
_MEMORY = 0.9  # of the rate that is shown, at each step
_BACK, _ERASE = "\r", "\x1b[K"


class Progress:
    """Rewrites one line of a terminal; where the stream is none, writes one a minute. Epochs have lines that stay.

    The time that is left is foretold from all that was done since the start, evaluations and all.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._is_terminal = stream.isatty()
        self._began_s = self._drawn_s = self._epoch_s = clock()
        self._first_step: int | None = None
        self._images_per_s = 0.0
        self._is_open = False  # a line that will be rewritten

    def stepped(self, record: StepRecord) -> None:
        """Write the line, if it is time to."""
        now_s = self._clock()
        is_first = self._first_step is None
        if self._first_step is None:
            self._first_step, self._images_per_s = record.step - 1, record.images_per_s
        self._images_per_s += (1 - _MEMORY) * (record.images_per_s - self._images_per_s)
        pause_s = _REDRAWN_S if self._is_terminal else _REPEATED_S
        if is_first or now_s - self._drawn_s >= pause_s or record.step == record.steps:
            self._drawn_s = now_s
            self._draw(self._line(record, (now_s - self._began_s) / (record.step - self._first_step)))

    def epoch_ended(self, record: EpochRecord) -> None:
        """Write a line that stays."""
        now_s = self._clock()
        words = [f"epoch {record.epoch}", f"loss {record.loss:.4f}"]
        if record.evaluation:
            words.append(in_words(record.evaluation))
        if record.is_best:
            words.append("the best so far")
        words.append(_duration(now_s - self._epoch_s))
        self._epoch_s = now_s
        self._stay("  ".join(words))

    def close(self) -> None:
        """End the line."""
        if self._is_open:
            self._stream.write("\n")
            self._stream.flush()
            self._is_open = False

    def _line(self, record: StepRecord, step_s: float) -> str:
        share = record.step / record.steps
        left = _duration((record.steps - record.step) * step_s)
        bar = f"{'#' * int(share * _BAR):.<{_BAR}} " if self._is_terminal else ""
        skipped = "  skipped" if record.is_skipped else ""
        return (
            f"{bar}{share:4.0%}  epoch {record.epoch}  {self._images_per_s:,.0f} img/s  {left} left"
            f"  loss {record.loss:.4f}  rate {record.rate:.3g}{skipped}"
        )

    def _draw(self, line: str) -> None:
        if not self._is_terminal:
            self._stream.write(f"{line}\n")
        else:
            width = shutil.get_terminal_size().columns - 1  # a full line would begin another one
            self._stream.write(f"{_BACK}{line[:width]}{_ERASE}")
            self._is_open = True
        self._stream.flush()

    def _stay(self, line: str) -> None:
        self._stream.write(f"{_BACK}{line}{_ERASE}\n" if self._is_terminal else f"{line}\n")
        self._stream.flush()
        self._is_open = False


class CountedPictures:
    """A dataset that shows on a terminal how many of its pictures were asked for, over and over; elsewhere nothing."""

    def __init__(
        self, dataset: Dataset, stream: TextIO, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset, self._stream, self._clock = dataset, stream, clock
        self._is_terminal = stream.isatty()
        self._lock = Lock()
        self._asked, self._drawn_s = 0, clock()

    def picture(self, index: int) -> Image.Image:
        """Return a picture."""
        self._count()
        return self._dataset.picture(index)

    def encoded(self, index: int) -> bytes | None:
        """Return the picture's own file, if it has one."""
        own = self._dataset.encoded(index)
        if own is not None:
            self._count()
        return own

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self._dataset)

    def _count(self) -> None:
        with self._lock:
            self._asked += 1
            in_round = (self._asked - 1) % len(self) + 1
            now_s = self._clock()
            if not self._is_terminal or (in_round < len(self) and now_s - self._drawn_s < _REDRAWN_S):
                return
            self._drawn_s = now_s
            shown = f"{in_round:,} of {len(self):,} pictures" if in_round < len(self) else ""
            self._stream.write(f"{_BACK}{shown}{_ERASE}")
            self._stream.flush()


def in_words(evaluation: Evaluation) -> str:
    """Return what was measured, for people."""
    return (
        f"top-1 {evaluation.top1:.2%}  top-5 {evaluation.top5:.2%}  of {evaluation.n:,}"
        f"  evaluation loss {evaluation.loss:.4f}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
