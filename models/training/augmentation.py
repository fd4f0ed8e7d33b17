"""Turn a picture of training into one of its many rows: picture, chance -> (side, side, 3) uint8.

The algorithms and numbers are those of the references (MindSpore's and torchvision's operators).
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from models.preprocessing import Preprocessing
from models.training.recipe import Augmentation

Row: TypeAlias = NDArray[np.uint8]  # (side, side, 3)
Bounds: TypeAlias = tuple[float, float]

_TRIES = 10  # of a random part that fits, before the centre is taken
_MIRRORED_SHARE = 0.5
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture; it may reach over the edges, where pictures are black."""

    left: int
    top: int
    width: int
    height: int

    def of(self, picture: Image.Image) -> Image.Image:
        """Return that part."""
        return picture.crop((self.left, self.top, self.left + self.width, self.top + self.height))


class Augmenter:
    """Makes rows as a recipe says; without any augmentation they are the preprocessing's own."""

    def __init__(self, augmentation: Augmentation, preprocessing: Preprocessing) -> None:
        self._augmentation = augmentation
        self._preprocessing = preprocessing
        self._stretching = replace(preprocessing, mode="exact", size=preprocessing.crop)
        self._blank = np.clip(np.round(preprocessing.mean), 0, 255).astype(np.uint8)

    def row(self, picture: Image.Image, chance: np.random.Generator) -> Row:
        """Return the row that these draws make; the same draws make the same row."""
        row = self._cropped(picture, chance)
        if self._augmentation.mirror and chance.random() < _MIRRORED_SHARE:
            row = np.ascontiguousarray(row[:, ::-1])
        row = coloured(row, self._augmentation, chance)
        if self._augmentation.erasing and chance.random() < self._augmentation.erasing:
            row = erased(row, self._blank, chance)
        return row

    def _cropped(self, picture: Image.Image, chance: np.random.Generator) -> Row:
        augmentation = self._augmentation
        if augmentation.crop == "resized":
            part = random_part(picture.size, augmentation.scale, augmentation.aspect, chance)
            return self._stretching.rows(part.of(picture))
        if augmentation.crop == "padded":
            picture = shifted(picture.size, augmentation.padding, chance).of(picture)
        return self._preprocessing.rows(picture)


def shifted(size: tuple[int, int], padding: int, chance: np.random.Generator) -> Box:
    """Return a box of the picture's own size, at a random place on the picture with a border."""
    left, top = (int(offset) for offset in chance.integers(-padding, padding, 2, endpoint=True))
    return Box(left, top, *size)


def random_part(size: tuple[int, int], scale: Bounds, aspect: Bounds, chance: np.random.Generator) -> Box:
    """Return a part whose share of the area and whose aspect (width over height) lie within the bounds.

    If ten draws do not fit into the picture, it is the greatest part in the centre whose aspect is allowed.
    """
    return _fitting_part(size, scale, aspect, chance) or _centre(*size, aspect)


def _fitting_part(
    size: tuple[int, int], scale: Bounds, aspect: Bounds, chance: np.random.Generator
) -> Box | None:
    """Shares are uniform, aspects are so in their logarithm, places uniform; None if no draw fits."""
    width, height = size
    shortest, longest = map(math.log, aspect)
    for _ in range(_TRIES):
        area = width * height * chance.uniform(*scale)
        drawn = math.exp(chance.uniform(shortest, longest))
        wide, high = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < wide <= width and 0 < high <= height:
            left, top = (int(chance.integers(room, endpoint=True)) for room in (width - wide, height - high))
            return Box(left, top, wide, high)
    return None


def _centre(width: int, height: int, aspect: Bounds) -> Box:
    wide = min(width, max(1, round(height * aspect[1])))
    high = min(height, max(1, round(width / aspect[0])))
    return Box((width - wide) // 2, (height - high) // 2, wide, high)


def coloured(row: Row, augmentation: Augmentation, chance: np.random.Generator) -> Row:
    """Return the row with its brightness, contrast and saturation multiplied, in random order."""
    changes = [
        (enhance, share)
        for enhance, share in (
            (ImageEnhance.Brightness, augmentation.brightness),
            (ImageEnhance.Contrast, augmentation.contrast),
            (ImageEnhance.Color, augmentation.saturation),
        )
        if share
    ]
    if not changes:
        return row
    image = Image.fromarray(row)
    for index in chance.permutation(len(changes)):
        enhance, share = changes[index]
        image = enhance(image).enhance(chance.uniform(max(0.0, 1 - share), 1 + share))
    return np.asarray(image)


def erased(row: Row, blank: Row, chance: np.random.Generator) -> Row:
    """Return the row with a random part of 2 to 33 % of its area blank, 3.3 times as long as wide at most."""
    part = _fitting_part((row.shape[1], row.shape[0]), _ERASED_AREA, _ERASED_ASPECT, chance)
    if part is None:
        return row
    row = row.copy()
    row[part.top : part.top + part.height, part.left : part.left + part.width] = blank
    return row
