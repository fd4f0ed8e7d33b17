"""Write and read which picture is of which class: by the name of its file, or by its place in a batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.offline.photos import Photo
from models.offline.tensors import NameRule, stem
from models.pictures import SUFFIXES

FILLED = -1  # the class of a place that no picture has

_LISTED = 5


def write_labels(photos: Sequence[Photo], file: Path, batch: int | None = None) -> None:
    """Write classes as lines of name and class, as JSON by its ending, or in batches: .npy, (batches, batch).

    Raises InvalidValueError where a class is not known, or two photos of one name are of different classes.
    """
    is_array = file.suffix.lower() == ".npy"
    if is_array is not bool(batch):
        raise InvalidValueError(
            f"labels file is {file}; allowed is .npy for batches,"
            " and .json or a text file for single pictures, which go by their names"
        )
    known = [photo.label for photo in photos if photo.label is not None]
    if len(known) < len(photos):
        raise InvalidValueError("photos are in no folders of classes, and no labels say theirs")
    if batch:
        _save(file, known, batch)
        return
    labels = {photo.name: label for photo, label in zip(photos, known, strict=True)}
    taken = sorted(
        {photo.name for photo, label in zip(photos, known, strict=True) if labels[photo.name] != label}
    )
    if taken:
        raise InvalidValueError(
            f"{len(taken)} names are in more than one class: {', '.join(taken[:_LISTED])}"
        )
    if file.suffix.lower() == ".json":
        file.write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")
    else:
        file.write_text("".join(f"{name} {label}\n" for name, label in labels.items()), encoding="utf-8")


def read_labels(file: Path, rule: NameRule = "last-dot") -> dict[str, int]:
    """Return the class of each picture in lines of name and class, or in JSON, by its name without the ending.

    By "first-dot" the ending begins at the first dot, as where the references named the results.
    Raises InvalidValueError with the line, or the name, that cannot be used.
    """
    named = _json(file) if file.suffix.lower() == ".json" else _lines(file)
    labels: dict[str, int] = {}
    for name, label in named.items():
        short = _short(name, rule)
        if labels.setdefault(short, label) != label:
            raise InvalidValueError(
                f"labels file {file} has {short!r} as class {labels[short]} and {label}; allowed is one"
            )
    return labels


def read_batch_labels(file: Path) -> NDArray[np.int64]:
    """Return the classes of an .npy file, (batches, batch), where FILLED is no picture's."""
    try:
        labels = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise InvalidValueError(f"labels file {file} is no array of numbers: {error}") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "iu":  # noqa: PLR2004
        raise InvalidValueError(f"labels file {file} holds no whole numbers by batch and place in it")
    if not labels.size or labels.min() < FILLED or (labels == FILLED).all():
        raise InvalidValueError(f"labels file {file} has no classes, or negative ones")
    return labels.astype(np.int64)


def labelled(photos: Sequence[Photo], labels: Mapping[str, int], rule: NameRule = "last-dot") -> list[Photo]:
    """Return the photos with their classes by name; raises InvalidValueError with one that has none."""
    names = [_short(photo.name, rule) for photo in photos]
    for photo, name in zip(photos, names, strict=True):
        if name not in labels:
            raise InvalidValueError(f"labels have no {name!r}, which is photo {photo.where}")
    return [replace(photo, label=labels[name]) for photo, name in zip(photos, names, strict=True)]


def labels_of(files: Sequence[Path], labels: Mapping[str, int]) -> dict[Path, int]:
    """Return the class of the picture of each result.

    A result has the picture's name, or all of them have an underscore and a number more. Raises InvalidValueError
    with the result that has no label, or another one of the same picture.
    """
    names = {file: file.stem for file in files}
    if not labels.keys() >= set(names.values()):
        names = {file: name.rpartition("_")[0] or name for file, name in names.items()}
    owners: dict[str, Path] = {}
    for file, name in names.items():
        if name not in labels:
            raise InvalidValueError(f"labels have no {name!r}, which is the picture of {file}")
        if owners.setdefault(name, file) is not file:
            raise InvalidValueError(
                f"{owners[name]} and {file} are both results of {name!r}; allowed is one for each picture"
            )
    return {file: labels[name] for file, name in names.items()}


def _short(name: str, rule: NameRule) -> str:
    """Return a name without its ending; by the last dot only that of a picture is one."""
    return stem(name, rule) if rule == "first-dot" or name.lower().endswith(SUFFIXES) else name


def _save(file: Path, labels: Sequence[int], batch: int) -> None:
    places = np.full((-(-len(labels) // batch), batch), FILLED, np.int32)
    places.ravel()[: len(labels)] = labels
    np.save(file, places)


def _json(file: Path) -> Mapping[str, int]:
    try:
        labels = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidValueError(f"labels file {file} is no JSON: {error}") from error
    if not isinstance(labels, dict) or not all(
        type(label) is int and label >= 0 for label in labels.values()
    ):
        raise InvalidValueError(f"labels file {file} is no object of names and classes, numbered from 0")
    return labels


def _lines(file: Path) -> Mapping[str, int]:
    labels: dict[str, int] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"labels file {file} is not UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal():  # noqa: PLR2004
            raise InvalidValueError(
                f"line {number} of labels file {file} is {line!r}; allowed is name and class"
            )
        label = int(words[1])
        if labels.setdefault(words[0].strip(), label) != label:
            raise InvalidValueError(
                f"line {number} of labels file {file} is {line!r}, and one before says otherwise"
            )
    return labels
