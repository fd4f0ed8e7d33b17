"""Read PyTorch's `.pth`, in zip and in legacy form, without torch: file -> tensors by name.

    legacy:  magic, protocol, system, the object, keys of its storages (five pickles), then the storages
    zip:     <folder>/data.pkl and one record <folder>/data/<key> a storage, stored and not compressed

Only the storages of the state dict are used; each tensor is a view of its storage.
"""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, TypeAlias

from numpy.lib.stride_tricks import as_strided

from models.checkpoints.pickles import (
    MAX_PICKLE_BYTES,
    PARAMETER,
    STORAGES,
    TENSORS,
    Call,
    Name,
    Outside,
    evaluate,
)
from models.checkpoints.tensors import Tensor, Tensors, flat_array, item_bytes
from models.errors import InvalidValueError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

# Where training checkpoints keep the weights, beside optimizer and counters.
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")
_MAX_DIMENSIONS = 16
_MAX_EXPANDED = 1 << 20  # values of a tensor that repeats its storage, which a copy makes real
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Storage:
    """A storage as the pickle names it; the length counts values of this kind."""

    key: str
    kind: str
    length: int


_Load: TypeAlias = Callable[[_Storage], Tensor]


def read_zip(file: BinaryIO) -> Tensors:
    """Return the state dict of a file in zip form."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        folder = _checked_folder(archive, size)
        with archive.open(f"{folder}data.pkl") as record:
            root = evaluate(BytesIO(record.read(MAX_PICKLE_BYTES))).value
        return _tensors(root, lambda storage: _record(archive, folder, storage))


def read_legacy(file: BinaryIO) -> Tensors:
    """Return the state dict of a file in the form that PyTorch wrote before version 1.6."""
    if evaluate(file).value != MAGIC or evaluate(file).value != PROTOCOL:
        raise InvalidValueError("it is a pickle, but none that torch.save has written")
    system = evaluate(file).value
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InvalidValueError("it was not written by a little-endian machine")
    pickle = evaluate(file)
    storages: dict[str, _Storage] = {}
    for storage in map(_storage, pickle.outside):
        if storages.setdefault(storage.key, storage) != storage:
            raise InvalidValueError(f"its storage {storage.key!r} has two types or lengths")
    contents = _contents(storages, evaluate(file).value, memoryview(file.read()))
    return _tensors(pickle.value, lambda storage: flat_array(contents[storage.key], storage.kind))


def _checked_folder(archive: zipfile.ZipFile, size: int) -> str:
    """Return the folder that all records lie in, after a look at whether they can be what they say."""
    records = archive.infolist()
    names = {record.filename for record in records}
    if len(names) < len(records):
        raise InvalidValueError("two of its records have one name")
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1 or folders[0].count("/") != 1:
        raise InvalidValueError("it is a zip file, but none that torch.save has written")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise InvalidValueError("it is compressed, which torch.save never does")
    if sum(record.file_size for record in records) > size:
        raise InvalidValueError("its records claim more bytes than the file has")
    (folder,) = folders
    if f"{folder}constants.pkl" in names:
        raise InvalidValueError("it is a TorchScript program; allowed is a state dict")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise InvalidValueError("it was not written by a little-endian machine")
    return folder


def _record(archive: zipfile.ZipFile, folder: str, storage: _Storage) -> Tensor:
    content = archive.read(f"{folder}data/{storage.key}")
    if len(content) != storage.length * item_bytes(storage.kind):
        raise InvalidValueError(f"its storage {storage.key!r} is not as long as its pickle says")
    return flat_array(content, storage.kind)


def _contents(storages: dict[str, _Storage], keys: object, content: memoryview) -> dict[str, memoryview]:
    """Return the bytes of each storage of a legacy file, which follow one another behind their lengths."""
    contents: dict[str, memoryview] = {}
    position = 0
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages:
            raise InvalidValueError("it lists a storage that its pickle does not name")
        storage = storages[key]
        start = position + _LENGTH_BYTES
        if int.from_bytes(content[position:start], "little") != storage.length:
            raise InvalidValueError(f"its storage {key!r} is not as long as its pickle says")
        position = start + storage.length * item_bytes(storage.kind)
        if position > len(content):
            raise InvalidValueError("it ends in the middle of a storage")
        contents[key] = content[start:position]
    return contents


def _tensors(root: object, load: _Load) -> Tensors:
    storages: dict[_Storage, Tensor] = {}

    def load_once(storage: _Storage) -> Tensor:
        if storage not in storages:
            storages[storage] = load(storage)
        return storages[storage]

    state = _state_dict(root)
    return {name: _tensor(name, call, load_once) for name, call in state.items()}


def _state_dict(root: object) -> dict[str, Call]:
    if isinstance(root, dict):
        nested = (root[key] for key in _STATE_KEYS if isinstance(root.get(key), dict))
        state = next(nested, root)
        tensors = {str(name): value for name, value in state.items() if _is_tensor(value)}
        if tensors:
            return tensors
    raise InvalidValueError(
        "it holds no tensors by name; allowed are a state dict, or a dict with one under"
        f" {', '.join(map(repr, _STATE_KEYS))}"
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Call) and value.name in {PARAMETER, *TENSORS}


def _tensor(name: str, call: Call, load: _Load) -> Tensor:
    if call.name == PARAMETER:
        inner = call.arguments[0]
        if not (isinstance(inner, Call) and inner.name in TENSORS):
            raise InvalidValueError(f"the parameter {name!r} is made of what is no tensor")
        call = inner
    match call.arguments:
        case (Outside(key=key), int(offset), tuple(shape), tuple(strides), *_) if (
            _are_sizes(offset, *shape, *strides) and len(shape) == len(strides) <= _MAX_DIMENSIONS
        ):
            return _view(name, load(_storage(key)), offset, shape, strides)
    raise InvalidValueError(f"the tensor {name!r} is not made as tensors are")


def _are_sizes(*values: object) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in values)


def _view(
    name: str, storage: Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Tensor:
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= len(storage):
        raise InvalidValueError(f"the tensor {name!r} reaches beyond its storage")
    if math.prod(shape) > max(len(storage), _MAX_EXPANDED):
        raise InvalidValueError(f"the tensor {name!r} repeats its storage more often than weights do")
    steps = [stride * storage.itemsize for stride in strides]
    return as_strided(storage[offset:], shape, steps, writeable=False)


def _storage(key: object) -> _Storage:
    match key:
        case ("storage", Name(dotted=dotted), str(name), _, int(length), *rest) if dotted in STORAGES:
            if length < 0 or any(view is not None for view in rest):
                raise InvalidValueError(f"its storage {name!r} is a view of another, which is not supported")
            return _Storage(key=name, kind=STORAGES[dotted], length=length)
    raise InvalidValueError("its pickle names something outside that is no storage")
