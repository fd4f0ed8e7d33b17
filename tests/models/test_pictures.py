import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import service.images
from models.errors import InvalidValueError
from models.pictures import decoded, read_picture
from models.preprocessing import LONGEST_STRIP, Preprocessing
from pictures import encoded, photo
from service.errors import ServiceError


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _grey_16_bits() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 1 << 16, (40, 60), np.uint16))


def _with_alpha(mode: str = "RGBA") -> Image.Image:
    image = photo(60, 40).convert(mode)
    image.putalpha(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)))
    return image


def _transparent_palette() -> bytes:
    return encoded(photo(60, 40).quantize(16), "PNG", transparency=3)


ODD_PICTURES: dict[str, Callable[[], bytes]] = {
    "progressive": lambda: encoded(photo(60, 40), progressive=True),
    "grey JPEG": lambda: encoded(photo(60, 40).convert("L")),
    "CMYK JPEG": lambda: encoded(photo(60, 40).convert("CMYK")),
    "broken EXIF": lambda: encoded(photo(60, 40), exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "grey PNG": lambda: encoded(photo(60, 40).convert("L"), "PNG"),
    "two colours": lambda: encoded(photo(60, 40).convert("1"), "PNG"),
    "palette": lambda: encoded(photo(60, 40).quantize(16), "PNG"),
    "transparent palette": _transparent_palette,
    "transparent PNG": lambda: encoded(_with_alpha(), "PNG"),
    "transparent grey": lambda: encoded(_with_alpha("LA"), "PNG"),
    "transparent WebP": lambda: encoded(_with_alpha(), "WEBP", lossless=True),
    "lossy WebP": lambda: encoded(photo(60, 40), "WEBP"),
    "16 bits": lambda: encoded(_grey_16_bits(), "PNG"),
    "16 bits, one of them clear": lambda: encoded(_grey_16_bits(), "PNG", transparency=12345),
    "strip": lambda: encoded(photo(20 * LONGEST_STRIP + 31, 20), "PNG"),
    "tall strip": lambda: encoded(photo(20, 20 * LONGEST_STRIP + 32), "PNG"),
    **{
        f"orientation {orientation}": lambda o=orientation: encoded(photo(60, 40), exif=_exif(o))  # type: ignore[misc]
        for orientation in range(1, 9)
    },
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("mode", ["shortest", "exact"])
@pytest.mark.parametrize("name", ODD_PICTURES)
def test_training_sees_the_pixels_that_the_service_sees(name: str, mode: str) -> None:
    body = ODD_PICTURES[name]()
    preprocessing = Preprocessing(mode=mode, size=37, crop=32)  # type: ignore[arg-type]
    spec = service.images.Preprocessing(
        mode=preprocessing.mode, size=37, crop=32, interpolation="bilinear", antialias=True
    )
    served = service.images.decode(body, spec, max_pixels=10**6)
    np.testing.assert_array_equal(preprocessing.rows(decoded(body)), served)


def _animation() -> bytes:
    file = io.BytesIO()
    photo(40, 40).save(file, "WEBP", save_all=True, append_images=[photo(40, 40, seed=1)])
    return file.getvalue()


FAULTS = {
    "empty": (lambda: b"", "is empty; allowed are JPEG, PNG or WebP"),
    "text": (
        lambda: b"not a picture",
        "is no picture: it begins with b'not a pi'; allowed are JPEG, PNG or WebP",
    ),
    "GIF": (lambda: encoded(photo(40, 40), "GIF"), "is no picture: it begins with b'GIF8"),
    "animation": (_animation, "is an animation of 2 frames; allowed is a single picture"),
    "half a JPEG": (lambda: _first(0.5, encoded(photo(60, 40))), "cannot be decoded: "),
    "half a PNG": (lambda: _first(0.5, encoded(photo(60, 40), "PNG")), "cannot be decoded: "),
    "half a WebP": (lambda: _first(0.5, encoded(photo(60, 40), "WEBP")), "cannot be decoded: "),
    "head of a JPEG": (lambda: b"\xff\xd8\xff", "cannot be decoded: "),
    "head of a PNG": (lambda: encoded(photo(60, 40), "PNG")[:10], "cannot be decoded: "),
}


def _first(share: float, body: bytes) -> bytes:
    return body[: int(len(body) * share)]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_whole_picture_is_refused_with_its_file(fault: str, tmp_path: Path) -> None:
    make, sentence = FAULTS[fault]
    file = tmp_path / "cat.jpg"
    file.write_bytes(make())
    with pytest.raises(InvalidValueError, match=re.escape(f"{file} {sentence}")):
        read_picture(file)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_training_refuses_a_truncated_picture_where_the_service_does(form: str, share: float) -> None:
    body = _first(share, encoded(photo(60, 40), form))
    spec = service.images.Preprocessing(
        mode="exact", size=32, crop=32, interpolation="bilinear", antialias=True
    )
    with pytest.raises(ServiceError):
        service.images.decode(body, spec, max_pixels=10**6)
    with pytest.raises(InvalidValueError):
        decoded(body)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").mkdir()
    for name, reason in (("gone.jpg", "No such file or directory"), ("cat.jpg", "Is a directory")):
        with pytest.raises(InvalidValueError, match=re.escape(f"{tmp_path / name} cannot be read: {reason}")):
            read_picture(tmp_path / name)


def test_what_a_file_is_its_bytes_say(tmp_path: Path) -> None:
    file = tmp_path / "a PNG named otherwise.JPEG"
    file.write_bytes(encoded(photo(60, 40), "PNG"))
    np.testing.assert_array_equal(np.asarray(read_picture(file)), np.asarray(photo(60, 40)))
