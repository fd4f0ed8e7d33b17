"""Write a bundle into a model repository, whole or not at all: files -> <repository>/<model>/<version>/."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.bundle import Files
from models.errors import InvalidValueError

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION_NAME = re.compile(r"[1-9][0-9]*")


def publish(files: Files, *, repository: Path, model: str, version: int | None = None) -> Path:
    """Return the folder of the new version, which appears with all its files at once.

    Without a version it is the newest plus one. Raises InvalidValueError for a bad name or a version that
    exists, and OSError when the files cannot be written; neither leaves anything in the repository.
    """
    if not _MODEL_NAME.fullmatch(model):
        raise InvalidValueError(f"model is {model!r}; allowed is {_MODEL_NAME.pattern}")
    folder = repository / model
    target = folder / str(_newest(folder) + 1 if version is None else version)
    if not _VERSION_NAME.fullmatch(target.name):
        raise InvalidValueError(f"version is {version}; allowed is at least 1")
    with _staged(folder) as staging:
        for name, content in files.items():
            _write(staging / name, content)
        _sync_folders(staging)
        _appear(staging, target)
        _sync(folder)
    return target


def _newest(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    names = (path.name for path in folder.iterdir())
    return max((int(name) for name in names if _VERSION_NAME.fullmatch(name)), default=0)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the versions, on their file system; nothing of it is left in the end."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".publishing-{uuid.uuid4().hex}"
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not empty: the new version is in it
                folder.rmdir()


def _appear(staging: Path, target: Path) -> None:
    # The rename itself is the test, so that two processes cannot publish one version.
    # It succeeds onto an empty folder alone, which is no version yet.
    try:
        staging.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise InvalidValueError(
            f"version {target.name} of {target.parent.name} exists already; allowed is one that does not"
        ) from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _sync(path)
    _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
