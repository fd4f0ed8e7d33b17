"""Turn a picture into the row that a network was trained on: image -> (crop, crop, 3) uint8."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidValueError
from models.sizes import check_input_size

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How pictures become rows: resize, then centre crop; mean and std (of 0..255 pixels) go into the graph.

    `mode` says what `size` is: "shortest" the shorter side, "exact" both sides.
    """

    mode: Literal["shortest", "exact"] = "shortest"
    size: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        check_input_size(self.crop)
        if self.mode not in ("shortest", "exact"):
            raise InvalidValueError(f"mode is {self.mode!r}; allowed are 'shortest' and 'exact'")
        if self.size < self.crop:
            raise InvalidValueError(f"size is {self.size}; allowed is at least the crop, {self.crop}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise InvalidValueError(
                f"interpolation is {self.interpolation!r}; allowed are 'bilinear' and 'bicubic'"
            )
        if not self.antialias:
            raise InvalidValueError("antialias is False; allowed is only True so far")
        if min(self.std) <= 0:
            raise InvalidValueError(f"std is {self.std}; allowed are three numbers above 0")

    def rows(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the row of one picture, (crop, crop, 3) RGB."""
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        width, height = self._resized(image.width, image.height)
        resized = image.convert("RGB").resize((width, height), filters[self.interpolation])
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        return np.asarray(resized.crop((left, top, left + self.crop, top + self.crop)))

    def planes(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return rows (n, crop, crop, 3) as a framework's network takes them: normalised, (n, 3, crop, crop)."""
        normalised = (rows - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.mode == "exact":
            return self.size, self.size
        if width <= height:
            return self.size, self.size * height // width
        return self.size * width // height, self.size


def standard_preprocessing(input_size: int) -> Preprocessing:
    """Return what is usual for an input size: shortest side to 8/7 of it (256 for 224), centre crop."""
    return Preprocessing(size=round(input_size * 256 / 224), crop=input_size)
