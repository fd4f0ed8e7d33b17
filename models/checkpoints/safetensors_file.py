"""Read and write safetensors files with the library of that name; only what numpy lacks is done here."""

from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from models.checkpoints.tensors import BFLOAT16, Tensors, shaped_array
from models.errors import InvalidValueError
from models.weights import Weights

_TYPES = {
    "BOOL": "?",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BF16": BFLOAT16,
}


def read_safetensors(file: BinaryIO) -> Tensors:
    """Return the tensors of a file by name."""
    try:
        entries = deserialize(file.read())  # type: ignore[no-untyped-call]  # the library has no types here
    except SafetensorError as error:
        raise InvalidValueError(f"the safetensors library says: {error}") from error
    tensors: Tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _TYPES:
            raise InvalidValueError(
                f"{name!r} has the type {entry['dtype']}; allowed are {', '.join(_TYPES)}"
            )
        tensors[name] = shaped_array(name, entry["data"], _TYPES[entry["dtype"]], tuple(entry["shape"]))
    return tensors


def write_safetensors(file: BinaryIO, weights: Weights) -> None:
    """Write a file that every reader of safetensors takes; `format` is what PyTorch's readers look for."""
    file.write(save({name: np.ascontiguousarray(array) for name, array in weights.items()}, {"format": "pt"}))
