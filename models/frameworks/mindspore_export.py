"""Write what MindSpore itself exports: network and weights -> MINDIR, ONNX or AIR, as the references have them.

Input is `planes` (n, 3, side, side) float32, normalised, of a fixed n; output is logits. The deployment graph of a
bundle is another one (graph.py): it takes pixels, and any n.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from models.errors import InvalidValueError
from models.frameworks import mindspore_network
from models.networks import Network
from models.sizes import check_input_size
from models.weights import Weights

FORMATS = {".mindir": "MINDIR", ".onnx": "ONNX", ".air": "AIR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """How many pictures the exported network takes at once, and their side."""

    batch: int
    side: int

    def __post_init__(self) -> None:
        check_input_size(self.side)
        if self.batch < 1:
            raise InvalidValueError(f"batch is {self.batch}; allowed is at least 1")


def export(network: Network, weights: Weights, shape: InputShape, path: Path) -> None:
    """Write the file in the format of its ending; whatever was there is replaced at once, or stays.

    Raises InvalidValueError for another ending, and for AIR where MindSpore runs on no Ascend.
    """
    _check_ending(path)
    cell = mindspore_network.build(network)
    mindspore_network.load(cell, weights)
    planes = ms.Tensor(np.zeros((shape.batch, 3, shape.side, shape.side), np.float32))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / f"network{path.suffix}"
        ms.export(cell, planes, file_name=str(made.with_suffix("")), file_format=FORMATS[path.suffix])
        made.chmod(0o644)  # MindSpore lets nobody write it, and only its owner read it
        made.replace(path)


def _check_ending(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise InvalidValueError(f"{path} ends in {path.suffix!r}; allowed are {', '.join(FORMATS)}")
    device = ms.get_context("device_target")
    if path.suffix == ".air" and device != "Ascend":
        raise InvalidValueError(
            f"AIR is written by the Ascend build of MindSpore on a host with an Ascend NPU, and here MindSpore runs on"
            f" {device}: run this command there, or export .mindir or .onnx here"
        )
