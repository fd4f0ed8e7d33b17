import io
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import InvalidImage, ServiceError, TooLarge, UnsupportedMedia
from service.images import SCANS_AT_FULL_SIZE, Preprocessing, decode

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
EXACT = Preprocessing(mode="exact", size=32, crop=32, interpolation="bilinear", antialias=True)
SHORTEST = Preprocessing(mode="shortest", size=37, crop=32, interpolation="bilinear", antialias=True)
STANDARD = Preprocessing(mode="shortest", size=256, crop=224, interpolation="bilinear", antialias=True)
ENCODINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "lossy webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
}


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _row(body: bytes, spec: Preprocessing = EXACT) -> Pixels:
    return decode(body, spec, max_pixels=MAX_PIXELS)


def _colour(body: bytes) -> tuple[int, ...]:
    """Tell the colour of a picture that has only one."""
    colours = np.unique(_row(body).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(int(value) for value in colours[0])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(size: tuple[int, int], depth: int, colour: int, pixel_rows: bytes, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [
        _chunk(b"IHDR", header),
        *chunks,
        _chunk(b"IDAT", zlib.compress(pixel_rows)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _webp(kind: bytes, content: bytes) -> bytes:
    return (
        b"RIFF"
        + struct.pack("<I", 12 + len(content))
        + b"WEBP"
        + kind
        + struct.pack("<I", len(content))
        + content
    )


@contextmanager
def _within_memory(limit_bytes: int) -> Iterator[None]:
    """Fail if the block needs more: of the process as a whole, where Pillow allocates, or of Python."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        yield
        python_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert python_peak < limit_bytes
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < limit_bytes


# EXIF orientation

AS_STORED: dict[int, Callable[[Pixels], Pixels]] = {  # upright pixels -> pixels as a camera stores them
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


def _quarters() -> Pixels:
    colours = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [240, 240, 20]]], np.uint8)
    return colours.repeat(32, axis=0).repeat(48, axis=1)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", AS_STORED)
@pytest.mark.parametrize(("encoding", "tolerance"), [("jpeg", 8), ("png", 0), ("lossless webp", 0)])
def test_a_picture_is_turned_upright_as_its_exif_says(
    orientation: int, encoding: str, tolerance: int
) -> None:
    kind, options = ENCODINGS[encoding]
    finest = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    stored = Image.fromarray(np.ascontiguousarray(AS_STORED[orientation](_quarters())))
    row = _row(_encoded(stored, kind, exif=_exif(orientation), **options, **finest), SHORTEST)
    upright = _row(_encoded(Image.fromarray(_quarters())), SHORTEST)
    np.testing.assert_allclose(row.astype(int), upright.astype(int), atol=tolerance)


def test_a_palette_picture_with_transparency_is_turned_upright() -> None:
    image = Image.new("P", (40, 20))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (0, 0, 20, 20))
    row = _row(_encoded(image, transparency=0, exif=_exif(6)))
    assert row[0, 16].tolist() == [0, 0, 200]
    assert row[31, 16].tolist() == [255, 255, 255]


BROKEN_EXIF = [
    b"Exif\0\0",
    b"Exif\0\0garbage",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50,
    *(
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x0112, kind, count, 0xFFFF_FF06, 0)
        for kind in range(15)
        for count in (0, 1, 2, 2**32 - 1)
    ),
    _exif(0),
    _exif(9),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of it
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_ignored(kind: str) -> None:
    image = Image.new("RGB", (40, 20), (9, 9, 9))
    for exif in BROKEN_EXIF:
        np.testing.assert_allclose(_row(_encoded(image, kind, exif=exif)), 9, atol=1)


# Modes


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 255, 0), (0, 255, 0)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_a_cmyk_jpeg_becomes_rgb(cmyk: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    body = _encoded(Image.new("CMYK", (16, 16), cmyk), "JPEG", quality=95)
    np.testing.assert_allclose(_colour(body), rgb, atol=2)


def test_a_ycck_jpeg_of_adobe_becomes_rgb() -> None:
    # Adobe stores what is left of white: the inks cyan 0, magenta 255, yellow 255 as the light 255, 0, 0. Then
    # libjpeg's YCCK takes the inverse of that light through Y, Cb, Cr. Pillow writes each stored value inverted.
    y, cb, cr, k = 179, 171, 0, 255
    plain = _encoded(Image.new("CMYK", (16, 16), (255 - y, 255 - cb, 255 - cr, 255 - k)), "JPEG", quality=100)
    transform = plain.index(b"Adobe") + 11
    body = plain[:transform] + b"\x02" + plain[transform + 1 :]
    np.testing.assert_allclose(_colour(body), (255, 0, 0), atol=3)


def test_a_grey_jpeg_becomes_rgb() -> None:
    assert _colour(_encoded(Image.new("L", (16, 16), 77), "JPEG")) == (77, 77, 77)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    row = _row(_encoded(Image.fromarray(values)))
    np.testing.assert_array_equal(row, np.repeat((values >> 8)[:, :, None], 3, axis=2))


def test_16_bit_rgb_is_scaled_and_not_clipped() -> None:
    line = b"\0" + struct.pack(">3H", 0x1234, 0x8000, 0xFF00) * 4
    assert _colour(_png((4, 4), 16, 2, line * 4)) == (0x12, 0x80, 0xFF)


def test_16_bit_grey_with_transparency_is_laid_on_white() -> None:
    line = b"\0" + struct.pack(">2H", 0, 0x8000) * 4
    np.testing.assert_allclose(_colour(_png((4, 4), 16, 4, line * 4)), 127, atol=1)


def test_a_1_bit_picture_becomes_black_and_white() -> None:
    image = Image.new("1", (32, 32))
    image.paste(1, (0, 0, 16, 32))
    row = _row(_encoded(image))
    assert (row[:, :16] == 255).all()
    assert (row[:, 16:] == 0).all()


def _palette() -> Image.Image:
    image = Image.new("P", (16, 16))
    image.putpalette([10, 20, 30])
    return image


def test_a_palette_picture_becomes_rgb() -> None:
    assert _colour(_encoded(_palette())) == (10, 20, 30)


@pytest.mark.parametrize(
    ("transparency", "colour"), [(0, (255, 255, 255)), (b"\0", (255, 255, 255)), (b"\x80", (132, 137, 142))]
)
def test_a_palette_image_with_transparency_is_laid_on_white(
    transparency: int | bytes, colour: tuple[int, ...]
) -> None:
    np.testing.assert_allclose(_colour(_encoded(_palette(), transparency=transparency)), colour, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [
        ("RGBA", (200, 0, 100, 255), (200, 0, 100)),
        ("RGBA", (200, 0, 100, 128), (227, 127, 177)),
        ("RGBA", (200, 0, 100, 0), (255, 255, 255)),
        ("LA", (40, 128), (147, 147, 147)),
        ("LA", (40, 0), (255, 255, 255)),
    ],
)
def test_transparency_is_laid_on_white(
    mode: str, value: tuple[int, ...], colour: tuple[int, ...], kind: str
) -> None:
    body = _encoded(Image.new(mode, (16, 16), value), kind, lossless=True)
    np.testing.assert_allclose(_colour(body), colour, atol=1)


@pytest.mark.parametrize(
    ("mode", "value", "transparent", "colour"),
    [
        ("RGB", (1, 2, 3), (1, 2, 3), (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 4), (1, 2, 3)),
        ("L", 7, 7, (255, 255, 255)),
        ("1", 0, 0, (255, 255, 255)),
    ],
)
def test_the_transparent_colour_of_a_png_is_laid_on_white(
    mode: str, value: Any, transparent: Any, colour: tuple[int, ...]
) -> None:
    assert _colour(_encoded(Image.new(mode, (16, 16), value), transparency=transparent)) == colour


def test_the_transparent_colour_of_a_16_bit_grey_png_is_laid_on_white() -> None:
    line = b"\0" + struct.pack(">H", 0x1234) * 4
    assert _colour(_png((4, 4), 16, 0, line * 4, _chunk(b"tRNS", b"\x12\x34"))) == (255, 255, 255)


def test_the_first_of_the_two_pictures_of_a_phones_jpeg_is_used() -> None:
    first, second = Image.new("RGB", (16, 16), (10, 10, 10)), Image.new("RGB", (16, 16), (250, 0, 0))
    body = _encoded(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "MPO"
    assert _colour(body) == (10, 10, 10)


# What is refused


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(InvalidImage, match="the image is empty: 0 bytes"):
        _row(b"")


# The end of a JPEG; the end of a PNG and two checksums. Where only these are missing the picture is whole.
BYTES_AFTER_THE_PIXELS = {"JPEG": 2, "PNG": 20, "WEBP": 0}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_truncated_picture_is_refused_at_whatever_length(encoding: str) -> None:
    kind, options = ENCODINGS[encoding]
    body = _encoded(_noise(23, 17), kind, **options)
    for length in range(1, len(body) - BYTES_AFTER_THE_PIXELS[kind]):
        with pytest.raises((InvalidImage, UnsupportedMedia)):
            _row(body[:length])


@pytest.mark.parametrize("signature", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 "])
@pytest.mark.parametrize("length", [0, 1, 17, 1000])
def test_a_signature_followed_by_nonsense_is_refused(signature: bytes, length: int) -> None:
    with pytest.raises(InvalidImage, match="the image cannot be decoded: "):
        _row(signature + b"\1" * length)


def _animation(kind: str, **options: Any) -> bytes:
    first, second, third = (Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 90, 180))
    return _encoded(first, kind, save_all=True, append_images=[second, third], **options)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"this is no picture", "of an unknown format: it begins with 'this is '"),
        (b"\xff\xd8", r"of an unknown format: it begins with '\xff\xd8'"),
        (_encoded(_noise(16, 16), "GIF"), "a GIF"),
        (_animation("GIF"), "a GIF"),
        (_encoded(_noise(16, 16), "BMP"), "a BMP"),
        (_encoded(_noise(16, 16), "TIFF"), "a TIFF"),
        (_encoded(_noise(16, 16), "TIFF", big_endian=True), "a TIFF"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC, AVIF or video file"),
    ],
    ids=["text", "2 bytes", "gif", "animated gif", "bmp", "tiff", "big-endian tiff", "pdf", "heic"],
)
def test_a_format_that_is_not_served_is_named_with_those_that_are(body: bytes, named: str) -> None:
    with pytest.raises(UnsupportedMedia) as refusal:
        _row(body)
    assert str(refusal.value) == f"the image is {named}; allowed are JPEG, PNG or WebP"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused_with_its_number_of_frames(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="an animation of 3 frames; allowed is a single picture"):
        _row(_animation(kind))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_may_have_as_many_pixels_as_allowed_and_no_more(kind: str) -> None:
    body = _encoded(_noise(21, 10), kind)
    assert decode(body, EXACT, max_pixels=210).shape == (32, 32, 3)
    with pytest.raises(TooLarge, match="the image is 21 x 10 pixels; allowed are 209 in all"):
        decode(body, EXACT, max_pixels=209)


def _vp8_header(width: int, height: int) -> bytes:
    return b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)


def _vp8l_header(width: int, height: int) -> bytes:
    return b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14)


HUGE = {
    "png": (30_000, 30_000, _png((30_000, 30_000), 8, 2, bytes(2_000_000))),
    "largest png": (2**31 - 1, 2**31 - 1, _png((2**31 - 1, 2**31 - 1), 16, 6, bytes(99))),
    "VP8X": (30_000, 30_000, _webp(b"VP8X", bytes(4) + (29_999).to_bytes(3, "little") * 2 + bytes(999))),
    "largest VP8X": (2**24, 2**24, _webp(b"VP8X", bytes(4) + b"\xff" * 6 + bytes(999))),
    "VP8L": (16_384, 16_384, _webp(b"VP8L", _vp8l_header(16_384, 16_384) + bytes(999))),
    "VP8": (16_383, 16_383, _webp(b"VP8 ", _vp8_header(16_383, 16_383) + bytes(999))),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_picture_is_refused_from_its_header_in_little_memory(name: str) -> None:
    width, height, body = HUGE[name]
    assert len(body) < 4000
    with (
        _within_memory(4_000_000),
        pytest.raises(TooLarge, match=f"the image is {width} x {height} pixels; allowed are 50000000 in all"),
    ):
        _row(body)


def test_a_text_chunk_that_unpacks_to_much_more_is_refused_in_little_memory() -> None:
    bomb = _chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(100_000_000), 1))
    with _within_memory(16_000_000), pytest.raises(InvalidImage, match="too large"):
        _row(_png((4, 4), 8, 2, bytes(13 * 4), bomb))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 300), (301, 1), (640, 427)])
@pytest.mark.parametrize("encoding", ["lossy webp", "lossless webp", "extended webp"])
def test_the_size_that_is_checked_is_the_one_that_is_decoded(encoding: str, size: tuple[int, int]) -> None:
    options = {"exif": _exif(1)} if encoding == "extended webp" else ENCODINGS[encoding][1]
    body = _encoded(_noise(*size), "WEBP", **options)
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == size
    assert decode(body, EXACT, max_pixels=size[0] * size[1]).shape == (32, 32, 3)
    with pytest.raises(TooLarge, match=f"the image is {size[0]} x {size[1]} pixels"):
        decode(body, EXACT, max_pixels=size[0] * size[1] - 1)


def test_the_smallest_webp_there_is_can_be_decoded() -> None:
    # One pixel: no transform, no colour cache, one group, and five codes of the single symbol 0.
    bits = int("".join(reversed("000" + 5 * "1000")), 2)
    assert _colour(_webp(b"VP8L", _vp8l_header(1, 1) + bits.to_bytes(3, "little"))) == (0, 0, 0)


# Scans of a progressive JPEG


def _with_scans(body: bytes, scans: int) -> bytes:
    """Repeat the last scan of a progressive JPEG until there are that many."""
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + last * (scans - body.count(b"\xff\xda")) + b"\xff\xd9"


def test_a_progressive_jpeg_with_very_many_scans_is_refused() -> None:
    body = _encoded(_noise(100, 50), "JPEG", progressive=True)
    most = _with_scans(body, SCANS_AT_FULL_SIZE)
    assert decode(most, EXACT, max_pixels=5000).shape == (32, 32, 3)
    with pytest.raises(TooLarge, match="the JPEG has 17 scans of 100 x 50 pixels; allowed are 16"):
        decode(_with_scans(body, SCANS_AT_FULL_SIZE + 1), EXACT, max_pixels=5000)


def test_a_smaller_jpeg_may_have_more_scans() -> None:
    body = _with_scans(_encoded(_noise(100, 50), "JPEG", progressive=True), 32)
    assert decode(body, EXACT, max_pixels=10_000).shape == (32, 32, 3)
    with pytest.raises(TooLarge, match="the JPEG has 32 scans of 100 x 50 pixels; allowed are 31"):
        decode(body, EXACT, max_pixels=9_999)


def test_an_ordinary_progressive_jpeg_of_full_size_is_decoded() -> None:
    image = _noise(40, 30).resize((4000, 3000))
    body = _encoded(image, "JPEG", progressive=True, exif=_exif(1))
    assert decode(body, EXACT, max_pixels=12_000_000).shape == (32, 32, 3)


# Resize and crop

SIZES = [
    (1, 1),
    (2, 3),
    (31, 31),
    (32, 37),
    (37, 37),
    (38, 37),
    (96, 64),
    (80, 121),
    (301, 47),
    (47, 301),
    (333, 500),
]


def _cropped(image: Image.Image, spec: Preprocessing) -> Pixels:
    """Resize and crop in plain steps, by the rule of torchvision."""
    short, long = sorted(image.size)
    other = int(spec.size * long / short)
    size = (spec.size, other) if image.width <= image.height else (other, spec.size)
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = image.resize(size, resampling[spec.interpolation])
    left, top = (resized.width - spec.crop) // 2, (resized.height - spec.crop) // 2
    return np.asarray(resized)[top : top + spec.crop, left : left + spec.crop]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("shortest", "crop"), [(37, 32), (32, 32), (36, 31), (256, 224)])
def test_the_shortest_side_is_resized_and_the_centre_is_cropped(
    size: tuple[int, int], interpolation: Any, shortest: int, crop: int
) -> None:
    spec = replace(SHORTEST, size=shortest, crop=crop, interpolation=interpolation)
    image = _noise(*size)
    np.testing.assert_array_equal(_row(_encoded(image), spec), _cropped(image, spec))


@given(width=st.integers(8, 64), height=st.integers(8, 64), size=st.integers(1, 40), data=st.data())
@settings(max_examples=100, deadline=None, database=None)
def test_resize_and_crop_are_plain_pillow_for_any_size(
    width: int, height: int, size: int, data: st.DataObject
) -> None:
    spec = replace(SHORTEST, size=size, crop=data.draw(st.integers(1, size)))
    image = _noise(width, height)
    np.testing.assert_array_equal(_row(_encoded(image), spec), _cropped(image, spec))


@pytest.mark.parametrize("size", SIZES)
def test_exact_resizes_both_sides(size: tuple[int, int]) -> None:
    row = _row(_encoded(_noise(*size)), replace(EXACT, interpolation="bicubic"))
    expected = _noise(*size).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(row, np.asarray(expected))


def test_exact_crops_the_centre_when_the_crop_is_smaller() -> None:
    row = _row(_encoded(_noise(50, 70)), replace(EXACT, crop=21))
    expected = np.asarray(_noise(50, 70).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(row, expected[5:26, 5:26])


def _half_pixel_bilinear(pixels: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Interpolate between the four nearest pixels, whose centres lie at halves; the edge pixels go on outside."""

    def along(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
        places = (np.arange(length) + 0.5) * len(values) / length - 0.5
        before = np.floor(places).astype(int)
        share = (places - before)[:, None, None]
        last = len(values) - 1
        return values[before.clip(0, last)] * (1 - share) + values[(before + 1).clip(0, last)] * share

    width, height = size
    return along(along(pixels.astype(float), height).transpose(1, 0, 2), width).transpose(1, 0, 2)


def _without_antialias(size: tuple[int, int]) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Return the row as decoded, and as the independent reference has it."""
    spec, image = replace(SHORTEST, antialias=False), _noise(*size)
    short, long = sorted(size)
    other = int(spec.size * long / short)
    resized = (spec.size, other) if image.width <= image.height else (other, spec.size)
    left, top = (resized[0] - spec.crop) // 2, (resized[1] - spec.crop) // 2
    expected = _half_pixel_bilinear(np.asarray(image), resized)
    return _row(_encoded(image), spec), expected[top : top + spec.crop, left : left + spec.crop]


@pytest.mark.parametrize("size", SIZES)
def test_without_antialias_four_pixels_are_interpolated(size: tuple[int, int]) -> None:
    row, expected = _without_antialias(size)
    assert np.abs(row - expected).max() < 1 + 1e-9


def test_without_antialias_values_are_rounded_to_the_nearest() -> None:
    row, expected = _without_antialias((53, 41))
    assert np.abs(row - expected).max() < 0.5 + 1e-9


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 65_000), (3, 16_000)])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_thin_strip_takes_little_memory(size: tuple[int, int], *, antialias: bool) -> None:
    body = _encoded(Image.new("RGB", size, (7, 8, 9)))
    with _within_memory(32_000_000):
        row = _row(body, replace(STANDARD, antialias=antialias))
    assert (row == (7, 8, 9)).all()
    assert row.shape == (224, 224, 3)


def test_only_the_centre_of_a_thin_strip_is_seen() -> None:
    image = Image.new("RGB", (300, 10), (255, 0, 0))
    image.paste((0, 0, 255), (100, 0, 200, 10))
    assert (_row(_encoded(image), SHORTEST) == (0, 0, 255)).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", ["exact", "shortest"])
def test_a_picture_of_one_pixel_fills_the_row(encoding: str, mode: Any) -> None:
    kind, options = ENCODINGS[encoding]
    row = _row(
        _encoded(Image.new("RGB", (1, 1), (60, 60, 60)), kind, **options), replace(STANDARD, mode=mode)
    )
    assert row.shape == (224, 224, 3)
    np.testing.assert_allclose(row, 60, atol=2)


# Whatever the bytes are


def _row_or_refusal(body: bytes) -> None:
    for spec in (SHORTEST, replace(EXACT, antialias=False)):
        try:
            row = decode(body, spec, max_pixels=1_000_000)
        except ServiceError:
            continue
        assert (row.shape, row.dtype) == ((32, 32, 3), np.uint8)


VALID = [
    *(_encoded(_noise(19, 13), kind, exif=_exif(6), **options) for kind, options in ENCODINGS.values()),
    _encoded(_noise(19, 13).convert("CMYK"), "JPEG"),
    _encoded(_noise(19, 13).convert("P"), transparency=3),
    _encoded(_noise(19, 13).convert("RGBA"), "WEBP", exif=_exif(5)),
    _animation("PNG"),
    _animation("WEBP"),
]


@st.composite
def _mutations(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(VALID)))
    places = st.integers(0, 60) | st.integers(0, len(body) - 1)  # headers are short, but break in more ways
    for place in draw(st.lists(places, max_size=8)):
        body[place % len(body)] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        del body[draw(st.integers(0, len(body))) :]
    return bytes(body)


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
@given(_mutations())
@settings(max_examples=300, deadline=None, database=None)
def test_a_damaged_picture_gives_a_row_or_a_refusal(body: bytes) -> None:
    _row_or_refusal(body)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8"]),
    st.binary(max_size=200),
)
@settings(max_examples=200, deadline=None, database=None)
def test_random_bytes_give_a_row_or_a_refusal(signature: bytes, rest: bytes) -> None:
    _row_or_refusal(signature + rest)
