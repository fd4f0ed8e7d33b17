"""Turn a picture's file into pixels, as the service does: bytes -> upright RGB.

EXIF orientation is applied; transparency is laid on white; CMYK, palette, grey and 16-bit pictures become 8-bit
RGB; embedded colour profiles are not applied. What a file is, its first bytes say, whatever its name.
"""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from models.errors import InvalidValueError

FORMATS = "JPEG, PNG or WebP"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_WHITE = (255, 255, 255)
_UPRIGHT = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str | Path) -> Image.Image:
    """Return the picture of a file; raises InvalidValueError with the file if it cannot be read or is damaged."""
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise InvalidValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decoded(body)
    except InvalidValueError as error:
        raise InvalidValueError(f"{path} {error}") from error
    except MemoryError as error:
        raise InvalidValueError(f"{path} needs more memory than there is") from error


def decoded(body: bytes) -> Image.Image:
    """Return the picture of a file's bytes; raises InvalidValueError, a sentence that wants the file before it."""
    try:
        image = _opened(body)
        image.load()
        return _rgb(_upright(image))
    except (InvalidValueError, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow raise a dozen unrelated types
        reason = (str(error).splitlines() or ["its data is damaged"])[0]
        raise InvalidValueError(f"cannot be decoded: {reason}") from error


def _opened(body: bytes) -> Image.Image:
    image: Image.Image
    if body.startswith(b"\xff\xd8\xff"):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(body))
    elif body.startswith(b"\x89PNG\r\n\x1a\n"):
        image = PngImagePlugin.PngImageFile(io.BytesIO(body))
    elif body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        image = WebPImagePlugin.WebPImageFile(io.BytesIO(body))
    elif body:
        raise InvalidValueError(f"is no picture: it begins with {body[:8]!r}; allowed are {FORMATS}")
    else:
        raise InvalidValueError(f"is empty; allowed are {FORMATS}")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise InvalidValueError(f"is an animation of {frames} frames; allowed is a single picture")
    return image


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
