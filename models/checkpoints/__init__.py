"""Weights in and out: a checkpoint file of any format and dialect <-> the weights of a network.

file -> files (ckpt, pth, pickles, safetensors_file) -> tensors by name -> convert (dialects) -> weights

Nothing that a file contains is ever executed.
"""

from models.checkpoints.convert import Imported, Wish, export_weights, import_weights, recognise, weights_only
from models.checkpoints.dialects import DIALECT_NAMES, Dialect, dialect_of
from models.checkpoints.files import Checkpoint, read_checkpoint, write_checkpoint
from models.checkpoints.tensors import printable

__all__ = [
    "DIALECT_NAMES",
    "Checkpoint",
    "Dialect",
    "Imported",
    "Wish",
    "dialect_of",
    "export_weights",
    "import_weights",
    "printable",
    "read_checkpoint",
    "recognise",
    "weights_only",
    "write_checkpoint",
]
