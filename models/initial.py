"""Draw the weights that training begins with: Network and Initialisation -> name -> float32 array.

Both frameworks begin with these, so that a seed means the same in each. random_weights in weights.py is something
else: it imitates a trained network.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.layers import Convolution, Dense, Norm, topology
from models.networks import Network
from models.weights import Array, uniform

_NARROW_NORM = 0.07
_NARROW_DENSE = 0.01
_CUT = 2  # deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisation:
    """How weights are drawn; norms begin with bias and mean 0 and variance 1.

    `convolution` is "fan in" (uniform within 1 / sqrt(fan-in), as PyTorch draws), "fan out" (normal, of variance
    2 / fan-out) or "group fan out" (the fan-out of one group, as where groups are convolutions of their own).
    `dense` is "fan in" for weight and bias, or "narrow": normal of deviation 0.01, cut at 0.02, and bias 0.
    `norm` is "one", or "narrow": uniform within 0.07, and one for SK branches. With `is_block_silent` the last norm
    of each block begins with 0, so that at first the block does nothing.
    """

    convolution: Literal["fan in", "fan out", "group fan out"] = "fan in"
    dense: Literal["fan in", "narrow"] = "fan in"
    norm: Literal["one", "narrow"] = "one"
    is_block_silent: bool = False


# What the code of the references does; their He initialisation and silent blocks are written down, but never run.
REFERENCE_INITIALISATIONS = {
    "se_resnext50": Initialisation(),
    "resnext101": Initialisation(),
    "sknet50": Initialisation(convolution="group fan out", dense="narrow", norm="narrow"),
    "sknet50_paper": Initialisation(convolution="fan out"),
    "sknet11_4x32d": Initialisation(convolution="fan out"),
}


def initial_weights(network: Network, how: Initialisation, seed: int) -> dict[str, Array]:
    """Return weights to train from; the same for the same arguments on one kind of machine."""
    generator = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for layer in topology(network).layers():
        norm = layer if isinstance(layer, Norm) else layer.norm
        if isinstance(layer, Convolution):
            weights[f"{layer.name}.weight"] = _kernel(generator, layer, how)
        elif isinstance(layer, Dense):
            weights |= _dense(generator, layer, how)
        if norm:
            weights |= _norm(generator, norm, how)
    return weights


def _kernel(generator: np.random.Generator, layer: Convolution, how: Initialisation) -> Array:
    if how.convolution == "fan in":
        limit = math.prod(layer.shape[1:]) ** -0.5
        return uniform(generator, layer.shape, -limit, limit)
    groups = layer.groups if how.convolution == "group fan out" else 1
    fan_out = layer.out_channels // groups * layer.kernel**2
    return np.float32((2 / fan_out) ** 0.5) * generator.standard_normal(layer.shape, np.float32)


def _dense(generator: np.random.Generator, layer: Dense, how: Initialisation) -> dict[str, Array]:
    shape, limit = (layer.outputs, layer.inputs), layer.inputs**-0.5
    if how.dense == "narrow":
        weight = np.float32(_NARROW_DENSE) * _cut_normal(generator, shape)
        bias = np.zeros(layer.outputs, np.float32)
    else:
        weight = uniform(generator, shape, -limit, limit)
        bias = uniform(generator, (layer.outputs,), -limit, limit)
    return {f"{layer.name}.weight": weight, **({} if layer.norm else {f"{layer.name}.bias": bias})}


def _norm(generator: np.random.Generator, norm: Norm, how: Initialisation) -> dict[str, Array]:
    zeros, ones = np.zeros(norm.channels, np.float32), np.ones(norm.channels, np.float32)
    scale = ones
    if how.is_block_silent and norm.name.endswith(".bn3"):
        scale = zeros
    elif how.norm == "narrow" and ".branches." not in norm.name:
        scale = uniform(generator, (norm.channels,), -_NARROW_NORM, _NARROW_NORM)
    return dict(zip(norm.shapes(), (scale, zeros, zeros.copy(), ones.copy()), strict=True))


def _cut_normal(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draw normal numbers, those beyond 2 again and again."""
    values = generator.standard_normal(shape, np.float32)
    while (beyond := np.abs(values) > _CUT).any():
        values[beyond] = generator.standard_normal(np.count_nonzero(beyond), np.float32)
    return values
