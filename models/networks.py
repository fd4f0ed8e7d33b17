"""Describe the networks as data: bottleneck blocks with no gate, an SE or an SK gate, or plain blocks with an SK gate.

A description is valid once it exists; layers.py turns it into layers.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from models.errors import InvalidValueError

STEM_CHANNELS = 64
STAGE_PLANES = (64, 128, 256, 512)
EXPANSION = 4
MAX_WIDTH = 8


def _at_least(field: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidValueError(f"{field} is {value}; allowed is at least {least}")


def _check_momentum(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise InvalidValueError(f"{field} is {value}; allowed is more than 0, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeExcite:
    """Scale each channel of a block's output by a sigmoid gate, computed from the channel means."""

    reduction: int = 16

    def __post_init__(self) -> None:
        _at_least("gate reduction", self.reduction, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveKernel:
    """Mix 3x3 branches of growing dilation by a softmax gate on the channel means of their sum.

    With `has_fuse_norm` a norm and a ReLU follow the gate's narrow layer, as in the paper; the SKNet50
    reference has neither.
    """

    reduction: int = 16
    minimum: int = 32
    branches: int = 2
    has_fuse_norm: bool = False
    branch_momentum: float = 0.05

    def __post_init__(self) -> None:
        _at_least("gate reduction", self.reduction, 1)
        _at_least("gate minimum", self.minimum, 1)
        _at_least("gate branches", self.branches, 2)
        _check_momentum("gate branch_momentum", self.branch_momentum)

    def hidden_channels(self, channels: int) -> int:
        """Return the size of the gate's narrow layer for so many channels."""
        return max(channels // self.reduction, self.minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of the family.

    `stages` are the blocks of each; without any in the last one the network ends at a sixteenth of the side.
    `width` scales the channels of the stem and of the block outputs, and the number of groups; channels per
    group stay. `stem_pool` is "ceil" (windows start at the first pixel, as MindSpore's "same" and Cadene's
    SENet) or "padded" (one pixel on each side, as torchvision). Without `inner_relu` only the last addition
    of a block, the stem and the SK branches have a ReLU, which is how the SKNet50 reference was trained.
    `norm_momentum` is the share of a new batch in the norms' running statistics, 1 less what MindSpore calls
    momentum; SK branches have their own.

    A plain network is for small pictures: its stem keeps the side and has no `stem_pool`; its blocks have as
    many channels as `planes` says, times `width`, in one group, and neither expansion nor shortcut; the first
    block of each stage halves the side by a pool.
    """

    name: str
    stages: tuple[int, int, int, int]
    groups: int
    base_width: int
    gate: SqueezeExcite | SelectiveKernel | None
    stem_pool: Literal["ceil", "padded"] | None
    inner_relu: bool
    classes: int
    is_plain: bool = False
    planes: tuple[int, int, int, int] = STAGE_PLANES
    width: float = 1.0
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        if len(self.stages) != len(STAGE_PLANES) or min(self.stages[:-1]) < 1 or self.stages[-1] < 0:
            raise InvalidValueError(
                f"stages is {self.stages}; allowed are {len(STAGE_PLANES)} block counts,"
                " of at least 1 but for the last, which may be 0"
            )
        _at_least("groups", self.groups, 1)
        _at_least("base_width", self.base_width, 1)
        _at_least("classes", self.classes, 2)
        if min(self.planes) < 1:
            raise InvalidValueError(f"planes is {self.planes}; allowed are at least 1")
        if self.is_plain and self.stem_pool:
            raise InvalidValueError(
                f"stem_pool is {self.stem_pool!r}; {self.name} is a plain network and has none"
            )
        if not self.is_plain and self.stem_pool not in ("ceil", "padded"):
            raise InvalidValueError(f"stem_pool is {self.stem_pool!r}; allowed are 'ceil' and 'padded'")
        if self.is_plain and not (isinstance(self.gate, SelectiveKernel) and self.inner_relu):
            raise InvalidValueError(
                f"gate of a plain network is {self.gate}; allowed is an SK gate, with inner_relu"
            )
        if not (math.isfinite(self.width) and 0 < self.width <= MAX_WIDTH):
            raise InvalidValueError(f"width is {self.width}; allowed is more than 0, at most {MAX_WIDTH}")
        _check_momentum("norm_momentum", self.norm_momentum)
        self._check_width()

    @property
    def stem_channels(self) -> int:
        """Return the channels that leave the stem."""
        return round(STEM_CHANNELS * self.width)

    @property
    def scaled_groups(self) -> int:
        """Return the groups of each 3x3 convolution."""
        return 1 if self.is_plain else round(self.groups * self.width)

    def inner_channels(self, stage: int) -> int:
        """Return the channels of the 3x3 convolutions of a stage, counted from 0."""
        if self.is_plain:
            return self.out_channels(stage)
        return self.planes[stage] * self.base_width // STEM_CHANNELS * self.scaled_groups

    def out_channels(self, stage: int) -> int:
        """Return the channels that leave a stage, counted from 0."""
        return round((1 if self.is_plain else EXPANSION) * self.planes[stage] * self.width)

    def _check_width(self) -> None:
        counts = {} if self.is_plain else {"groups": self.groups * self.width}
        counts["stem channels"] = STEM_CHANNELS * self.width
        if self.is_plain:
            for stage, planes in enumerate(self.planes):
                counts[f"channels in stage {stage + 1}"] = planes * self.width
        if isinstance(self.gate, SqueezeExcite):
            counts["gate channels"] = EXPANSION * self.planes[0] * self.width / self.gate.reduction
        for what, count in counts.items():
            if count != int(count):
                raise InvalidValueError(
                    f"width is {self.width}, which makes {count:g} {what} of {self.name};"
                    " allowed is what makes whole numbers, such as 1, 0.5, 0.25, 0.125"
                )


NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="se_resnext50",
            stages=(3, 4, 6, 3),
            groups=32,
            base_width=4,
            gate=SqueezeExcite(),
            stem_pool="ceil",
            inner_relu=True,
            classes=1000,
        ),
        Network(
            name="resnext101",
            stages=(3, 4, 23, 3),
            groups=64,
            base_width=4,
            gate=None,
            stem_pool="ceil",
            inner_relu=True,
            classes=1000,
        ),
        Network(
            name="sknet50",
            stages=(3, 4, 6, 3),
            groups=32,
            base_width=4,
            gate=SelectiveKernel(),
            stem_pool="ceil",
            inner_relu=False,
            classes=10,
            norm_momentum=0.01,
        ),
    )
}

_SKNET50_PAPER = replace(
    NETWORKS["sknet50"],
    name="sknet50_paper",
    gate=SelectiveKernel(has_fuse_norm=True, branch_momentum=0.1),
    inner_relu=True,
    norm_momentum=0.1,
    classes=1000,
)

# Beside the three: what differs from the reference of the same network in more than a number, and what is less deep.
DESCRIPTIONS = {
    **NETWORKS,
    "sknet50_paper": _SKNET50_PAPER,
    "sknet8": replace(
        _SKNET50_PAPER,
        name="sknet8",
        stem_pool=None,
        is_plain=True,
        stages=(1, 1, 1, 0),
        planes=(128, 320, 448, 448),
    ),
}


def describe(name: str, *, classes: int | None = None, width: float = 1.0) -> Network:
    """Return the network or variant of that name with another number of classes or another width."""
    if name not in DESCRIPTIONS:
        raise InvalidValueError(f"network is {name!r}; allowed are {', '.join(DESCRIPTIONS)}")
    network = DESCRIPTIONS[name]
    return replace(network, classes=network.classes if classes is None else classes, width=width)
