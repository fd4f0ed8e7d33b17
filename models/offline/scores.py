"""Judge text results: a folder of files with the scores of a picture, or its best classes, and labels -> Metric."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.offline.labels import labels_of
from models.offline.metric import DEPTH, Metric, Places, metric, place_of_class_0
from models.training.evaluation import places_of


def score_results(folder: Path, labels: Mapping[str, int], classes: int | None = None) -> Metric:
    """Judge files with one line of scores each, as the benchmark tool and ais_bench write them.

    Without `classes` there are as many as scores, or 1,000 where there are 1,001 scores, the first of which is
    that of no class. Raises InvalidValueError with the file that has no label, or cannot be read.
    """
    right = labels_of(_text_files(folder), labels)
    first = _scores(next(iter(right)))
    offset = place_of_class_0(len(first), classes)

    def places() -> Iterator[Places]:
        for file, label in right.items():
            scores = _scores(file)
            if len(scores) != len(first):
                raise InvalidValueError(
                    f"{file} has {len(scores)} scores; allowed are as many as in others, {len(first)}"
                )
            if label + offset >= len(scores):
                raise InvalidValueError(
                    f"{file} has {len(scores)} scores, and its picture is of class {label}"
                )
            yield places_of(scores[np.newaxis], np.array([label + offset]))

    return metric(places(), len(first))


def score_ids(folder: Path, labels: Mapping[str, int], classes: int) -> Metric:
    """Judge files with the best classes of a picture in their order, as MindX SDK's example writes them.

    Raises InvalidValueError with the file that has no label, or cannot be read.
    """
    right = labels_of(_text_files(folder), labels)
    ids = {file: _ids(file, classes) for file in right}
    for (_, before), (file, after) in pairwise(ids.items()):
        if len(before) != len(after):
            raise InvalidValueError(
                f"{file} has {len(after)} classes; allowed are as many as in others, {len(before)}"
            )
    places = [
        answers.index(right[file]) if right[file] in answers else classes for file, answers in ids.items()
    ]
    depth = min(DEPTH, len(next(iter(ids.values()))))
    return metric([np.array(places)], classes, depth)


def _text_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise InvalidValueError(f"{folder} has no .txt file; allowed is a folder of results")
    return files


def _scores(file: Path) -> NDArray[np.float64]:
    lines = [line for line in _text(file).splitlines() if line.strip()]
    if len(lines) != 1:
        raise InvalidValueError(f"{file} has {len(lines)} lines of scores; allowed is one, of one picture")
    try:
        return np.array(lines[0].split(), np.float64)
    except ValueError as error:
        raise InvalidValueError(f"{file} has something else than numbers: {error}") from error


def _ids(file: Path, classes: int) -> list[int]:
    words = _text(file).split()
    ids = [int(word) for word in words if word.isdecimal()]
    if not ids or len(set(ids)) != len(words) or max(ids) >= classes:
        raise InvalidValueError(
            f"{file} holds {' '.join(words)!r}; allowed are different classes from 0 to {classes - 1}"
        )
    return ids


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{file} is no text") from error
