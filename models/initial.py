"""Draw the weights that training begins with: Network and Initialisation -> name -> float32 array.

Both frameworks begin with these, so that a seed means the same in each. random_weights in weights.py is something
else: it imitates a trained network.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.layers import Convolution, Dense, Norm, topology
from models.networks import Network
from models.weights import Array, uniform

_IDENTITY = 3  # the side of kernels that can begin as one
_NARROW_NORM = 0.07
_NARROW_DENSE = 0.01
_CUT = 2  # deviations
_PATCH_STRIDE = 4  # between patches that are looked at; nearer ones say much the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisation:
    """How weights are drawn; norms begin with bias and mean 0 and variance 1.

    `convolution` is "fan in" (uniform within 1 / sqrt(fan-in), as PyTorch draws), "fan out" (normal, of variance
    2 / fan-out) or "group fan out" (the fan-out of one group, as where groups are convolutions of their own). With
    `is_3x3_identity` a 3x3 convolution of one group begins by passing its channels on, and what it has beyond
    those is drawn.
    `dense` is "fan in" for weight and bias, or "narrow": normal of deviation 0.01, cut at 0.02, and bias 0.
    `norm` is "one", or "narrow": uniform within 0.07, and one for SK branches. With `is_block_silent` the last norm
    of each block begins with 0, so that at first the block does nothing.
    """

    convolution: Literal["fan in", "fan out", "group fan out"] = "fan in"
    dense: Literal["fan in", "narrow"] = "fan in"
    norm: Literal["one", "narrow"] = "one"
    is_block_silent: bool = False
    is_3x3_identity: bool = False


# What the code of the references does; their He initialisation and silent blocks are written down, but never run.
REFERENCE_INITIALISATIONS = {
    "se_resnext50": Initialisation(),
    "resnext101": Initialisation(),
    "sknet50": Initialisation(convolution="group fan out", dense="narrow", norm="narrow"),
    "sknet50_paper": Initialisation(convolution="fan out"),
    "sknet8": Initialisation(convolution="fan out"),
}


def initial_weights(network: Network, how: Initialisation, seed: int) -> dict[str, Array]:
    """Return weights to train from; the same for the same arguments on one kind of machine."""
    generator = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for layer in topology(network).layers():
        norm = layer if isinstance(layer, Norm) else layer.norm
        if isinstance(layer, Convolution):
            kernel = _kernel(generator, layer, how)
            if how.is_3x3_identity and layer.kernel == _IDENTITY and layer.groups == 1:
                _pass_on(kernel)
            weights[f"{layer.name}.weight"] = kernel
        elif isinstance(layer, Dense):
            weights |= _dense(generator, layer, how)
        if norm:
            weights |= _norm(generator, norm, how)
    return weights


def whitened_stem(network: Network, planes: Iterable[NDArray[np.float32]]) -> Array:
    """Return a kernel of the stem that parts what small patches of pictures vary in, the most varied first.

    These are the principal components of the patches of some normalised planes (n, 3, side, side), each with both
    signs since a ReLU follows. A stem that is drawn sees mostly their mean, in all of its channels.
    """
    stem = topology(network).stem
    wanted, size = -(-stem.out_channels // 2), math.prod(stem.shape[1:])
    if wanted > size:
        raise InvalidValueError(
            f"the stem has {stem.out_channels} channels; allowed are at most {2 * size} to begin whitened"
        )
    count, total, products = 0, np.zeros(size), np.zeros((size, size))
    for some in planes:
        windows = sliding_window_view(some, (stem.kernel, stem.kernel), (2, 3))
        apart = windows[:, :, ::_PATCH_STRIDE, ::_PATCH_STRIDE].transpose(0, 2, 3, 1, 4, 5)
        patches = apart.reshape(-1, size).astype(np.float64)
        count += len(patches)
        total += patches.sum(axis=0)
        products += patches.T @ patches
    mean = total / count
    components = np.linalg.eigh(products / count - np.outer(mean, mean)).eigenvectors.T[::-1][:wanted]
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(wanted), largest])[
        :, None
    ]  # else the library chooses the sign
    both = np.concatenate([components, -components])[: stem.out_channels]
    return both.reshape(stem.shape).astype(np.float32)


def _kernel(generator: np.random.Generator, layer: Convolution, how: Initialisation) -> Array:
    if how.convolution == "fan in":
        limit = math.prod(layer.shape[1:]) ** -0.5
        return uniform(generator, layer.shape, -limit, limit)
    groups = layer.groups if how.convolution == "group fan out" else 1
    fan_out = layer.out_channels // groups * layer.kernel**2
    return np.float32((2 / fan_out) ** 0.5) * generator.standard_normal(layer.shape, np.float32)


def _pass_on(kernel: Array) -> None:
    """Make the first outputs of a kernel (out, in, 3, 3) what enters, one channel each."""
    channels, centre = min(kernel.shape[:2]), _IDENTITY // 2
    kernel[:channels] = 0
    kernel[range(channels), range(channels), centre, centre] = 1


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
