"""The networks in PyTorch: Network -> module, whose state dict has the names of layers.py.

planes (n, 3, side, side) float32, normalised -> logits (n, classes)
"""

from functools import reduce
from itertools import islice
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.layers import (
    NORM_EPSILON,
    Block,
    Convolution,
    Dense,
    Norm,
    PlainBlock,
    SelectiveKernelLayers,
    SqueezeExciteLayers,
    topology,
)
from models.networks import Network
from models.weights import Array, Weights, check_weights, parameter_shapes


class ResNeXt(nn.Module):
    """A network of the family; `network` is the description that it was built from."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        layers = topology(network)
        blocks = iter(layers.blocks)
        self.network = network
        self.conv1, self.bn1 = _convolution(layers.stem), _norm(layers.stem.norm)
        self.pool = _stem_pool(network)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(*(_block(block, network) for block in islice(blocks, count)))
            for count in network.stages
        )
        self.fc = _dense(layers.head)

    def forward(self, planes: Tensor) -> Tensor:
        """Return the logits (n, classes) of normalised planes (n, 3, side, side)."""
        x = self.pool(self.bn1(self.conv1(planes)).relu())  # (n, stem, h, w)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (n, c, smaller h, smaller w)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Bottleneck(nn.Module):
    """A block: reduce, one 3x3 convolution or several that an SK gate mixes, expand, SE gate, shortcut."""

    def __init__(self, block: Block, network: Network) -> None:
        super().__init__()
        gate, shortcut = block.gate, block.shortcut
        self.inner = nn.ReLU() if network.inner_relu else nn.Identity()
        self.conv1, self.bn1 = _convolution(block.reduce), _norm(block.reduce.norm)
        self.has_branches = isinstance(gate, SelectiveKernelLayers)
        if isinstance(gate, SelectiveKernelLayers):
            self.branches = nn.ModuleList(Branch(branch) for branch in block.branches)
            self.sk, self.bn2 = SelectiveKernel(gate), _norm(gate.norm)
        else:
            self.conv2, self.bn2 = _convolution(block.branches[0]), _norm(block.branches[0].norm)
        self.conv3, self.bn3 = _convolution(block.expand), _norm(block.expand.norm)
        self.se = SqueezeExcite(gate) if isinstance(gate, SqueezeExciteLayers) else nn.Identity()
        self.downsample = (
            nn.Sequential(_convolution(shortcut), _norm(shortcut.norm)) if shortcut else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:  # (n, in, h, w)
        """Return the block's output, (n, out, h / stride, w / stride)."""
        y = self.inner(self.bn1(self.conv1(x)))  # (n, inner, h, w)
        y = self.sk([branch(y) for branch in self.branches]) if self.has_branches else self.conv2(y)
        y = self.inner(self.bn2(y))  # (n, inner, h / stride, w / stride)
        y = self.se(self.bn3(self.conv3(y)))  # (n, out, h / stride, w / stride)
        total: Tensor = y + self.downsample(x)
        return total.relu()


class Plain(nn.Module):
    """A block: 3x3 convolution, pool, several that an SK gate mixes."""

    def __init__(self, block: PlainBlock) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(block.first), _norm(block.first.norm)
        self.pool = nn.MaxPool2d(2) if block.has_pool else nn.Identity()
        self.branches = nn.ModuleList(Branch(branch) for branch in block.branches)
        self.sk, self.bn2 = SelectiveKernel(block.gate), _norm(block.gate.norm)

    def forward(self, x: Tensor) -> Tensor:  # (n, in, h, w)
        """Return the block's output, (n, out, h / 2, w / 2) with a pool."""
        y = self.bn1(self.pool(self.conv1(x))).relu()  # (n, out, h / 2, w / 2)
        y = self.bn2(self.sk([branch(y) for branch in self.branches]))
        output: Tensor = y.relu()
        return output


class SqueezeExcite(nn.Module):
    """The SE gate: scales each channel by a sigmoid of all channels' means."""

    def __init__(self, gate: SqueezeExciteLayers) -> None:
        super().__init__()
        self.fc1, self.fc2 = _dense(gate.fc1), _dense(gate.fc2)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w)
        """Return the scaled maps."""
        z = self.fc2(self.fc1(x.mean((2, 3))).relu())  # (n, c)
        scaled: Tensor = x * z.sigmoid()[:, :, None, None]
        return scaled


class Branch(nn.Module):
    """One 3x3 convolution under an SK gate, with norm and ReLU."""

    def __init__(self, branch: Convolution) -> None:
        super().__init__()
        self.conv, self.bn = _convolution(branch), _norm(branch.norm)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w)
        """Return the branch's maps, (n, c, h / stride, w / stride)."""
        y: Tensor = self.bn(self.conv(x))
        return y.relu()


class SelectiveKernel(nn.Module):
    """The SK gate: mixes branches, channel by channel, by a softmax of the means of their sum."""

    def __init__(self, gate: SelectiveKernelLayers) -> None:
        super().__init__()
        norm = gate.fuse.norm
        self.fuse = _dense(gate.fuse)
        self.norm = nn.BatchNorm1d(norm.channels, NORM_EPSILON, norm.momentum) if norm else None
        self.select = nn.ModuleList(_dense(select) for select in gate.selects)

    def forward(self, branches: list[Tensor]) -> Tensor:  # m of (n, c, h, w)
        """Return the mixture, (n, c, h, w)."""
        z = self.fuse(_sum([branch.mean((2, 3)) for branch in branches]))  # (n, d)
        z = self.norm(z).relu() if self.norm else z
        shares = torch.stack([select(z) for select in self.select], dim=1).softmax(1)  # (n, m, c)
        return _sum(
            [
                branch * share[..., None, None]
                for branch, share in zip(branches, shares.unbind(1), strict=True)
            ]
        )


def _sum(maps: list[Tensor]) -> Tensor:
    """Return the sum; of a stack it would be slower, since that has no channels that come last."""
    return reduce(add, maps)


def _stem_pool(network: Network) -> nn.Module:
    if network.is_plain:
        return nn.Identity()
    edges = {"ceil_mode": True} if network.stem_pool == "ceil" else {"padding": 1}
    return nn.MaxPool2d(3, stride=2, **edges)


def _block(block: Block | PlainBlock, network: Network) -> nn.Module:
    return Plain(block) if isinstance(block, PlainBlock) else Bottleneck(block, network)


def _convolution(layer: Convolution) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias=False,
    )


def _norm(layer: Norm) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(layer.channels, NORM_EPSILON, layer.momentum)


def _dense(layer: Dense) -> nn.Linear:
    return nn.Linear(layer.inputs, layer.outputs, bias=layer.norm is None)


def build(network: Network) -> ResNeXt:
    """Return the network in training mode, with PyTorch's own initial weights."""
    return ResNeXt(network)


def load(module: ResNeXt, weights: Weights) -> None:
    """Put weights into a module, all of them or, where one does not fit, none.

    Raises InvalidValueError with a list of all that is missing, surplus or misshapen.
    """
    check_weights(module.network, weights)
    state = module.state_dict()
    with torch.no_grad():
        for name, array in weights.items():
            state[name].copy_(torch.tensor(array))


def weights_of(module: ResNeXt) -> dict[str, Array]:
    """Return a copy of the weights, float32 whatever the module computes in."""
    state = module.state_dict()
    return {name: state[name].float().cpu().numpy().copy() for name in parameter_shapes(module.network)}


def logits(network: Network, weights: Weights, planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network answers to normalised planes: the float32 forward pass on the CPU.

    The weights are not copied, nor changed.
    """
    check_weights(network, weights)
    with torch.device("meta"):
        module = build(network)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    module.load_state_dict(state, strict=False, assign=True)  # the counters of batches stay without memory
    with torch.inference_mode():
        answered: NDArray[np.float32] = module.eval()(torch.from_numpy(planes)).numpy()
    return answered
