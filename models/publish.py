"""Write a bundle into a model repository, whole or not at all: files -> <repository>/<model>/<version>/."""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from models.content import Content, chunks
from models.errors import InvalidValueError

Files: TypeAlias = Mapping[str, Content]

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION_NAME = re.compile(r"[1-9][0-9]*")
_STAGING = ".publishing-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version that is being made: the folder for its files, and the one that it will be."""

    folder: Path
    target: Path


def publish(files: Files, *, repository: Path, model: str, version: int | None = None) -> Path:
    """Return the folder of the new version, which appears with all its files at once; raises as `drafted` does."""
    with drafted(repository, model, version) as draft:
        write_files(draft.folder, files)
    return draft.target


@contextmanager
def drafted(repository: Path, model: str, version: int | None = None) -> Iterator[Draft]:
    """Yield a draft that becomes the version, whole, where the block ends well, and nothing where it does not.

    Without a version it is the newest plus one. Raises InvalidValueError for a bad name or a version that
    exists, and OSError when the files cannot be written. What a killed publisher has left is removed.
    """
    if not MODEL_NAME.fullmatch(model):
        raise InvalidValueError(f"model is {model!r}; allowed is {MODEL_NAME.pattern}")
    folder = repository / model
    target = folder / str(newest_version(folder) + 1 if version is None else version)
    if not _VERSION_NAME.fullmatch(target.name):
        raise InvalidValueError(f"version is {version}; allowed is at least 1")
    with _staged(repository, folder) as staging:
        draft = Draft(folder=staging / target.name, target=target)
        draft.folder.mkdir()
        yield draft
        _sync_tree(staging)
        _appear(staging, target)


def write_files(folder: Path, files: Files) -> None:
    """Write the files of a bundle by their path in it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.writelines(chunks(content))


def newest_version(folder: Path) -> int:
    """Return the newest version in a model's folder, 0 where there is none."""
    if not folder.is_dir():
        return 0
    return newest_of(path.name for path in folder.iterdir())


def newest_of(names: Iterable[str]) -> int:
    """Return the newest version among the names in a model's folder, 0 where there is none."""
    return max((int(name) for name in names if _VERSION_NAME.fullmatch(name)), default=0)


@contextmanager
def _staged(repository: Path, folder: Path) -> Iterator[Path]:
    """Yield a hidden folder on the file system of the versions; nothing of it is left in the end.

    It is locked while it is used, so that `_sweep` can tell it from what a killed publisher has left. The lock
    on the repository keeps others from sweeping it before that.
    """
    repository.mkdir(parents=True, exist_ok=True)
    staging = (folder if folder.is_dir() else repository) / f"{_STAGING}{uuid.uuid4().hex}"
    with ExitStack() as own:
        with _opened(repository) as shared:
            _lock(shared, fcntl.LOCK_EX)
            for left in (*repository.glob(f"{_STAGING}*"), *folder.glob(f"{_STAGING}*")):
                _sweep(left)
            staging.mkdir()
            _lock(own.enter_context(_opened(staging)), fcntl.LOCK_EX)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _sweep(staging: Path) -> None:
    with suppress(OSError), _opened(staging) as left:  # another publisher may be faster
        if _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(staging, ignore_errors=True)


def _lock(descriptor: int, operation: int) -> bool:
    """Tell whether the lock is held now: it is another's, or a file system without locks, where it is not."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _appear(staging: Path, target: Path) -> None:
    """Rename the staged bundle into its place; of a new model, the staging folder, so that none is ever empty."""
    repository = target.parent.parent
    if staging.parent == repository:
        with suppress(OSError):  # not empty: another publisher has made the model meanwhile
            staging.rename(target.parent)
            _sync(repository)
            return
    # The rename itself is the test, so that two processes cannot publish one version.
    # It succeeds onto an empty folder alone, which is no version yet.
    try:
        (staging / target.name).rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise InvalidValueError(
            f"version {target.name} of {target.parent.name} exists already; allowed is one that does not"
        ) from error
    _sync(target.parent)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
