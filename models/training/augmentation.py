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

_TRIES = 10  # of a random part that fits, before the centre is taken
_MIRRORED_SHARE = 0.5


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

    def row(self, picture: Image.Image, chance: np.random.Generator) -> Row:
        """Return the row that these draws make; the same draws make the same row."""
        row = self._cropped(picture, chance)
        if self._augmentation.mirror and chance.random() < _MIRRORED_SHARE:
            row = np.ascontiguousarray(row[:, ::-1])
        return coloured(row, self._augmentation, chance)

    def _cropped(self, picture: Image.Image, chance: np.random.Generator) -> Row:
        augmentation = self._augmentation
        if augmentation.crop == "resized":
            return self._stretching.rows(random_part(picture.size, augmentation, chance).of(picture))
        if augmentation.crop == "padded":
            picture = shifted(picture.size, augmentation.padding, chance).of(picture)
        return self._preprocessing.rows(picture)


def shifted(size: tuple[int, int], padding: int, chance: np.random.Generator) -> Box:
    """Return a box of the picture's own size, at a random place on the picture with a border."""
    left, top = (int(offset) for offset in chance.integers(-padding, padding, 2, endpoint=True))
    return Box(left, top, *size)


def random_part(size: tuple[int, int], augmentation: Augmentation, chance: np.random.Generator) -> Box:
    """Return a part whose share of the area and whose aspect (width over height) lie within the bounds.

    Shares are uniform, aspects are so in their logarithm, places uniform. If ten draws do not fit into the picture,
    it is the greatest part in the centre whose aspect is allowed.
    """
    width, height = size
    shortest, longest = map(math.log, augmentation.aspect)
    for _ in range(_TRIES):
        area = width * height * chance.uniform(*augmentation.scale)
        aspect = math.exp(chance.uniform(shortest, longest))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = (int(chance.integers(room, endpoint=True)) for room in (width - wide, height - high))
            return Box(left, top, wide, high)
    return _centre(width, height, augmentation.aspect)


def _centre(width: int, height: int, aspect: tuple[float, float]) -> Box:
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
