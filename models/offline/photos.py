"""Find photos: a folder, with or without a folder for each class, or CIFAR-10 -> pictures by name, in a fixed order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image

from models.errors import InvalidValueError
from models.pictures import FORMATS, SUFFIXES, read_picture
from models.training.datasets import Cifar10, class_names

Format: TypeAlias = Literal["folder", "cifar10"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A picture that can be read: `where` it is, its file `name`, and its class, if that is known."""

    where: str
    name: str
    label: int | None
    read: Callable[[], Image.Image]


def find_photos(folder: Path, form: Format) -> list[Photo]:
    """Return the photos of a folder, sorted by path, or the 10,000 of CIFAR-10's test_batch.bin in its order.

    Classes are the folders in the folder, numbered in the order of their names. Raises InvalidValueError where
    there is no photo, or where some are in a class and others are not.
    """
    if form == "cifar10":
        return _cifar10(folder)
    files = list(photo_files(folder))
    if not files:
        raise InvalidValueError(f"{folder} has no photo; allowed are {FORMATS} files ({', '.join(SUFFIXES)})")
    beside = [file for file in files if file.parent == folder]
    if beside and len(beside) < len(files):
        raise InvalidValueError(
            f"{folder} has photos, such as {beside[0].name}, beside folders with photos;"
            " allowed are photos alone, or a folder of them for each class"
        )
    classes = () if beside else class_names(str(folder), "photos")
    numbers = {name: number for number, name in enumerate(classes)}
    return [
        Photo(
            where=str(file),
            name=file.name,
            label=numbers.get(file.relative_to(folder).parts[0]),
            read=partial(read_picture, file),
        )
        for file in files
    ]


def photo_files(folder: Path) -> Iterator[Path]:
    """Yield the photos in a folder and in those in it, sorted by path; what is hidden is passed over."""
    if not folder.is_dir():
        raise InvalidValueError(f"{folder} is no folder; allowed is a folder of photos")
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in SUFFIXES and file.is_file() and not is_hidden:
            yield file


def _cifar10(folder: Path) -> list[Photo]:
    pictures = Cifar10(folder, "evaluation")
    return [
        Photo(
            where=f"picture {index + 1} of {folder}",
            name=f"img{index + 1}.png",
            label=int(label),
            read=partial(pictures.picture, index),
        )
        for index, label in enumerate(pictures.labels)
    ]
