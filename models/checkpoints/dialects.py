"""How others name and shape the tensors of our networks: a table of dialects, and what it says of a network.

Our own grammar is that of layers.py. A dialect renames layers, and may name the parameters of a norm as
MindSpore does, keep a group convolution as one tensor a group, or the layers of an SE gate as convolutions.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from models.errors import InvalidValueError
from models.layers import Convolution, Dense, Layer, Norm, topology
from models.networks import DESCRIPTIONS, Network

Rules: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The names of one network in one dialect.

    `rules` are patterns of our layer names and what they become; the first that fits counts, and a name that
    none fits stays. `stem_pool` is how the networks in that dialect pool, None where the names do not tell.
    """

    name: str
    network: str
    rules: Rules = ()
    stem_pool: Literal["ceil", "padded"] | None
    framework: Literal["mindspore", "pytorch"] | None
    is_split: bool = False
    is_gate_convolution: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How a dialect keeps one of our tensors: as these, in this order along the first axis, each so shaped."""

    names: tuple[str, ...]
    shape: tuple[int, ...]


_MINDSPORE: Rules = (
    (r"conv1", "backbone.conv"),
    (r"bn1", "backbone.bn"),
    (r"fc", "head.fc"),
    (r"(.*)\.downsample\.0", r"backbone.\1.down_sample.conv"),
    (r"(.*)\.downsample\.1", r"backbone.\1.down_sample.bn"),
    (r"(.*)", r"backbone.\1"),
)
_MINDSPORE_SK: Rules = (
    (r"conv1", "basic_conv.0"),
    (r"bn1", "basic_conv.1"),
    (r"(.*)\.conv1", r"\1.feas.0"),
    (r"(.*)\.bn1", r"\1.feas.1"),
    (r"(.*)\.branches\.(\d+)\.conv", r"\1.feas.2.convs.\2.0"),
    (r"(.*)\.branches\.(\d+)\.bn", r"\1.feas.2.convs.\2.1"),
    (r"(.*)\.sk\.fuse", r"\1.feas.2.fc"),
    (r"(.*)\.sk\.select\.(\d+)", r"\1.feas.2.fcs.\2"),
    (r"(.*)\.bn2", r"\1.feas.3"),
    (r"(.*)\.conv3", r"\1.feas.4"),
    (r"(.*)\.bn3", r"\1.feas.5"),
    (r"(.*)\.downsample\.(\d)", r"\1.shortcut.\2"),
)
_CADENE_SE: Rules = (
    (r"conv1", "layer0.conv1"),
    (r"bn1", "layer0.bn1"),
    (r"fc", "last_linear"),
    (r"(.*)\.se\.(fc\d)", r"\1.se_module.\2"),
)
_CADENE_PATHS = {
    "conv1": "0.0.0",
    "bn1": "0.0.1",
    "conv2": "0.0.3",
    "bn2": "0.0.4",
    "conv3": "0.1",
    "bn3": "0.2",
    "downsample.0": "1.0",
    "downsample.1": "1.1",
}
_CADENE: Rules = (
    (r"conv1", "features.0"),
    (r"bn1", "features.1"),
    (r"fc", "last_linear"),
    *(
        (rf"layer{stage}\.(\d+)\.{re.escape(ours)}", rf"features.{stage + 3}.\1.0.{theirs}")
        for stage in (1, 2, 3, 4)
        for ours, theirs in _CADENE_PATHS.items()
    ),
)
_MINDSPORE_RULES = {"se_resnext50": _MINDSPORE, "resnext101": _MINDSPORE, "sknet50": _MINDSPORE_SK}

DIALECTS = (
    *(Dialect(name="cardinal", network=network, stem_pool=None, framework=None) for network in DESCRIPTIONS),
    Dialect(name="torchvision", network="resnext101", stem_pool="padded", framework="pytorch"),
    Dialect(
        name="timm",
        network="se_resnext50",
        stem_pool="padded",
        framework="pytorch",
        is_gate_convolution=True,
    ),
    Dialect(name="timm", network="resnext101", stem_pool="padded", framework="pytorch"),
    Dialect(
        name="cadene",
        network="se_resnext50",
        rules=_CADENE_SE,
        stem_pool="ceil",
        framework="pytorch",
        is_gate_convolution=True,
    ),
    Dialect(name="cadene", network="resnext101", rules=_CADENE, stem_pool="padded", framework="pytorch"),
    *(
        Dialect(
            name="mindspore-split" if is_split else "mindspore",
            network=network,
            rules=rules,
            stem_pool="ceil",
            framework="mindspore",
            is_split=is_split,
        )
        for network, rules in _MINDSPORE_RULES.items()
        for is_split in (False, True)
    ),
    *(
        Dialect(name="cardinal-split", network=network, stem_pool=None, framework=None, is_split=True)
        for network in DESCRIPTIONS
    ),
)
DIALECT_NAMES = tuple(dict.fromkeys(dialect.name for dialect in DIALECTS))

_MINDSPORE_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def dialect_of(name: str, network: Network) -> Dialect:
    """Return the dialect of that name for a network."""
    if name not in DIALECT_NAMES:
        raise InvalidValueError(f"dialect is {name!r}; allowed are {', '.join(DIALECT_NAMES)}")
    fitting = {dialect.name: dialect for dialect in DIALECTS if dialect.network == network.name}
    if name not in fitting:
        raise InvalidValueError(
            f"dialect {name!r} has no names for {network.name}; allowed are {', '.join(fitting)}"
        )
    return fitting[name]


def stored_tensors(network: Network, dialect: Dialect) -> dict[str, Stored]:
    """Return, for each of our tensors in the order of computation, how the dialect keeps it."""
    stored: dict[str, Stored] = {}
    for layer in topology(network).layers():
        stored |= _stored(layer, dialect)
    return stored


def _stored(layer: Layer, dialect: Dialect) -> dict[str, Stored]:
    theirs = _renamed(layer.name, dialect)
    match layer:
        case Convolution(groups=groups, shape=(outputs, *rest), norm=norm):
            is_split = dialect.is_split and groups > 1
            pieces = [f"{theirs}.convs.{group}" for group in range(groups)] if is_split else [theirs]
            names = tuple(f"{piece}.weight" for piece in pieces)
            weight = Stored(names=names, shape=(outputs // len(names), *rest))
            return {f"{layer.name}.weight": weight, **_stored(norm, dialect)}
        case Norm():
            suffixes = _MINDSPORE_NORM if dialect.framework == "mindspore" else {}
            return {
                name: Stored(names=(f"{theirs}.{suffixes.get(suffix, suffix)}",), shape=shape)
                for name, shape in layer.shapes().items()
                for suffix in [name.rpartition(".")[2]]
            }
        case Dense(inputs=inputs, outputs=outputs, norm=after):
            is_convolution = dialect.is_gate_convolution and ".se." in layer.name
            shape = (outputs, inputs, 1, 1) if is_convolution else (outputs, inputs)
            bias = {f"{layer.name}.bias": Stored(names=(f"{theirs}.bias",), shape=(outputs,))}
            weight = Stored(names=(f"{theirs}.weight",), shape=shape)
            return {f"{layer.name}.weight": weight, **(_stored(after, dialect) if after else bias)}


def _renamed(name: str, dialect: Dialect) -> str:
    for pattern, replacement in dialect.rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return name
