"""Turn a description into its layers, each with the names and shapes of its parameters.

Network -> Topology. This is the one grammar of parameter names: torchvision's for what all ResNets share,
then `se.fc1`, `se.fc2` for an SE gate and `branches.0.conv`, `sk.fuse`, `sk.select.0` for an SK gate.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from models.networks import Network, SelectiveKernel, SqueezeExcite

Shapes: TypeAlias = dict[str, tuple[int, ...]]

NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A batch normalisation; `momentum` is the share of a new batch in its running statistics."""

    name: str
    channels: int
    momentum: float

    def shapes(self) -> Shapes:
        """Return name -> shape of each parameter and statistic."""
        suffixes = ("weight", "bias", "running_mean", "running_var")
        return {f"{self.name}.{suffix}": (self.channels,) for suffix in suffixes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A square convolution without bias, padded to keep its centre, and the norm that follows it."""

    name: str
    norm: Norm
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """Return the zeros added on each side."""
        return self.dilation * (self.kernel - 1) // 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of the weight: outputs, inputs per group, height, width."""
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel

    def output_size(self, size: int) -> int:
        """Return the side of the map that leaves, for the side that enters."""
        return (size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def shapes(self) -> Shapes:
        """Return name -> shape of each parameter and statistic, the norm's included."""
        return {f"{self.name}.weight": self.shape, **self.norm.shapes()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A fully connected layer, with a bias or with a norm that follows it."""

    name: str
    inputs: int
    outputs: int
    norm: Norm | None = None

    def shapes(self) -> Shapes:
        """Return name -> shape of each parameter and statistic, the norm's included."""
        after = self.norm.shapes() if self.norm else {f"{self.name}.bias": (self.outputs,)}
        return {f"{self.name}.weight": (self.outputs, self.inputs), **after}


Layer: TypeAlias = Convolution | Norm | Dense


@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeExciteLayers:
    """The gate on a block's output: means -> fc1 -> ReLU -> fc2 -> sigmoid."""

    fc1: Dense
    fc2: Dense


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveKernelLayers:
    """The gate over branches: means of their sum -> fuse -> one select each -> softmax; then a norm.

    A fuse with a norm has a ReLU too.
    """

    fuse: Dense
    selects: tuple[Dense, ...]
    norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A bottleneck: 1x1 reduce, 3x3 branches (one, or several under an SK gate), 1x1 expand, shortcut."""

    name: str
    reduce: Convolution
    branches: tuple[Convolution, ...]
    expand: Convolution
    gate: SqueezeExciteLayers | SelectiveKernelLayers | None
    shortcut: Convolution | None

    def layers(self) -> Iterator[Layer]:
        """Yield every layer in the order of computation, the shortcut last."""
        yield self.reduce
        yield from self.branches
        match self.gate:
            case SelectiveKernelLayers(fuse=fuse, selects=selects, norm=norm):
                yield fuse
                yield from selects
                yield norm
                yield self.expand
            case SqueezeExciteLayers(fc1=fc1, fc2=fc2):
                yield self.expand
                yield fc1
                yield fc2
            case None:
                yield self.expand
        if self.shortcut:
            yield self.shortcut


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBlock:
    """A 3x3 convolution, with `has_pool` a pool of 2x2 before its norm, and 3x3 branches under an SK gate."""

    name: str
    first: Convolution
    has_pool: bool
    branches: tuple[Convolution, ...]
    gate: SelectiveKernelLayers

    def layers(self) -> Iterator[Layer]:
        """Yield every layer in the order of computation."""
        yield self.first
        yield from self.branches
        yield self.gate.fuse
        yield from self.gate.selects
        yield self.gate.norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All layers of a network: stem, pool, blocks, global mean, head."""

    stem: Convolution
    blocks: tuple[Block | PlainBlock, ...]
    head: Dense

    def layers(self) -> Iterator[Layer]:
        """Yield every layer in the order of computation."""
        yield self.stem
        for block in self.blocks:
            yield from block.layers()
        yield self.head

    def shapes(self) -> Shapes:
        """Return name -> shape of every tensor of the network."""
        return {name: shape for layer in self.layers() for name, shape in layer.shapes().items()}


def topology(network: Network) -> Topology:
    """Return the layers of the network that is described."""
    blocks: list[Block | PlainBlock] = []
    channels = network.stem_channels
    block = _plain_block if network.is_plain else _block
    for stage, count in enumerate(network.stages):
        for index in range(count):
            blocks.append(block(network, stage, index, channels))
            channels = network.out_channels(stage)
    return Topology(
        stem=Convolution(
            name="conv1",
            norm=_norm(network, "bn1", network.stem_channels),
            in_channels=3,
            out_channels=network.stem_channels,
            kernel=3 if network.is_plain else 7,
            stride=1 if network.is_plain else 2,
        ),
        blocks=tuple(blocks),
        head=Dense(name="fc", inputs=channels, outputs=network.classes),
    )


def _block(network: Network, stage: int, index: int, in_channels: int) -> Block:
    name = f"layer{stage + 1}.{index}"
    stride = 2 if stage > 0 and index == 0 else 1
    inner, out = network.inner_channels(stage), network.out_channels(stage)
    return Block(
        name=name,
        reduce=_pointwise(f"{name}.conv1", _norm(network, f"{name}.bn1", inner), in_channels),
        branches=_branches(network, name, inner, stride),
        expand=_pointwise(f"{name}.conv3", _norm(network, f"{name}.bn3", out), inner),
        gate=_gate(network, name, inner, out),
        shortcut=None
        if index > 0
        else _pointwise(
            f"{name}.downsample.0", _norm(network, f"{name}.downsample.1", out), in_channels, stride
        ),
    )


def _plain_block(network: Network, stage: int, index: int, in_channels: int) -> PlainBlock:
    name, channels = f"layer{stage + 1}.{index}", network.out_channels(stage)
    if not isinstance(network.gate, SelectiveKernel):
        raise TypeError(f"gate is {network.gate}")  # which no description of a plain network lets happen
    return PlainBlock(
        name=name,
        first=Convolution(
            name=f"{name}.conv1",
            norm=_norm(network, f"{name}.bn1", channels),
            in_channels=in_channels,
            out_channels=channels,
            kernel=3,
        ),
        has_pool=index == 0,
        branches=_branches(network, name, channels, stride=1),
        gate=_selection(network, network.gate, name, channels),
    )


def _norm(network: Network, name: str, channels: int) -> Norm:
    return Norm(name=name, channels=channels, momentum=network.norm_momentum)


def _pointwise(name: str, norm: Norm, inputs: int, stride: int = 1) -> Convolution:
    return Convolution(name=name, norm=norm, in_channels=inputs, out_channels=norm.channels, stride=stride)


def _branches(network: Network, block: str, channels: int, stride: int) -> tuple[Convolution, ...]:
    names, momentum = [(f"{block}.conv2", f"{block}.bn2")], network.norm_momentum
    if isinstance(network.gate, SelectiveKernel):
        branches, momentum = range(network.gate.branches), network.gate.branch_momentum
        names = [(f"{block}.branches.{branch}.conv", f"{block}.branches.{branch}.bn") for branch in branches]
    return tuple(
        Convolution(
            name=name,
            norm=Norm(name=norm, channels=channels, momentum=momentum),
            in_channels=channels,
            out_channels=channels,
            kernel=3,
            stride=stride,
            dilation=dilation,
            groups=network.scaled_groups,
        )
        for dilation, (name, norm) in enumerate(names, start=1)
    )


def _gate(
    network: Network, block: str, inner: int, out: int
) -> SqueezeExciteLayers | SelectiveKernelLayers | None:
    match network.gate:
        case SqueezeExcite(reduction=reduction):
            hidden = out // reduction
            return SqueezeExciteLayers(
                fc1=Dense(name=f"{block}.se.fc1", inputs=out, outputs=hidden),
                fc2=Dense(name=f"{block}.se.fc2", inputs=hidden, outputs=out),
            )
        case SelectiveKernel() as gate:
            return _selection(network, gate, block, inner)
        case None:
            return None


def _selection(network: Network, gate: SelectiveKernel, block: str, channels: int) -> SelectiveKernelLayers:
    hidden = gate.hidden_channels(channels)
    norm = _norm(network, f"{block}.sk.norm", hidden) if gate.has_fuse_norm else None
    return SelectiveKernelLayers(
        fuse=Dense(name=f"{block}.sk.fuse", inputs=channels, outputs=hidden, norm=norm),
        selects=tuple(
            Dense(name=f"{block}.sk.select.{branch}", inputs=hidden, outputs=channels)
            for branch in range(gate.branches)
        ),
        norm=_norm(network, f"{block}.bn2", channels),
    )
