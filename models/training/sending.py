"""Send a run's folder to a URL while it trains: each checkpoint, and what is written beside it."""

import sys
from pathlib import Path

from models.errors import TransferFailedError
from models.storage import Mirror
from models.training.savepoints import NAMES, Shelf
from models.training.watching import EpochRecord, StepRecord

CHECKPOINTS = f"checkpoints/{NAMES}"


class Sending:
    """Watches a training last of all, and sends the folder when there is a new checkpoint.

    A storage that is away does not end a training: it is told, and what is missing there is sent with the next one.
    """

    def __init__(self, mirror: Mirror, folder: Path, shelf: Shelf) -> None:
        self._mirror, self._folder, self._shelf = mirror, folder, shelf
        self._newest = shelf.newest()
        if self._newest:  # it is gone on with
            mirror.take_over(folder, CHECKPOINTS)
        self._failure: TransferFailedError | None = None

    def stepped(self, record: StepRecord) -> None:  # noqa: ARG002 - the shelf says whether there is a checkpoint
        """Send the newest checkpoint, if it is another one than before."""
        newest = self._shelf.newest()
        if newest != self._newest:
            self._newest = newest
            self._send()

    def epoch_ended(self, record: EpochRecord) -> None:
        """Do nothing: the epoch's checkpoint is written after this, and is sent at the next step or in the end."""

    def close(self) -> None:
        """Send what is left: the report, and what could not be sent."""
        self._send()

    def check(self) -> None:
        """Raise TransferFailedError if the URL lacks anything."""
        if self._failure:
            raise TransferFailedError(
                f"{self._failure}; the run is whole in {self._folder}"
            ) from self._failure

    def _send(self) -> None:
        try:
            self._mirror.send(self._folder)
        except TransferFailedError as error:
            self._failure = error
            sys.stderr.write(f"\n{error}\n")
        else:
            self._failure = None
