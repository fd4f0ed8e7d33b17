"""Judge raw results: a folder of .bin files with scores of pictures, and labels -> Metric."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.offline.labels import FILLED, labels_of
from models.offline.metric import Metric, Places, metric, place_of_class_0
from models.training.evaluation import places_of

Dtype: TypeAlias = Literal["float16", "float32"]

_DTYPES: tuple[Dtype, ...] = ("float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What is known of the numbers; what is not is inferred from the sizes of the files."""

    dtype: Dtype | None = None
    classes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    dtype: Dtype
    scores: int  # of a picture


def score_raw(folder: Path, labels: Mapping[str, int] | NDArray[np.int64], stated: Stated) -> Metric:
    """Judge files with the scores of one picture each, by name, or of a batch each, by number.

    Raises InvalidValueError with the file that has no label or another size than the others, and where sizes
    leave open what the numbers are.
    """
    files = sorted(folder.glob("*.bin"))
    if not files:
        raise InvalidValueError(f"{folder} has no .bin file; allowed is a folder of results")
    right = _by_number(files, labels) if isinstance(labels, np.ndarray) else _by_name(files, labels)
    highest = max(int(classes.max()) for classes in right.values())
    rows = len(next(iter(right.values())))
    numbers = _numbers(_common_size(files), rows, highest, stated)
    offset = place_of_class_0(numbers.scores, stated.classes)
    if highest + offset >= numbers.scores:
        raise InvalidValueError(f"results have {numbers.scores} scores a picture, and labels class {highest}")

    def places() -> Iterator[Places]:
        for file, classes in right.items():
            scores = np.fromfile(file, np.dtype(numbers.dtype).newbyteorder("<")).reshape(
                rows, numbers.scores
            )
            is_picture = classes != FILLED
            yield places_of(scores[is_picture].astype(np.float32), classes[is_picture] + offset)

    return metric(places(), numbers.scores)


def _by_name(files: Sequence[Path], labels: Mapping[str, int]) -> dict[Path, NDArray[np.int64]]:
    return {file: np.array([label]) for file, label in labels_of(files, labels).items()}


def _by_number(files: Sequence[Path], labels: NDArray[np.int64]) -> dict[Path, NDArray[np.int64]]:
    """Take the last number of the names or, where the results have numbers of their own, the one before."""
    wanted = set(range(len(labels)))
    for place in (-1, -2):
        words = [file.stem.split("_")[place:][:1] for file in files]
        numbers = [int(word[0]) for word in words if word and word[0].isdecimal()]
        if len(numbers) == len(files) == len(wanted) and set(numbers) == wanted:
            return {file: labels[number] for file, number in zip(files, numbers, strict=True)}
    raise InvalidValueError(
        f"results are {len(files)} files, from {files[0].name} to {files[-1].name}; allowed are"
        f" those of the {len(wanted)} batches of labels, numbered from 0 to {len(wanted) - 1}"
    )


def _common_size(files: Sequence[Path]) -> int:
    n_bytes = files[0].stat().st_size
    for file in files:
        if file.stat().st_size != n_bytes:
            raise InvalidValueError(
                f"{file} has {file.stat().st_size} bytes; allowed are as many as in {files[0].name}, {n_bytes}"
            )
    return n_bytes


def _numbers(n_bytes: int, rows: int, highest: int, stated: Stated) -> _Numbers:
    """Return the only numbers that such files can hold, of more scores than the highest class."""
    able: list[_Numbers] = []
    for dtype in [stated.dtype] if stated.dtype else _DTYPES:
        scores, rest = divmod(n_bytes, rows * np.dtype(dtype).itemsize)
        is_stated = stated.classes is None or scores in (stated.classes, stated.classes + 1)
        if not rest and is_stated and scores > highest:
            able.append(_Numbers(dtype=dtype, scores=scores))
    if len(able) == 1:
        return able[0]
    told = " or ".join(f"{numbers.scores} {numbers.dtype}" for numbers in able) or "none"
    raise InvalidValueError(
        f"results have {n_bytes} bytes for {rows} pictures of classes up to {highest}: scores of a picture could be"
        f" {told}; allowed is what the type and the number of classes leave no doubt about"
    )
