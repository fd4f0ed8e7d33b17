"""Bring data from an object storage, and results to one: URL <-> files.

A URL is whatever fsspec reaches: s3:// through s3fs, an S3 endpoint such as OBS's too; file:// for a mounted one;
https:// for a file that is fetched.
"""

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Self, TypeAlias

import fsspec
from fsspec.core import url_to_fs

from models.errors import InvalidValueError, TransferFailedError
from models.manifest import MANIFEST_FILE
from models.publish import Draft, drafted, newest_of

CACHE_VARIABLE = "CARDINAL_CACHE_FOLDER"

Sizes: TypeAlias = Mapping[str, int | None]  # a web server may not say it

_STREAMS = 16

_WITHOUT_FOLDERS = {"http", "https"}  # where a listing would be the file itself, read for links

# Where an object appears whole or not at all. Elsewhere it is sent under another name, and then renamed.
_OBJECT_STORAGES = {"abfs", "az", "gcs", "gs", "obs", "oss", "s3", "s3a"}


def is_url(where: str) -> bool:
    """Tell a URL from a path."""
    return "://" in where


def cache_folder() -> Path:
    """Return the folder for what is fetched: CARDINAL_CACHE_FOLDER, or cardinal in the user's cache."""
    own = os.environ.get(CACHE_VARIABLE)
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cardinal")


def fetched(where: str, into: Path) -> Path:
    """Return the path of what lies at a URL, a file or a folder, fetched whole into a folder; a path as it is.

    A copy is used again without asking the storage. One that was broken off is not used, but gone on with: files
    that have their size stay. Several processes may ask at once, and one of them fetches.
    Raises InvalidValueError if nothing lies there, TransferFailedError with the object that could not be fetched.
    """
    if not is_url(where):
        return Path(where)
    copy = into / f"{hashlib.sha256(where.encode()).hexdigest()[:12]}-{PurePosixPath(where).name}"
    into.mkdir(parents=True, exist_ok=True)
    with alone(into / f".{copy.name}.lock"):
        if not copy.exists():
            _fetch(_Place.at(where), copy)
    return copy


class Mirror:
    """Keeps a folder's copy at a URL, and gives it back where the folder is lost."""

    def __init__(self, url: str) -> None:
        self._place = _Place.at(url)
        self._sent: dict[str, tuple[int, int]] = {}

    def send(self, folder: Path) -> None:
        """Send what is new or changed, then remove there what was sent before and is gone here.

        Hidden files stay behind. Raises TransferFailedError; the next call sends what this one could not.
        """
        files = _visible(folder)
        for name, file in files.items():
            state = _state(file)
            if self._sent.get(name) != state:
                self._place.put(file, name)
                self._sent[name] = state
        for name in self._sent.keys() - files.keys():
            self._place.remove(name)
            del self._sent[name]

    def take_over(self, folder: Path, pattern: str) -> None:
        """Count as sent what lies there of names that never change, in its size or gone from the folder."""
        files = _visible(folder)
        for name, size in self._place.objects().items():
            if not fnmatch(name, pattern):
                continue
            if name not in files:
                self._sent[name] = (0, 0)
            elif _has_size(files[name], size):
                self._sent[name] = _state(files[name])

    def names(self) -> list[str]:
        """Return the names of all that lies there."""
        return sorted(self._place.objects())

    def fetch(self, folder: Path) -> None:
        """Bring all that lies there into a folder; files appear when all have arrived, in the order of their names.

        Hidden parts of a fetch that broke off are gone on with. Processes of one machine wait for one another, and
        what is there in its size is not fetched twice. Raises TransferFailedError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ".fetch.lock"):
            objects = self._place.objects()
            missing = [name for name in sorted(objects) if not _has_size(folder / name, objects[name])]
            parts = {name: (folder / name).with_name(f".{PurePosixPath(name).name}.part") for name in missing}
            self._place.get_all(parts, objects)
            for name, part in parts.items():
                part.replace(folder / name)
        self._sent = {name: _state(folder / name) for name in objects}


@contextmanager
def drafted_at(where: str, model: str, version: int | None = None) -> Iterator[Draft]:
    """Yield a draft as `models.publish.drafted` does, for a repository at a path or a URL.

    At a URL the manifest is sent last: a version without one is not whole.
    Two publishers at one time may send the same version there; a storage has no lock that would tell them.
    """
    if not is_url(where):
        with drafted(Path(where), model, version) as draft:
            yield draft
        return
    place = _Place.at(f"{where.rstrip('/')}/{model}")
    versions = {PurePosixPath(name).parts[0] for name in place.objects()}
    if version is None:
        version = newest_of(versions) + 1
    elif str(version) in versions:
        raise InvalidValueError(f"version {version} of {model} exists already; allowed is one that does not")
    with TemporaryDirectory(prefix="publishing-") as folder:
        with drafted(Path(folder), model, version) as draft:
            yield draft
        files = _visible(draft.target)
        for name in sorted(files, key=MANIFEST_FILE.__eq__):
            place.put(files[name], f"{version}/{name}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads to."""

    url: str
    storage: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the place; raises InvalidValueError for a kind of URL that is not known or not installed."""
        try:
            storage, root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InvalidValueError(
                f"{url} cannot be used: {error}; s3:// needs pip install 'cardinal-serving[storage]',"
                " and others the package of fsspec that reaches them"
            ) from error
        return cls(url.rstrip("/"), storage, root.rstrip("/"))

    def objects(self) -> Sizes:
        """Return the sizes of all objects there, by their names below it; a single object's name is empty."""
        with self._told("listed"):
            if not _WITHOUT_FOLDERS.isdisjoint(_protocols(self.storage)):
                return {"": self.storage.info(self.root).get("size")}
            self.storage.invalidate_cache()
            found = self.storage.find(self.root, detail=True)
        sizes = {
            name.removeprefix(self.root).lstrip("/"): about["size"]
            for name, about in found.items()
            if not name.endswith("/")  # what consoles leave to show an empty folder
        }
        for name in sizes:
            if ".." in PurePosixPath(name).parts:
                raise InvalidValueError(f"{self.url} holds {name!r}; allowed are names without '..'")
        return sizes

    def get(self, name: str, size: int | None, target: Path) -> None:
        """Fetch an object, unless it is there in its size."""
        if _has_size(target, size):
            return
        with self._told("fetched", name):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.storage.get_file(f"{self.root}/{name}".rstrip("/"), str(target))
            _check_size(target.stat().st_size, size)

    def get_all(self, targets: Mapping[str, Path], sizes: Sizes) -> None:
        """Fetch objects, some at a time; what has arrived when one cannot be had stays there."""
        left = deque(targets)

        def fetch() -> None:
            with suppress(IndexError):
                while True:
                    name = left.popleft()
                    self.get(name, sizes[name], targets[name])

        with ThreadPoolExecutor(_STREAMS, thread_name_prefix="fetch") as threads:
            begun = [threads.submit(fetch) for _ in range(_STREAMS)]
            try:
                for one in as_completed(begun):
                    one.result()
            finally:
                left.clear()

    def put(self, file: Path, name: str) -> None:
        """Send a file, which appears there at once."""
        target = f"{self.root}/{name}"
        with self._told("sent", name):
            if _OBJECT_STORAGES.isdisjoint(_protocols(self.storage)):
                part = f"{target}.part"
                self.storage.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.storage.put_file(str(file), part)
                self.storage.mv(part, target)
            else:
                self.storage.put_file(str(file), target)
            self.storage.invalidate_cache()
            _check_size(self.storage.size(target), file.stat().st_size)

    def remove(self, name: str) -> None:
        """Remove an object, if it is still there."""
        with self._told("removed", name), suppress(FileNotFoundError):
            self.storage.rm_file(f"{self.root}/{name}")

    @contextmanager
    def _told(self, done: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage's library raises its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TransferFailedError(
                f"{self.url}/{name}".rstrip("/") + f" could not be {done}: {reason}"
            ) from error


def _state(file: Path) -> tuple[int, int]:
    """Return what changes with a file: its size and the time of its change."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _has_size(file: Path, size: int | None) -> bool:
    return file.is_file() and file.stat().st_size == size


def _check_size(arrived: int, sent: int | None) -> None:
    if sent is not None and arrived != sent:
        raise OSError(f"{arrived} of its {sent} bytes arrived")


def _protocols(storage: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (storage.protocol,) if isinstance(storage.protocol, str) else tuple(storage.protocol)


def _fetch(place: _Place, copy: Path) -> None:
    """Make a copy that appears whole; what a fetch that breaks off leaves is hidden."""
    objects = place.objects()
    if not objects:
        raise InvalidValueError(f"{place.url} holds nothing; allowed is a file, or a folder of files")
    part = copy.with_name(f".{copy.name}.part")
    for name, file in _visible(part).items():
        if name not in objects:  # it was there when the fetch began that broke off
            file.unlink()
    try:
        place.get_all({name: part / name for name in objects}, objects)
    except TransferFailedError as error:
        raise TransferFailedError(
            f"{error}; what arrived is kept in {part}, and the next try goes on from there"
        ) from error
    part.rename(copy)


@contextmanager
def alone(lock: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold a lock, where the file system has any: wait for another process, or raise BlockingIOError."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield


def _visible(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their names below it, without hidden ones."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    }
