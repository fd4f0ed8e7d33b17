"""Check and make the tensors of a network: Network -> name -> float32 array, named as layers.py says."""

import math
from collections.abc import Container, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.layers import (
    Convolution,
    Norm,
    PlainBlock,
    SelectiveKernelLayers,
    Shapes,
    SqueezeExciteLayers,
    Topology,
    topology,
)
from models.networks import Network

Array: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = Mapping[str, Array]

_HEAD_GAIN = 0.75
_GATE_GAIN = 1.0


def parameter_shapes(network: Network) -> Shapes:
    """Return name -> shape of every tensor of the network, in the order of computation."""
    return topology(network).shapes()


def check_weights(network: Network, weights: Weights) -> None:
    """Refuse weights that are not exactly the network's, with a list of all that is missing, surplus or misshapen."""
    faults = mismatches(parameter_shapes(network), weights, floats=("float32",))
    if faults:
        told = "; ".join(f"{len(found)} {kind}: {', '.join(found)}" for kind, found in faults.items())
        raise InvalidValueError(f"weights are not those of {network.name}: {told}")


def mismatches(
    shapes: Shapes, tensors: Mapping[str, NDArray[np.generic]], *, floats: Container[str]
) -> dict[str, list[str]]:
    """Return what is missing, surplus, or misshapen: of another shape, or of a type that is none of `floats`."""
    unfit = [
        f"{name} is {tensor.dtype} {tensor.shape} and not float {shapes[name]}"
        for name, tensor in tensors.items()
        if name in shapes and (tensor.shape != shapes[name] or tensor.dtype.name not in floats)
    ]
    faults = {
        "missing": [name for name in shapes if name not in tensors],
        "surplus": [name for name in tensors if name not in shapes],
        "misshapen": unfit,
    }
    return {kind: found for kind, found in faults.items() if found}


def random_weights(network: Network, seed: int) -> dict[str, Array]:
    """Return untrained weights whose scores differ from picture to picture; same seed, same bits anywhere.

    Only uniform numbers are drawn: unlike normal ones they involve no function of the C library.
    """
    if seed < 0:
        raise InvalidValueError(f"seed is {seed}; allowed is at least 0")
    generator = np.random.Generator(np.random.PCG64(seed))
    layers = topology(network)
    gains = _norm_gains(network, layers)
    weights: dict[str, Array] = {}
    for layer in layers.layers():
        if isinstance(layer, Convolution):
            fan_in = math.prod(layer.shape[1:])
            weights[f"{layer.name}.weight"] = _centred(generator, layer.shape, fan_in**-0.5)
            weights |= _random_norm(generator, layer.norm, gains[layer.norm.name])
        elif isinstance(layer, Norm):
            weights |= _random_norm(generator, layer, gains[layer.name])
        else:
            gain = _HEAD_GAIN if layer is layers.head else _GATE_GAIN
            shape = (layer.outputs, layer.inputs)
            weights[f"{layer.name}.weight"] = _centred(generator, shape, gain * layer.inputs**-0.5)
            if layer.norm:
                weights |= _random_norm(generator, layer.norm, gains[layer.norm.name])
            else:
                weights[f"{layer.name}.bias"] = _centred(generator, (layer.outputs,), 0.1)
    return weights


def _norm_gains(network: Network, layers: Topology) -> dict[str, float]:
    """Return the gain of each norm that keeps the signal's size, halved by a ReLU, through all blocks.

    The expanding convolutions share one unit of growth, so that depth does not matter.
    """
    relu_gain = 2**0.5
    inner_gain = relu_gain if network.inner_relu else 1.0
    gains = {layers.stem.norm.name: relu_gain}
    for block in layers.blocks:
        gains |= {branch.norm.name: relu_gain for branch in block.branches}
        if isinstance(block.gate, SelectiveKernelLayers):
            gains[block.gate.norm.name] = inner_gain
            if block.gate.fuse.norm:
                gains[block.gate.fuse.norm.name] = relu_gain
        if isinstance(block, PlainBlock):
            gains[block.first.norm.name] = relu_gain
            continue
        gains[block.reduce.norm.name] = inner_gain
        gains[block.expand.norm.name] = len(layers.blocks) ** -0.5
        if isinstance(block.gate, SqueezeExciteLayers):
            gains[block.expand.norm.name] *= 2  # a sigmoid of about a half follows
        if block.shortcut:
            gains[block.shortcut.norm.name] = relu_gain
    return gains


def _random_norm(generator: np.random.Generator, norm: Norm, gain: float) -> dict[str, Array]:
    weight, bias, mean, variance = norm.shapes()
    shape = (norm.channels,)
    return {
        weight: gain * uniform(generator, shape, 0.8, 1.2),
        bias: _centred(generator, shape, 0.2),
        mean: _centred(generator, shape, 0.2),
        variance: uniform(generator, shape, 0.8, 1.2),
    }


def _centred(generator: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Array:
    """Draw numbers with mean 0 and this standard deviation."""
    half = deviation * 3**0.5
    return uniform(generator, shape, -half, half)


def uniform(generator: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Draw numbers between two others."""
    return np.float32(low) + np.float32(high - low) * generator.random(shape, dtype=np.float32)
