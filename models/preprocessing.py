"""Turn a picture into the row that a network was trained on: image -> (crop, crop, 3) uint8."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidValueError
from models.sizes import check_input_size

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CIFAR10_MEAN = (125.307, 122.961, 113.8575)
CIFAR10_STD = (51.5865, 50.847, 51.255)

LONGEST_STRIP = 8  # long side over short side that is resized whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How pictures become rows: resize, then centre crop; mean and std (of 0..255 pixels) go into the graph.

    `mode` says what `size` is: "shortest" the shorter side, "exact" both sides. Without `antialias` each pixel is
    interpolated between four, however much the picture shrinks, as MindSpore and OpenCV do.
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
        if self.interpolation != "bilinear" and not self.antialias:
            raise InvalidValueError(
                f"antialias is False; with interpolation {self.interpolation!r} only True is allowed"
            )
        if not all(map(math.isfinite, self.mean)):
            raise InvalidValueError(f"mean is {self.mean}; allowed are three numbers")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise InvalidValueError(f"std is {self.std}; allowed are three numbers above 0")

    def rows(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the row of one picture, (crop, crop, 3) RGB."""
        if self.mode == "shortest":
            image = _without_ends(image)
        width, height = self._resized(image.width, image.height)
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        pixels = image if image.mode == "RGB" else image.convert("RGB")  # which would copy
        if not self.antialias:
            across = _between(image.width, width, left, self.crop, channels=3)
            down = _between(image.height, height, top, self.crop)
            return _interpolated(np.asarray(pixels), across, down)
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        resized = pixels.resize((width, height), filters[self.interpolation])
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


def _without_ends(image: Image.Image) -> Image.Image:
    """Cut the ends off a long strip, as the service does: the centre crop never sees them."""
    reach = LONGEST_STRIP * min(image.size)
    if max(image.size) <= reach:
        return image
    width, height = min(image.width, reach), min(image.height, reach)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True, slots=True)
class _Between:
    """Between which two values of an axis the wanted ones lie, and how far."""

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    share: NDArray[np.float64]  # of the value after
    rest: NDArray[np.float64]


@lru_cache(maxsize=64)  # pictures of one size, as CIFAR-10's, ask the same each time
def _between(length: int, resized: int, start: int, count: int, *, channels: int = 1) -> _Between:
    """Return where so many pixels from `start` lie on an axis that is resized, with its channels side by side."""
    centres = (start + np.arange(count) + 0.5) * length / resized - 0.5
    before = np.floor(centres).astype(np.intp)
    at, after = (
        (channels * index.clip(0, length - 1)[:, np.newaxis] + np.arange(channels)).ravel()
        for index in (before, before + 1)
    )
    share = (centres - before).repeat(channels)
    return _Between(at, after, share, 1 - share)


def _interpolated(pixels: NDArray[np.uint8], across: _Between, down: _Between) -> NDArray[np.uint8]:
    """Return each wanted pixel from the four around it.

    Pixels of a line lie flat, (height, width * 3), because loops over three channels alone take five times as long;
    and in place, because the system is asked for the memory of each large array anew.
    """
    flat = pixels.reshape(len(pixels), -1)
    lines = flat.take(across.before, axis=1) * across.rest + flat.take(across.after, axis=1) * across.share
    wanted, below = lines[down.before], lines[down.after]
    wanted *= down.rest[:, np.newaxis]
    below *= down.share[:, np.newaxis]
    wanted += below
    return np.rint(wanted, out=wanted).astype(np.uint8).reshape(len(wanted), -1, pixels.shape[2])


def standard_preprocessing(input_size: int) -> Preprocessing:
    """Return what is usual for an input size: shortest side to 8/7 of it (256 for 224), centre crop."""
    return Preprocessing(size=_eight_sevenths(input_size), crop=input_size)


def _mindspore(input_size: int) -> Preprocessing:
    """Return how the MindSpore references of SE-ResNeXt50 and ResNeXt101 evaluate."""
    return Preprocessing(mode="exact", size=_eight_sevenths(input_size), crop=input_size, antialias=False)


def _cifar10(input_size: int) -> Preprocessing:
    """Return how the MindSpore reference of SKNet50 evaluates."""
    return Preprocessing(
        mode="exact", size=input_size, crop=input_size, antialias=False, mean=CIFAR10_MEAN, std=CIFAR10_STD
    )


def _eight_sevenths(input_size: int) -> int:
    return round(input_size * 256 / 224)


# By the names that users give them.
PREPROCESSINGS = {"standard": standard_preprocessing, "mindspore": _mindspore, "cifar10": _cifar10}
