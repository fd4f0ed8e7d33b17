"""Find the pictures of a training and their classes: folders, files, or a seed -> pictures by index.

Damage that can be seen without decoding is refused when a dataset is opened; a damaged picture when it is asked for.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidValueError
from models.pictures import FORMATS, SUFFIXES, read_picture
from models.storage import cache_folder, fetched
from models.training.recipe import DataChoice

Part: TypeAlias = Literal["train", "evaluation"]

CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

_CIFAR10_FILES: dict[Part, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "evaluation": ("test_batch.bin",),
}
_CIFAR10_RECORDS = 10_000  # in a file
_CIFAR10_SIDE = 32
_CIFAR10_RECORD_BYTES = (
    1 + 3 * _CIFAR10_SIDE * _CIFAR10_SIDE
)  # the class, then the planes of red, green and blue

_SYSTEM_FILES = ("thumbs.db", "desktop.ini")  # beside hidden ones: what file managers leave behind

_LISTED = 5  # missing classes, in an error

_SYNTHETIC_SIDES = (48, 80)
_SYNTHETIC_GRID = 4  # a class is a pattern of this many colours across and down
_SYNTHETIC_NOISE = 24.0


class Dataset(Protocol):
    """Pictures by index, each of a class."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes, by index."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the classes of the pictures, (n,)."""

    def picture(self, index: int) -> Image.Image:
        """Return a picture, upright RGB, for reading only; any thread may ask.

        Raises InvalidValueError, with the file, if it is damaged.
        """

    def encoded(self, index: int) -> bytes | None:
        """Return the picture's own file as it is, JPEG, PNG or WebP; None where it has none."""

    def __len__(self) -> int:
        """Return how many pictures there are."""


def open_dataset(choice: DataChoice, part: Part, *, seed: int, classes: int) -> Dataset:
    """Return the pictures of training or of evaluation, found once, here.

    Raises InvalidValueError, with the file or folder, if they are not what the recipe says.
    """
    dataset: Dataset
    if choice.format == "synthetic":
        return SyntheticPictures(choice.images, part, seed=seed, classes=classes)
    where = _where(choice, part)
    folder = fetched(where, cache_folder())
    if choice.format == "cifar10":
        dataset = Cifar10(folder, part)
    else:
        dataset = PictureFolder(str(folder), f"data.{part}")
        if part == "evaluation" and choice.train and Path(choice.train).is_dir():
            _check_same_classes(choice, str(folder))
    if len(dataset.names) != classes:
        raise InvalidValueError(
            f"data.{part} {where} has {len(dataset.names)} classes; allowed are the {classes} of network.classes"
        )
    return KeptPictures(dataset) if choice.is_cached else dataset


def _where(choice: DataChoice, part: Part) -> str:
    where: str = getattr(choice, part)
    if not where and choice.format == "cifar10":
        where = choice.train
    if not where:
        raise InvalidValueError(f"data.{part} is empty; allowed is a path or URL")
    return where


class PictureFolder:
    """A folder with a folder of pictures for each class; classes are numbered in the order of their names.

    Hidden files and folders, and those that file managers leave behind, are passed over everywhere; files beside
    the folders of the classes, such as a README, too. Anything but pictures in the folder of a class is refused.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.names = class_names(folder, key)
        files = [_picture_files(Path(folder, name)) for name in self.names]
        self._files = [file for of_class in files for file in of_class]
        self.labels = np.repeat(np.arange(len(files)), [len(of_class) for of_class in files])

    def picture(self, index: int) -> Image.Image:
        """Return a picture."""
        return read_picture(self._files[index])

    def encoded(self, index: int) -> bytes | None:
        """Return the picture's file."""
        return Path(self._files[index]).read_bytes()

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self._files)


class Cifar10:
    """The binary version of CIFAR-10: five files of training, one of evaluation, never mixed."""

    names = CIFAR10_NAMES

    def __init__(self, folder: Path, part: Part) -> None:
        records = np.concatenate([_cifar10_records(folder / name) for name in _CIFAR10_FILES[part]])
        self.labels = records[:, 0].astype(np.int64)
        planes = records[:, 1:].reshape(-1, 3, _CIFAR10_SIDE, _CIFAR10_SIDE)
        self._pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    def picture(self, index: int) -> Image.Image:
        """Return a picture."""
        return Image.fromarray(self._pixels[index])

    def encoded(self, index: int) -> bytes | None:  # noqa: ARG002 - none has a file
        """Return None."""
        return None

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.labels)


class SyntheticPictures:
    """Pictures drawn by a seed: each class has a pattern of colours, each picture its size and noise.

    Training and evaluation have the same patterns and different pictures.
    """

    def __init__(self, images: int, part: Part, *, seed: int, classes: int) -> None:
        self.names = tuple(f"pattern {index}" for index in range(classes))
        self.labels = np.arange(images) % classes
        self._key = (seed, 1 if part == "train" else 2)
        grid = (classes, _SYNTHETIC_GRID, _SYNTHETIC_GRID, 3)
        self._patterns = np.random.default_rng(seed).integers(32, 224, grid, np.uint8)

    def picture(self, index: int) -> Image.Image:
        """Return a picture."""
        chance = np.random.default_rng((*self._key, index))
        width, height = chance.integers(*_SYNTHETIC_SIDES, 2, endpoint=True)
        pattern = Image.fromarray(self._patterns[self.labels[index]])
        smooth = np.asarray(pattern.resize((int(width), int(height)), Image.Resampling.BICUBIC))
        noisy = smooth + chance.normal(0, _SYNTHETIC_NOISE, smooth.shape)
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))

    def encoded(self, index: int) -> bytes | None:  # noqa: ARG002 - none has a file
        """Return None."""
        return None

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.labels)


class KeptPictures:
    """A dataset whose pictures stay in memory once they were decoded."""

    def __init__(self, dataset: Dataset) -> None:
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset = dataset
        self._kept: dict[int, Image.Image] = {}

    def picture(self, index: int) -> Image.Image:
        """Return a picture; threads that ask for it at the same moment get the same object."""
        kept = self._kept.get(index)
        return self._kept.setdefault(index, self._dataset.picture(index)) if kept is None else kept

    def encoded(self, index: int) -> bytes | None:
        """Return the picture's own file, which is not kept."""
        return self._dataset.encoded(index)

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self._dataset)


def class_names(folder: str, key: str) -> tuple[str, ...]:
    """Return the names of the class folders, in order; `key` says in an error whose folder it is."""
    try:
        names = sorted(
            entry.name for entry in os.scandir(folder) if entry.is_dir() and not _is_passed_over(entry)
        )
    except OSError as error:
        raise InvalidValueError(
            f"{key} {folder} cannot be read: {error.strerror}; allowed is a folder with a folder for each class"
        ) from error
    if unreadable := [name for name in names if not _is_utf8(name)]:
        raise InvalidValueError(f"{key} {folder} has a folder {unreadable[0]!r}; allowed are names in UTF-8")
    if not names:
        raise InvalidValueError(
            f"{key} {folder} has no folders; allowed is a folder of pictures for each class"
        )
    return tuple(names)


def _is_utf8(name: str) -> bool:
    return name == name.encode("utf-8", "replace").decode("utf-8")


def _check_same_classes(choice: DataChoice, evaluation: str) -> None:
    trained, evaluated = class_names(choice.train, "data.train"), class_names(evaluation, "data.evaluation")
    for names, others, where, other in (
        (trained, evaluated, f"data.evaluation {choice.evaluation}", f"data.train {choice.train}"),
        (evaluated, trained, f"data.train {choice.train}", f"data.evaluation {choice.evaluation}"),
    ):
        if missing := [name for name in names if name not in others]:
            raise InvalidValueError(
                f"{where} has no folder {_listed(missing)}, and {other} has; allowed are the same folders in both"
            )


def _listed(names: Sequence[str]) -> str:
    shown, more = names[:_LISTED], names[_LISTED:]
    return ", ".join(map(repr, shown)) + (f" and {len(more)} more" if more else "")


def _is_passed_over(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES


def _picture_files(folder: Path) -> list[str]:
    try:
        entries = [entry for entry in os.scandir(folder) if not _is_passed_over(entry)]
    except OSError as error:
        raise InvalidValueError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir() or not entry.name.lower().endswith(SUFFIXES):
            raise InvalidValueError(
                f"{entry.path} is no picture by its name; allowed in the folder of a class are {FORMATS}"
                f" files ({', '.join(SUFFIXES)})"
            )
        if not entry.is_file():
            raise InvalidValueError(f"{entry.path} is no file, or a link that leads to none")
    if not entries:
        raise InvalidValueError(f"{folder} has no pictures; allowed is at least one in the folder of a class")
    return sorted(entry.path for entry in entries)


def _cifar10_records(file: Path) -> NDArray[np.uint8]:
    try:
        values = np.fromfile(file, np.uint8)
    except OSError as error:
        raise InvalidValueError(
            f"{file} cannot be read: {error.strerror}; CIFAR-10's binary version is needed"
        ) from error
    allowed = _CIFAR10_RECORDS * _CIFAR10_RECORD_BYTES
    if values.size != allowed:
        raise InvalidValueError(
            f"{file} has {values.size} bytes; allowed are {allowed}, as CIFAR-10's binary version has"
        )
    records = values.reshape(_CIFAR10_RECORDS, _CIFAR10_RECORD_BYTES)
    if (highest := records[:, 0].max()) >= len(CIFAR10_NAMES):
        raise InvalidValueError(f"{file} has class {highest}; allowed are 0 to {len(CIFAR10_NAMES) - 1}")
    return records
