"""Storages in memory for tests: one whose transfers break off, and what is there."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Faulty(MemoryFileSystem):
    """A storage in memory whose n-th transfer breaks off, with half of the object or without an error."""

    protocol = "faulty"
    cachable = False
    breaks_at = 0
    is_silent = False
    transfers: list[str]
    numbers: Iterator[int]

    @classmethod
    def reset(cls, breaks_at: int = 0, *, is_silent: bool = False) -> None:
        """Let transfers break from this one on, counted from 1 and from now; 0 lets none."""
        cls.breaks_at, cls.is_silent, cls.transfers, cls.numbers = breaks_at, is_silent, [], count(1)

    def _breaks(self, name: str) -> bool:
        self.transfers.append(name)
        return 0 < self.breaks_at <= next(self.numbers)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        """Fetch a file, or half of it."""
        if self._breaks(rpath):
            Path(lpath).write_bytes(self.cat_file(rpath)[:50])
            if self.is_silent:
                return
            raise ConnectionResetError("the other side is gone")
        super().get_file(rpath, lpath, **options)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        """Send a file, or half of it."""
        if self._breaks(rpath):
            self.pipe_file(rpath, Path(lpath).read_bytes()[:50])
            raise ConnectionResetError("the other side is gone")
        super().put_file(lpath, rpath, **options)


fsspec.register_implementation("faulty", Faulty, clobber=True)


def fill(url: str, files: dict[str, bytes]) -> str:
    """Put files there, and return the URL."""
    storage, root = fsspec.core.url_to_fs(url)
    for name, body in files.items():
        storage.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        storage.pipe_file(f"{root}/{name}", body)
    return url


def held(url: str) -> dict[str, bytes]:
    """Return the files that are there."""
    storage, root = fsspec.core.url_to_fs(url)
    storage.invalidate_cache()
    return {name.removeprefix(f"{root}/"): storage.cat_file(name) for name in storage.find(root)}
