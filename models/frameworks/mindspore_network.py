"""The networks in MindSpore: Network -> cell, whose parameters have the names of layers.py.

planes (n, 3, side, side) float32, normalised -> logits (n, classes)

Runs in graph mode and in PyNative mode; in graph mode loops over cells are unrolled, and `self` is spelt so.
"""

from dataclasses import replace
from itertools import islice

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from models.checkpoints.dialects import dialect_of, stored_tensors
from models.layers import (
    NORM_EPSILON,
    Block,
    Convolution,
    Dense,
    PlainBlock,
    SelectiveKernelLayers,
    SqueezeExciteLayers,
    topology,
)
from models.layers import Norm as NormLayer
from models.networks import Network
from models.weights import Array, Weights, check_weights


class ResNeXt(nn.Cell):
    """A network of the family; `network` is the description that it was built from.

    With `is_split` each group of a convolution is a convolution of its own, as in the references on Ascend.
    """

    def __init__(self, network: Network, *, is_split: bool) -> None:
        super().__init__()
        layers = topology(network)
        blocks = iter(layers.blocks)
        self.network, self.is_split = network, is_split
        self.conv1, self.bn1 = _convolution(layers.stem), Norm(layers.stem.norm)
        self.pool = _stem_pool(network)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.SequentialCell([_block(block, network, is_split=is_split) for block in islice(blocks, count)])
            for count in network.stages
        )
        self.fc = _dense(layers.head)

    def construct(self, planes: Tensor) -> Tensor:
        """Return the logits (n, classes) of normalised planes (n, 3, side, side)."""
        x = self.pool(ops.relu(self.bn1(self.conv1(planes))))  # (n, stem, h, w)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (n, c, smaller h, smaller w)
        return self.fc(ops.mean(x, (2, 3)))


class Bottleneck(nn.Cell):
    """A block: reduce, one 3x3 convolution or several that an SK gate mixes, expand, SE gate, shortcut."""

    def __init__(self, block: Block, network: Network, *, is_split: bool) -> None:
        super().__init__()
        gate, shortcut = block.gate, block.shortcut
        self.inner = nn.ReLU() if network.inner_relu else nn.Identity()
        self.conv1, self.bn1 = _convolution(block.reduce), Norm(block.reduce.norm)
        self.has_branches = isinstance(gate, SelectiveKernelLayers)
        if isinstance(gate, SelectiveKernelLayers):
            self.branches = nn.CellList([Branch(branch, is_split=is_split) for branch in block.branches])
            self.sk, self.bn2 = SelectiveKernel(gate), Norm(gate.norm)
        else:
            self.conv2 = _grouped(block.branches[0], is_split=is_split)
            self.bn2 = Norm(block.branches[0].norm)
        self.conv3, self.bn3 = _convolution(block.expand), Norm(block.expand.norm)
        self.se = SqueezeExcite(gate) if isinstance(gate, SqueezeExciteLayers) else nn.Identity()
        self.downsample = (
            nn.SequentialCell([_convolution(shortcut), Norm(shortcut.norm)]) if shortcut else nn.Identity()
        )

    def construct(self, x: Tensor) -> Tensor:  # (n, in, h, w)
        """Return the block's output, (n, out, h / stride, w / stride)."""
        y = self.inner(self.bn1(self.conv1(x)))  # (n, inner, h, w)
        y = self.sk(_each(self.branches, y)) if self.has_branches else self.conv2(y)
        y = self.inner(self.bn2(y))  # (n, inner, h / stride, w / stride)
        y = self.se(self.bn3(self.conv3(y)))  # (n, out, h / stride, w / stride)
        return ops.relu(y + self.downsample(x))


class Plain(nn.Cell):
    """A block: 3x3 convolution, pool, several that an SK gate mixes."""

    def __init__(self, block: PlainBlock, *, is_split: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(block.first), Norm(block.first.norm)
        self.pool = nn.MaxPool2d(2, 2) if block.has_pool else nn.Identity()
        self.branches = nn.CellList([Branch(branch, is_split=is_split) for branch in block.branches])
        self.sk, self.bn2 = SelectiveKernel(block.gate), Norm(block.gate.norm)

    def construct(self, x: Tensor) -> Tensor:  # (n, in, h, w)
        """Return the block's output, (n, out, h / 2, w / 2) with a pool."""
        y = ops.relu(self.bn1(self.pool(self.conv1(x))))  # (n, out, h / 2, w / 2)
        return ops.relu(self.bn2(self.sk(_each(self.branches, y))))


class SqueezeExcite(nn.Cell):
    """The SE gate: scales each channel by a sigmoid of all channels' means."""

    def __init__(self, gate: SqueezeExciteLayers) -> None:
        super().__init__()
        self.fc1, self.fc2 = _dense(gate.fc1), _dense(gate.fc2)

    def construct(self, x: Tensor) -> Tensor:  # (n, c, h, w)
        """Return the scaled maps."""
        z = self.fc2(ops.relu(self.fc1(ops.mean(x, (2, 3)))))  # (n, c)
        return x * ops.expand_dims(ops.expand_dims(ops.sigmoid(z), -1), -1)


class Branch(nn.Cell):
    """One 3x3 convolution under an SK gate, with norm and ReLU."""

    def __init__(self, branch: Convolution, *, is_split: bool) -> None:
        super().__init__()
        self.conv, self.bn = _grouped(branch, is_split=is_split), Norm(branch.norm)

    def construct(self, x: Tensor) -> Tensor:  # (n, c, h, w)
        """Return the branch's maps, (n, c, h / stride, w / stride)."""
        return ops.relu(self.bn(self.conv(x)))


class SelectiveKernel(nn.Cell):
    """The SK gate: mixes branches, channel by channel, by a softmax of the means of their sum."""

    def __init__(self, gate: SelectiveKernelLayers) -> None:
        super().__init__()
        self.fuse = _dense(gate.fuse)
        self.has_norm, self.channels = gate.fuse.norm is not None, gate.norm.channels
        if gate.fuse.norm:
            self.norm = Norm(gate.fuse.norm)
        self.select = nn.CellList([_dense(select) for select in gate.selects])

    def construct(self, branches: tuple[Tensor, ...]) -> Tensor:  # m of (n, c, h, w)
        """Return the mixture, (n, c, h, w)."""
        z = self.fuse(ops.mean(_sum(branches), (2, 3)))  # (n, d)
        if self.has_norm:
            z = ops.relu(self.norm(z))
        selected = ops.concat(_each(self.select, z), 1)  # (n, m * c)
        shares = ops.softmax(ops.reshape(selected, (-1, len(branches), self.channels)), 1)  # (n, m, c)
        shares = ops.reshape(shares, (-1, len(branches) * self.channels, 1, 1))
        shares = ops.chunk(shares, len(branches), 1)  # m of (n, c, 1, 1)
        weighted: tuple[Tensor, ...] = ()
        for index, branch in enumerate(branches):
            weighted += (branch * shares[index],)
        return _sum(weighted)


class Norm(nn.Cell):
    """A batch normalisation with the parameter names of the grammar, which MindSpore's own does not have.

    Mixed precision that spares `nn.BatchNorm2d` by its type has to be told of this one too.
    """

    def __init__(self, layer: NormLayer) -> None:
        super().__init__()
        ones, zeros = np.ones(layer.channels, np.float32), np.zeros(layer.channels, np.float32)
        self.momentum = layer.momentum
        self.weight, self.bias = Parameter(Tensor(ones)), Parameter(Tensor(zeros))
        self.running_mean = Parameter(Tensor(zeros), requires_grad=False)
        self.running_var = Parameter(Tensor(ones), requires_grad=False)
        self.of_batch = ops.BatchNorm(is_training=True, epsilon=NORM_EPSILON, momentum=layer.momentum)
        self.of_all = ops.BatchNorm(is_training=False, epsilon=NORM_EPSILON)

    def construct(self, x: Tensor) -> Tensor:  # (n, c) or (n, c, h, w)
        """Normalise by the batch, and follow its statistics, in training; by the running statistics else."""
        if self.training:
            return self.of_batch(x, self.weight, self.bias, self.running_mean, self.running_var)[0]
        return self.of_all(x, self.weight, self.bias, self.running_mean, self.running_var)[0]


class SplitConvolution(nn.Cell):
    """A group convolution as one convolution a group."""

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.groups = layer.groups
        inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        group = replace(layer, in_channels=inputs, out_channels=outputs, groups=1)
        self.convs = nn.CellList([_convolution(group) for _ in range(layer.groups)])

    def construct(self, x: Tensor) -> Tensor:  # (n, in, h, w)
        """Return the maps, (n, out, h / stride, w / stride)."""
        pieces = ops.chunk(x, self.groups, 1)
        maps: tuple[Tensor, ...] = ()
        for index, conv in enumerate(self.convs):
            maps += (conv(pieces[index]),)
        return ops.concat(maps, 1)


def _each(cells: nn.CellList, x: Tensor) -> tuple[Tensor, ...]:
    """Return what each cell makes of x; a tuple, because no exported format has lists."""
    outputs: tuple[Tensor, ...] = ()
    for cell in cells:
        outputs += (cell(x),)
    return outputs


def _sum(maps: tuple[Tensor, ...]) -> Tensor:
    total = maps[0]
    for other in maps[1:]:
        total = total + other
    return total


def _grouped(layer: Convolution, *, is_split: bool) -> nn.Cell:
    return SplitConvolution(layer) if is_split and layer.groups > 1 else _convolution(layer)


def _convolution(layer: Convolution) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        layer.stride,
        pad_mode="pad",
        padding=layer.padding,
        dilation=layer.dilation,
        group=layer.groups,
        has_bias=False,
    )


def _dense(layer: Dense) -> nn.Dense:
    return nn.Dense(layer.inputs, layer.outputs, has_bias=layer.norm is None)


def _block(block: Block | PlainBlock, network: Network, *, is_split: bool) -> nn.Cell:
    if isinstance(block, PlainBlock):
        return Plain(block, is_split=is_split)
    return Bottleneck(block, network, is_split=is_split)


def _stem_pool(network: Network) -> nn.Cell:
    if network.is_plain:
        return nn.Identity()
    if network.stem_pool == "ceil":
        return nn.MaxPool2d(3, 2, pad_mode="same")
    # Zeros never win after a ReLU. The pool's own padding makes it a 3D one, which is in no exported format.
    edges = nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
    return nn.SequentialCell([edges, nn.MaxPool2d(3, 2, pad_mode="valid")])


def build(network: Network, *, is_split: bool = False) -> ResNeXt:
    """Return the network, not in training mode, with MindSpore's own initial weights."""
    return ResNeXt(network, is_split=is_split)


def load(cell: ResNeXt, weights: Weights) -> None:
    """Put weights into a cell, all of them or, where one does not fit, none.

    Raises InvalidValueError with a list of all that is missing, surplus or misshapen.
    """
    check_weights(cell.network, weights)
    parameters = dict(cell.parameters_and_names())
    for name, piece in pieces_of(cell, weights).items():
        parameters[name].set_data(Tensor(piece))


def weights_of(cell: ResNeXt) -> dict[str, Array]:
    """Return a copy of the weights, float32 whatever the cell computes in, and of whole convolutions."""
    return wholes_of(
        cell, {name: parameter.float().asnumpy() for name, parameter in cell.parameters_and_names()}
    )


def pieces_of(cell: ResNeXt, weights: Weights) -> dict[str, Array]:
    """Return arrays by the names of the cell's parameters, for some by our names."""
    return {
        theirs: np.ascontiguousarray(piece)
        for name, stored in _stored(cell).items()
        if name in weights
        for theirs, piece in zip(stored, np.split(weights[name], len(stored)), strict=True)
    }


def wholes_of(cell: ResNeXt, arrays: Weights) -> dict[str, Array]:
    """Return arrays by our names, for some by the names of the cell's parameters."""
    return {
        name: np.concatenate([arrays[piece] for piece in stored])
        for name, stored in _stored(cell).items()
        if stored[0] in arrays
    }


def logits(network: Network, weights: Weights, planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network answers to normalised planes: the float32 forward pass on the CPU.

    The process computes on the CPU from then on: other devices round to fewer digits.
    """
    ms.set_device("CPU")
    cell = build(network)
    load(cell, weights)
    answered: NDArray[np.float32] = cell(Tensor(planes)).asnumpy()
    return answered


def _stored(cell: ResNeXt) -> dict[str, tuple[str, ...]]:
    """Return, for each of our names, those of the parameters that hold it."""
    dialect = dialect_of("cardinal-split" if cell.is_split else "cardinal", cell.network)
    return {name: how.names for name, how in stored_tensors(cell.network, dialect).items()}
