"""Read and write MindSpore's `.ckpt`, a protobuf message, without MindSpore and without protobuf.

    message:  repeated entry
    entry:    name, tensor; or name, map tensor, which is skipped
    tensor:   repeated dims, type, content (little endian, row-major)

A big tensor lies in several entries of one name. `crc_num` and ten bytes may follow the message.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from models.checkpoints.tensors import BFLOAT16, Tensor, Tensors, item_bytes, shaped_array
from models.errors import InvalidValueError
from models.weights import Weights

_TYPES = {
    "Bool": "?",
    "Int8": "i1",
    "Int16": "<i2",
    "Int32": "<i4",
    "Int64": "<i8",
    "UInt8": "u1",
    "UInt16": "<u2",
    "UInt32": "<u4",
    "UInt64": "<u8",
    "Float16": "<f2",
    "Float32": "<f4",
    "Float64": "<f8",
    "BFloat16": BFLOAT16,
}
_TEXT = "str"
_CRC_MARK = b"crc_num"
_CRC_BYTES = 10

# Numbers of the fields of message, entry and tensor.
_ENTRY = 1
_NAME, _TENSOR = 1, 2
_DIMS, _KIND, _CONTENT = 1, 2, 3

# How the wire carries a field.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

_Value: TypeAlias = int | memoryview


@dataclass(slots=True, kw_only=True)
class _Entry:
    name: str
    kind: str
    shape: tuple[int, ...]
    parts: list[memoryview] = field(default_factory=list)

    @property
    def content(self) -> memoryview | bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


def read_ckpt(file: BinaryIO) -> Tensors:
    """Return the tensors of a checkpoint by name; text and map tensors, which are no weights, are left out."""
    entries: dict[str, _Entry] = {}
    for number, value in _fields(memoryview(_without_crc(file.read()))):
        if number != _ENTRY:
            raise InvalidValueError(f"it has a field {number}, which MindSpore checkpoints have not")
        part = _entry(_block(value))
        if part is None:
            continue
        entry = entries.setdefault(part.name, part)
        if (entry.kind, entry.shape) != (part.kind, part.shape):
            raise InvalidValueError(f"{part.name!r} is there twice, with two types or shapes")
        if entry is not part:
            entry.parts += part.parts
    return {name: _tensor(entry) for name, entry in entries.items()}


def write_ckpt(file: BinaryIO, weights: Weights) -> None:
    """Write a checkpoint that MindSpore's load_checkpoint reads."""
    for name, array in weights.items():
        dims = b"".join(_varint_bytes(_DIMS << 3 | _VARINT) + _varint_bytes(size) for size in array.shape)
        content = _field_bytes(_CONTENT, array.astype("<f4").tobytes())
        tensor = _field_bytes(_TENSOR, dims + _field_bytes(_KIND, b"Float32") + content)
        file.write(_field_bytes(_ENTRY, _field_bytes(_NAME, name.encode()) + tensor))


def _without_crc(content: bytes) -> bytes:
    end = len(content) - len(_CRC_MARK) - _CRC_BYTES
    if end < 0 or content[end:-_CRC_BYTES] != _CRC_MARK:
        return content
    message = content[:end]
    if zlib.crc32(message) != int.from_bytes(content[-_CRC_BYTES:], "big"):
        raise InvalidValueError("its content does not have the checksum that it carries")
    return message


def _entry(content: memoryview) -> _Entry | None:
    fields = dict(_fields(content))
    if _TENSOR not in fields:
        return None
    name = str(_block(fields.get(_NAME, memoryview(b""))), "utf-8")
    dims: list[int] = []
    kind, data = "", memoryview(b"")
    for number, value in _fields(_block(fields[_TENSOR])):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == _KIND:
            kind = str(_block(value), "utf-8")
        elif number == _CONTENT:
            data = _block(value)
    if kind == _TEXT:
        return None
    if kind not in _TYPES:
        raise InvalidValueError(f"{name!r} has the type {kind!r}; allowed are {', '.join(_TYPES)}")
    return _Entry(name=name, kind=_TYPES[kind], shape=tuple(dims), parts=[data])


def _tensor(entry: _Entry) -> Tensor:
    shape, content = entry.shape, entry.content
    if shape == (0,) and len(content) == item_bytes(entry.kind):
        shape = ()  # how older versions write a scalar
    return shaped_array(entry.name, content, entry.kind, shape)


def _fields(content: memoryview) -> Iterator[tuple[int, _Value]]:
    """Yield number and value of each field of a message."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(content, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(content, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise InvalidValueError("it is not made of the fields of a MindSpore checkpoint")
        if length > len(content) - position:
            raise InvalidValueError("it ends in the middle of a tensor")
        yield number, content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(content):
            raise InvalidValueError("it ends in the middle of a number")
        byte = content[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position + index + 1
    raise InvalidValueError("it has a number of more than ten bytes")


def _packed(content: memoryview) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(content):
        value, position = _varint(content, position)
        values.append(value)
    return values


def _block(value: _Value) -> memoryview:
    if isinstance(value, int):
        raise InvalidValueError("it has a number where text or bytes belong")
    return value


def _field_bytes(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
