"""Count what a described network holds and computes: Network -> Size, without building anything."""

import math
from dataclasses import dataclass

from models.errors import InvalidValueError
from models.layers import Convolution, Dense, PlainBlock, topology
from models.networks import Network

SIZE_STEP = 4
MIN_INPUT_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a network holds: trainable parameters, norm statistics, multiply-adds of one row, layers."""

    parameters: int
    statistics: int
    macs: int
    convolutions: int
    norms: int
    denses: int


def check_input_size(size: int) -> None:
    """Refuse a side on which the "same", ceil and padded poolings of the stem would disagree in size."""
    if size < MIN_INPUT_SIZE or size % SIZE_STEP:
        raise InvalidValueError(
            f"input size is {size}; allowed are multiples of {SIZE_STEP} from {MIN_INPUT_SIZE} up"
        )


def measure(network: Network, input_size: int = 224) -> Size:
    """Return the size of a network; its multiply-adds are those of convolutions and dense layers alone."""
    check_input_size(input_size)
    layers = tuple(topology(network).layers())
    counts = {name: math.prod(shape) for layer in layers for name, shape in layer.shapes().items()}
    statistics = sum(count for name, count in counts.items() if ".running_" in name)
    convolutions = sum(isinstance(layer, Convolution) for layer in layers)
    return Size(
        parameters=sum(counts.values()) - statistics,
        statistics=statistics,
        macs=_macs(network, input_size),
        convolutions=convolutions,
        norms=sum(name.endswith(".running_mean") for name in counts),
        denses=sum(isinstance(layer, Dense) for layer in layers),
    )


def _macs(network: Network, input_size: int) -> int:
    layers = topology(network)
    size = layers.stem.output_size(input_size)
    total = math.prod(layers.stem.shape) * size**2
    if not network.is_plain:
        size //= 2  # the stem's pool, of an even map
    for block in layers.blocks:
        first = block.first if isinstance(block, PlainBlock) else block.reduce
        total += math.prod(first.shape) * size**2
        if isinstance(block, PlainBlock) and block.has_pool:
            size //= 2
        size = block.branches[0].output_size(size)
        for layer in block.layers():
            if isinstance(layer, Convolution) and layer is not first:
                total += math.prod(layer.shape) * size**2
            elif isinstance(layer, Dense):
                total += layer.inputs * layer.outputs
    return total + layers.head.inputs * layers.head.outputs
