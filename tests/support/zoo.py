"""The networks as other packages have them, on torch's meta device: without weights until some are assigned."""

from collections.abc import Callable
from copy import deepcopy

import torch


def _with_operators() -> None:
    """Declare the two operators that torchvision describes while it is imported, and lacks beside a torch without CUDA.

    PyPI has it built for CUDA alone; its networks need none of them.
    """
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


_LIBRARIES: list[torch.library.Library] = []  # what they declare ends with them
_with_operators()

import timm  # noqa: E402 - it imports torchvision, as both others do
import torchvision  # noqa: E402

with torch.device("meta"):
    import pretrainedmodels  # of Cadene; it makes the blocks of its ResNeXts once, when imported

# Dialect and network -> the package's own class.
_ZOO: dict[tuple[str, str], Callable[[], torch.nn.Module]] = {
    ("cadene", "se_resnext50"): lambda: pretrainedmodels.se_resnext50_32x4d(pretrained=None),
    ("cadene", "resnext101"): lambda: pretrainedmodels.resnext101_64x4d(pretrained=None),
    ("torchvision", "resnext101"): torchvision.models.resnext101_64x4d,
    ("timm", "se_resnext50"): lambda: timm.create_model("seresnext50_32x4d"),
    ("timm", "resnext101"): lambda: timm.create_model("resnext101_64x4d"),
}
NAMES = list(_ZOO)


def network_of(dialect: str, name: str) -> torch.nn.Module:
    """Make the network that a package has by this name in its dialect."""
    with torch.device("meta"):
        return deepcopy(_ZOO[dialect, name]())
