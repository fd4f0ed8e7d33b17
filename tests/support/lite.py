"""The Python that has the real MindSpore Lite, and photos, for the tests that need them."""

from pathlib import Path

import pytest
from PIL import Image

from models.lite import find_interpreter
from pictures import photo

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "imagenet-samples"


def lite_python() -> Path:
    """Find it; `make test` makes one wherever it finds a Python 3.7."""
    return find_interpreter() or pytest.skip(
        "MindSpore Lite needs Python 3.7, which is not here: see make lite"
    )


def photos(count: int) -> list[Image.Image]:
    """Give real photos where they are, and made ones elsewhere."""
    files = sorted(PHOTOS.glob("*.JPEG"))[:count]
    if files:
        return [Image.open(file) for file in files]
    return [photo(seed=seed) for seed in range(count)]
