"""Choose who computes what a network answers to the golden pictures: the framework that trained it, or another.

None is an engine: an engine's answers are what the golden samples are there to check.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.networks import Network
from models.weights import Weights

Framework: TypeAlias = Literal["pytorch", "mindspore"]
Planes: TypeAlias = NDArray[np.float32]
Logits: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A framework's float32 forward pass on the CPU, and its name for the manifest."""

    computed_by: str
    logits: Callable[[Network, Weights, Planes], Logits]


def forward_of(framework: Framework) -> Forward:
    """Return the forward pass of a framework; raises InvalidValueError where it is not installed."""
    try:
        return _FORWARDS[framework]()
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            f"golden samples are to come from {framework}, but {error.name} is not installed;"
            " allowed is what is installed, or onnx"
        ) from error


def installed_forward(trained_by: str | None) -> Forward | None:
    """Return the forward pass of the framework that trained, or else of one that is installed, or none."""
    for framework in sorted(_FORWARDS, key=lambda name: name != trained_by):
        with suppress(InvalidValueError):
            return forward_of(framework)
    return None


def _pytorch() -> Forward:
    from models.frameworks import torch_network  # noqa: PLC0415 - torch is not always there, and starts slowly

    return Forward(computed_by=f"PyTorch {version('torch')}, float32", logits=torch_network.logits)


def _mindspore() -> Forward:
    from models.frameworks import mindspore_network  # noqa: PLC0415 - as torch

    return Forward(computed_by=f"MindSpore {version('mindspore')}, float32", logits=mindspore_network.logits)


_FORWARDS: dict[Framework, Callable[[], Forward]] = {"pytorch": _pytorch, "mindspore": _mindspore}
