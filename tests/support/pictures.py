"""Pictures for tests, made on the spot: no test needs a file from anywhere."""

import io

import numpy as np
from PIL import Image


def photo(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Make a picture with structure and noise, so that it is as hard to compress as a photo."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(5, 40) + y / rng.uniform(5, 40)) * 80 + 128 for _ in range(3)]
    noise = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
