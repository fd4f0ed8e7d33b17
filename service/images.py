"""Decodes pictures: encoded bytes -> one row by the model's own preprocessing. Pure functions.

The header decides first: format, pixels, frames and scans are checked before anything is decoded.

What becomes of unusual pictures, on every door alike: EXIF orientation is applied; transparency is laid on
white; CMYK, palette, grey and 16-bit pictures become 8-bit RGB; embedded colour profiles are not applied.
"""

import io
import re
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from service.errors import InvalidImage, ServiceError, TooLarge, UnsupportedMedia
from service.tensors import Rows

FORMATS = "JPEG, PNG or WebP"

# Each scan of a progressive JPEG costs a pass over all its pixels, and may be a few bytes long: a small file
# could keep a thread busy for hours. Encoders write about 10 scans.
SCANS_AT_FULL_SIZE = 16

LONGEST_STRIP = 8  # long side over short side that is resized whole

# The header of a scan of 1 to 4 components. Its two marker bytes alone turn up in whatever phones put behind a photo.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

_WHITE = (255, 255, 255)
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_UPRIGHT = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KNOWN_BY_SIGNATURE = {  # formats that are named in the refusal, because people send them
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a model wants its pictures, as its trainer declared it."""

    mode: Literal["shortest", "exact"]  # resize the shortest side, or both sides, to `size`
    size: int
    crop: int  # side of the centre square that is left
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool


def decode(body: bytes, spec: Preprocessing, *, max_pixels: int) -> Rows:
    """Turn one encoded picture into a row of shape (crop, crop, 3).

    Raises:
        InvalidImage: the bytes are not a whole picture.
        UnsupportedMedia: a format that is not served, or an animation.
        TooLarge: more pixels, or more progressive scans, than may be decoded.
    """
    try:
        image = _open(body, max_pixels)
        image.load()
        image = _upright(image)  # one name, so that no stage keeps the picture of the one before alive
        image = _rgb(image)
        return np.asarray(_crop(image, spec))
    except (ServiceError, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow raise a dozen unrelated types
        raise InvalidImage(f"the image cannot be decoded: {_sentence(error)}") from error


def _open(body: bytes, max_pixels: int) -> Image.Image:
    """Read the header with the one plugin that fits: the others are attack surface."""
    if not body:
        raise InvalidImage("the image is empty: 0 bytes")
    image: Image.Image
    if body.startswith(b"\xff\xd8\xff"):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(body))
        _check_pixels(*image.size, max_pixels)
        _check_scans(body, *image.size, max_pixels)
    elif body.startswith(b"\x89PNG\r\n\x1a\n"):
        image = PngImagePlugin.PngImageFile(io.BytesIO(body))
        _check_pixels(*image.size, max_pixels)
    elif body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        _check_pixels(*_webp_size(body), max_pixels)  # the plugin allocates the canvas when it opens the file
        image = WebPImagePlugin.WebPImageFile(io.BytesIO(body))
    else:
        raise UnsupportedMedia(f"the image is {_guess(body)}; allowed are {FORMATS}")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise UnsupportedMedia(f"the image is an animation of {frames} frames; allowed is a single picture")
    return image


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLarge(f"the image is {width} x {height} pixels; allowed are {max_pixels} in all")


def _check_scans(body: bytes, width: int, height: int, max_pixels: int) -> None:
    scans = sum(1 for _ in _SCAN.finditer(body))
    if scans * width * height > SCANS_AT_FULL_SIZE * max_pixels:
        allowed = SCANS_AT_FULL_SIZE * max_pixels // (width * height)
        raise TooLarge(f"the JPEG has {scans} scans of {width} x {height} pixels; allowed are {allowed}")


def _webp_size(body: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, head = body[12:16], body[20:30]
    if len(head) < (5 if kind == b"VP8L" else 10):
        raise InvalidImage(f"the image cannot be decoded: a WebP of {len(body)} bytes has no header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


def _guess(body: bytes) -> str:
    for signature, name in _KNOWN_BY_SIGNATURE.items():
        if body.startswith(signature):
            return f"a {name}"
    if body[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    return "of an unknown format: it begins with " + repr(body[:8])[1:]


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises as variously as broken pixels, which are sound here
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _grey_of_8_bits(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, _WHITE)
    canvas.paste(layer, mask=layer)
    return canvas


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow's own conversion would clip at 255, and keep its transparent value."""
    wide, clear = np.asarray(image), image.info.get("transparency")
    grey = Image.fromarray((wide >> 8).astype(np.uint8))
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
    return grey


def _crop(image: Image.Image, spec: Preprocessing) -> Image.Image:
    if spec.mode == "shortest":
        image = _without_ends(image)
    width, height = _resized(image.size, spec)
    left, top = (width - spec.crop) // 2, (height - spec.crop) // 2
    resampling = _RESAMPLING[spec.interpolation]
    if spec.antialias:
        resized = image.resize((width, height), resampling)
        return resized.crop((left, top, left + spec.crop, top + spec.crop))
    across = _Between.of(image.width, width, left, spec.crop)
    down = _Between.of(image.height, height, top, spec.crop)
    return Image.fromarray(_interpolated(np.asarray(image), across, down))


@dataclass(frozen=True, slots=True)
class _Between:
    """Where the output's pixel centres lie on one axis of the input: between two pixels, and how far."""

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    share: npt.NDArray[np.float64]  # of the pixel after

    @classmethod
    def of(cls, length: int, resized: int, start: int, count: int) -> Self:
        centres = (start + np.arange(count) + 0.5) * length / resized - 0.5
        before = np.floor(centres).astype(np.intp)
        return cls(before.clip(0, length - 1), (before + 1).clip(0, length - 1), centres - before)


def _interpolated(pixels: Rows, across: _Between, down: _Between) -> Rows:
    """Sample bilinearly without antialiasing, as OpenCV and MindSpore resize."""
    weight = across.share[:, np.newaxis]
    upper = (
        pixels[down.before][:, across.before] * (1 - weight) + pixels[down.before][:, across.after] * weight
    )
    lower = pixels[down.after][:, across.before] * (1 - weight) + pixels[down.after][:, across.after] * weight
    weight = down.share[:, np.newaxis, np.newaxis]
    return np.rint(upper * (1 - weight) + lower * weight).astype(np.uint8)


def _without_ends(image: Image.Image) -> Image.Image:
    """Cut the ends off a long strip, which the centre crop never sees, but the resize would blow up."""
    reach = LONGEST_STRIP * min(image.size)
    if max(image.size) <= reach:
        return image
    width, height = min(image.width, reach), min(image.height, reach)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _resized(size: tuple[int, int], spec: Preprocessing) -> tuple[int, int]:
    if spec.mode == "exact":
        return spec.size, spec.size
    width, height = size
    if width <= height:
        return spec.size, int(spec.size * height / width)
    return int(spec.size * width / height), spec.size


def _sentence(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else "its data is damaged"
