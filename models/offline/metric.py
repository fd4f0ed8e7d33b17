"""Count how often the right class was first, or among the first ones: places -> a sentence, or JSON."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError

Places: TypeAlias = NDArray[np.int64]  # how many classes are before the right one

DEPTH = 5
WITH_BACKGROUND = 1001  # scores of networks whose class 0 is none of ImageNet's


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What was counted; `hits` are the pictures whose class was among the first one, two, and so on."""

    images: int
    classes: int
    hits: tuple[int, ...]

    def sentence(self) -> str:
        """Return the first and the last share, with all their digits."""
        first, last = self.hits[0] / self.images, self.hits[-1] / self.images
        return f"{self.images:,} pictures of {self.classes:,} classes: top-1 {first}, top-{len(self.hits)} {last}"

    def document(self) -> str:
        """Return JSON with the keys of the references' scripts; shares are in percent, and not rounded."""
        counts = {"Number of images": self.images, "Number of classes": self.classes}
        shares = [
            {"key": f"Top{depth} accuracy", "value": 100 * hits / self.images, "hits": hits}
            for depth, hits in enumerate(self.hits, start=1)
        ]
        value = [*({"key": key, "value": count} for key, count in counts.items()), *shares]
        return json.dumps({"title": "Overall statistical evaluation", "value": value}, indent=2) + "\n"


def metric(places: Iterable[Places], classes: int, depth: int = DEPTH) -> Metric:
    """Count the places of pictures, by blocks; there are at most as many depths as classes."""
    depths = np.arange(1, min(depth, classes) + 1)
    hits, images = np.zeros(len(depths), np.int64), 0
    for block in places:
        hits += (block < depths[:, np.newaxis]).sum(axis=1)
        images += len(block)
    return Metric(images=images, classes=classes, hits=tuple(hits.tolist()))


def place_of_class_0(scores: int, classes: int | None) -> int:
    """Return which score is that of class 0: 1 where one of no class is before it, which 1001 scores say.

    Raises InvalidValueError where there are neither as many scores as classes, nor one more.
    """
    if classes is None:
        return int(scores == WITH_BACKGROUND)
    if scores not in (classes, classes + 1):
        raise InvalidValueError(f"a picture has {scores} scores; allowed are {classes}, or one more")
    return scores - classes
