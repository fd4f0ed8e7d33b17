import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidValueError
from models.preprocessing import Preprocessing, standard_preprocessing


@pytest.mark.parametrize(("width", "height"), [(96, 64), (80, 120), (64, 64), (301, 17)])
def test_the_shortest_side_is_resized_and_the_centre_is_cropped(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    row = Preprocessing(size=37, crop=32).rows(image)
    short, long = min(width, height), max(width, height)
    sides = {short: 37, long: int(37 * long / short)}
    resized = image.resize((sides[width], sides[height]), Image.Resampling.BILINEAR)
    left, top = (resized.width - 32) // 2, (resized.height - 32) // 2
    np.testing.assert_array_equal(row, np.asarray(resized)[top : top + 32, left : left + 32])


def test_exact_resizes_both_sides() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8))
    row = Preprocessing(mode="exact", size=32, crop=32, interpolation="bicubic").rows(image)
    np.testing.assert_array_equal(row, np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_a_picture_of_any_mode_becomes_three_channels(mode: str) -> None:
    row = standard_preprocessing(32).rows(Image.new(mode, (50, 40)))
    assert (row.shape, row.dtype) == ((32, 32, 3), np.uint8)


def test_the_standard_for_224_is_the_shortest_side_to_256() -> None:
    assert standard_preprocessing(224) == Preprocessing(mode="shortest", size=256, crop=224)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"mode": "longest"}, "mode is 'longest'; allowed are 'shortest' and 'exact'"),
        ({"size": 31}, "size is 31; allowed is at least the crop, 32"),
        ({"crop": 30}, "input size is 30; allowed are multiples of 4 from 32 up"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; allowed are 'bilinear' and 'bicubic'"),
        ({"antialias": False}, "antialias is False; allowed is only True so far"),
        ({"std": (1.0, 0.0, 1.0)}, "std is (1.0, 0.0, 1.0); allowed are three numbers above 0"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(fault: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(sentence)):
        Preprocessing(**{"size": 36, "crop": 32, **fault})
