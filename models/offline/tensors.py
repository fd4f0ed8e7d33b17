"""Write photos as a network takes them: photos -> a file of numbers for each, or for each batch, in a new folder."""

import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from models.errors import InvalidValueError
from models.offline.photos import Photo
from models.preprocessing import Preprocessing

NameRule: TypeAlias = Literal["last-dot", "first-dot"]

_LISTED = 5  # collisions, in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How numbers lie in a file: planes are normalised float32 (n, 3, side, side), rows uint8 (n, side, side, 3).

    With `batch` a file holds so many pictures, and the last one is filled up with black ones.
    """

    preprocessing: Preprocessing
    layout: Literal["planes", "rows"] = "planes"
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """A file that is to be written, and the photos in it."""

    name: str
    photos: Sequence[Photo]


def single_files(photos: Sequence[Photo], rule: NameRule = "last-dot") -> list[TensorFile]:
    """Return a file for each photo, named by its text before the last dot, or before the first.

    Raises InvalidValueError with the photos whose files would have the same name.
    """
    by_name: defaultdict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        by_name[f"{stem(photo.name, rule)}.bin"].append(photo)
    taken = [
        f"{name} of {' and '.join(photo.where for photo in own)}" for name, own in by_name.items() if own[1:]
    ]
    if taken:
        plural, more = "s" * (len(taken) > 1), f"; {len(taken) - _LISTED} more" * (len(taken) > _LISTED)
        raise InvalidValueError(
            f"names of {len(taken)} file{plural} collide: {'; '.join(taken[:_LISTED])}{more}"
        )
    return [TensorFile(name=name, photos=own) for name, own in by_name.items()]


def batch_files(photos: Sequence[Photo], batch: int, prefix: str) -> list[TensorFile]:
    """Return a file for each batch, `<prefix>_bs<batch>_<number>.bin`, with its photos; numbers begin with 0."""
    if batch < 1:
        raise InvalidValueError(f"batch is {batch}; allowed is at least 1")
    return [
        TensorFile(name=f"{prefix}_bs{batch}_{number}.bin", photos=photos[start : start + batch])
        for number, start in enumerate(range(0, len(photos), batch))
    ]


def stem(name: str, rule: NameRule) -> str:
    """Return a file's name without its ending."""
    return name.split(".", 1)[0] if rule == "first-dot" else Path(name).stem


def write_tensors(files: Sequence[TensorFile], folder: Path, form: Form) -> None:
    """Write the files into a folder that appears with all of them, or not at all.

    Raises InvalidValueError where the folder is neither new nor empty, or a photo cannot be read.
    """
    with _new_folder(folder) as draft, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda file: _write(draft / file.name, file.photos, form), files):
            pass


def write_pngs(photos: Sequence[Photo], folder: Path) -> None:
    """Write photos as PNG files under their names, which end so, as write_tensors does."""
    with _new_folder(folder) as draft:
        for photo in photos:
            photo.read().save(draft / photo.name, compress_level=1)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft of a folder, which takes its place where the block ends well, and is removed where not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidValueError(f"{folder} exists; allowed is a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(file: Path, photos: Sequence[Photo], form: Form) -> None:
    side = form.preprocessing.crop
    rows = np.zeros((form.batch or len(photos), side, side, 3), np.uint8)
    for row, photo in zip(rows, photos, strict=False):
        row[...] = form.preprocessing.rows(photo.read())
    values = rows if form.layout == "rows" else form.preprocessing.planes(rows)
    values.tofile(file)
