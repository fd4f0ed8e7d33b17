"""Weights in and out: a checkpoint file of any format <-> tensors by name.

file -> files (ckpt, pth, pickles, safetensors_file) -> tensors by name

Nothing that a file contains is ever executed.
"""

from models.checkpoints.files import Checkpoint, read_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]
