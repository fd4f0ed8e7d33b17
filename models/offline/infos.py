"""List files for the benchmark tool: a folder -> lines of number, path, width and height."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from PIL import Image, UnidentifiedImageError

from models.errors import InvalidValueError
from models.offline.photos import photo_files

Size: TypeAlias = tuple[int, int]

_JPEG_SUFFIXES = (".jpg", ".jpeg")


def tensor_info(folder: Path, width: int, height: int) -> str:
    """Return the lines of the .bin files of a folder, each of which holds whole pictures of that size."""
    if min(width, height) < 1:
        raise InvalidValueError(f"width and height are {width} and {height}; allowed is at least 1")

    def size(file: Path) -> Size:
        n_bytes = file.stat().st_size
        if not n_bytes or n_bytes % (3 * width * height):
            raise InvalidValueError(
                f"{file} has {n_bytes} bytes, which is no picture of 3 channels, {width} x {height}"
            )
        return width, height

    return _lines(folder, sorted(folder.glob("*.bin")), size, ".bin")


def jpeg_info(folder: Path) -> str:
    """Return the lines of the JPEG files of a folder, with width and height as they are stored."""
    files = [file for file in photo_files(folder) if file.suffix.lower() in _JPEG_SUFFIXES]
    return _lines(folder, files, _stored_size, "JPEG")


def _lines(folder: Path, files: Iterable[Path], size: Callable[[Path], Size], kind: str) -> str:
    lines = []
    for number, file in enumerate(files):
        width, height = size(file)
        if len(str(file).split()) != 1:
            raise InvalidValueError(f"{str(file)!r} has a blank, which parts the words of an info file")
        lines.append(f"{number} {file} {width} {height}\n")
    if not lines:
        raise InvalidValueError(f"{folder} has no {kind} file")
    return "".join(lines)


def _stored_size(file: Path) -> Size:
    try:
        with Image.open(file, formats=["JPEG"]) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise InvalidValueError(f"{file} is no JPEG file") from error
