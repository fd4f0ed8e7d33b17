"""Write PyTorch's `.pth` in zip form, without torch: weights by name -> what torch.load reads.

The pickle is put together from its opcodes, the same bytes for the same weights.
"""

import math
import struct
import zipfile
from typing import BinaryIO

from models.weights import Array, Weights

_START, _STOP, _MARK, _TUPLE = b"\x80\x02", b".", b"(", b"t"
_CALL, _FROM_OUTSIDE, _SET_ITEMS, _FALSE = b"R", b"Q", b"u", b"\x89"
_ORDERED_DICT = b"ccollections\nOrderedDict\n" + b")" + _CALL
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
_STORAGE = b"ctorch\nFloatStorage\n"


def write_pth(file: BinaryIO, weights: Weights) -> None:
    """Write a state dict that torch.load reads, with weights_only too."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo, unlike a bare name, carries no time of day.
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), _pickle(weights))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), b"little")
        for key, array in enumerate(weights.values()):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), array.astype("<f4").tobytes())
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")


def _pickle(weights: Weights) -> bytes:
    items = [_text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(weights.items())]
    return _START + _ORDERED_DICT + _MARK + b"".join(items) + _SET_ITEMS + _STOP


def _tensor(key: str, array: Array) -> bytes:
    storage = _tuple(_text("storage"), _STORAGE, _text(key), _text("cpu"), _number(array.size))
    strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    return (
        _REBUILD
        + _tuple(
            storage + _FROM_OUTSIDE,
            _number(0),
            _tuple(*map(_number, array.shape)),
            _tuple(*map(_number, strides)),
            _FALSE,
            _ORDERED_DICT,
        )
        + _CALL
    )


def _tuple(*items: bytes) -> bytes:
    return _MARK + b"".join(items) + _TUPLE


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content
