"""Draw a training in TensorBoard: steps and epochs -> event files. Needs the extra `tensorboard`."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from models.training.watching import EpochRecord, StepRecord


class TensorBoard:
    """Writes event files into a folder; what follows the step where a training is resumed is taken back.

    It does so at once, where SummaryWriter has a thread: that ends on a full disk, and a training then waits for it.
    """

    def __init__(self, folder: Path, *, resumed_at: int = 0) -> None:
        # Without the suffix, a file that was begun in the same second would be overwritten.
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{resumed_at:09}")
        self._write(Event(step=resumed_at + 1, session_log=SessionLog(status=SessionLog.START)))

    def stepped(self, record: StepRecord) -> None:
        """Add a point to the curves of the steps."""
        if not record.is_skipped:
            self._add("training/loss", record.loss, record.step)
        self._add("training/rate", record.rate, record.step)
        self._add("training/loss_scale", record.loss_scale, record.step)
        self._add("training/images_per_s", record.images_per_s, record.step)

    def epoch_ended(self, record: EpochRecord) -> None:
        """Add a point to the curves of the epochs, and have all of them on disk."""
        self._add("epoch/loss", record.loss, record.step)
        if record.evaluation:
            self._add("evaluation/top1", record.evaluation.top1, record.step)
            self._add("evaluation/top5", record.evaluation.top5, record.step)
            self._add("evaluation/loss", record.evaluation.loss, record.step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def _add(self, curve: str, value: float, step: int) -> None:
        self._write(Event(step=step, summary=scalar(curve, value)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
