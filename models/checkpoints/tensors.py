"""The tensors of a file as numpy holds them: raw bytes and a type -> array."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError

Tensor: TypeAlias = NDArray[np.generic]
Tensors: TypeAlias = dict[str, Tensor]

BFLOAT16 = "bfloat16"


def flat_array(content: bytes | bytearray | memoryview, kind: str) -> Tensor:
    """Return the values in these bytes, without copying them; bfloat16, which numpy lacks, as float32."""
    if kind != BFLOAT16:
        return np.frombuffer(content, np.dtype(kind))
    halves = np.frombuffer(content, np.dtype("<u2"))
    return np.left_shift(halves, 16, dtype=np.dtype("<u4")).view("<f4")


def shaped_array(
    name: str, content: bytes | bytearray | memoryview, kind: str, shape: tuple[int, ...]
) -> Tensor:
    """Return the tensor of that shape; its bytes must be exactly as many as the shape needs."""
    needed = math.prod(shape) * item_bytes(kind)
    if min(shape, default=0) < 0 or len(content) != needed:
        raise InvalidValueError(f"{name!r} has {len(content)} bytes, where its shape {shape} needs {needed}")
    return flat_array(content, kind).reshape(shape)


def item_bytes(kind: str) -> int:
    """Return the bytes that one value takes in the file."""
    return 2 if kind == BFLOAT16 else np.dtype(kind).itemsize


def printable(name: str) -> str:
    """Return a name from a file as it may be shown: cut, and without what would steer a terminal."""
    return ascii(name[:100])[1:-1]
