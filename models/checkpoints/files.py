"""Read and write checkpoint files: path -> format and tensors; weights -> a file that appears at once.

Formats are told by content when reading and by the name's ending when writing.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from models.checkpoints.ckpt import read_ckpt, write_ckpt
from models.checkpoints.pth import read_legacy, read_zip
from models.checkpoints.pth_writer import write_pth
from models.checkpoints.safetensors_file import read_safetensors, write_safetensors
from models.checkpoints.tensors import Tensors
from models.errors import InvalidValueError
from models.weights import Weights

Format: TypeAlias = Literal["ckpt", "pth", "legacy pth", "safetensors"]

_READERS: dict[Format, Callable[[BinaryIO], Tensors]] = {
    "ckpt": read_ckpt,
    "pth": read_zip,
    "legacy pth": read_legacy,
    "safetensors": read_safetensors,
}
_WRITERS: dict[str, Callable[[BinaryIO, Weights], None]] = {
    ".ckpt": write_ckpt,
    ".pth": write_pth,
    ".pt": write_pth,
    ".safetensors": write_safetensors,
}
_HEAD_BYTES = 16
_ENCRYPTED = b"\x5e\x3a\x7f"  # of MindSpore; the byte before it tells the cipher
_MAX_HEADER_BYTES = 100_000_000  # of safetensors, by its specification


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a file holds, nothing of it interpreted yet; the tensors may be views and must not be written."""

    path: Path
    format: Format
    tensors: Tensors


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the tensors of a file in any format, without running anything that it contains.

    Raises InvalidValueError when it is damaged, malicious or none of the formats, OSError when it cannot be
    opened.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        try:
            kind = _format(head)
            return Checkpoint(path=path, format=kind, tensors=_READERS[kind](file))
        except InvalidValueError as error:
            raise InvalidValueError(f"checkpoint {path} cannot be used: {error}") from error
        except Exception as error:  # damage surfaces anywhere in zipfile, pickletools, struct or numpy
            raise InvalidValueError(f"checkpoint {path} is damaged: {_sentence(error)}") from error


def write_checkpoint(path: Path, weights: Weights) -> None:
    """Write weights in the format of the path's ending; whatever was there is replaced at once, or stays."""
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise InvalidValueError(f"{path} ends in {path.suffix!r}; allowed are {', '.join(_WRITERS)}")
    write_whole(path, lambda file: writer(file, weights))


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file through a function; whatever was there is replaced at once, or stays."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # of a write it does not say to which file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _format(head: bytes) -> Format:
    if head.startswith(b"PK\x03\x04"):
        return "pth"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES:
        return "safetensors"  # whose first byte may be any
    if head.startswith(b"\x80"):
        return "legacy pth"
    if head.startswith(b"\x0a"):
        return "ckpt"
    if head[1:4] == _ENCRYPTED:
        raise InvalidValueError("it is encrypted; load and save it with MindSpore and its key first")
    raise InvalidValueError("it is no MindSpore, PyTorch or safetensors file")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
