"""Describe a training as data: a YAML file and overrides -> Recipe, checked whole before the first step.

A recipe is saved with every checkpoint; with its seed it says all that a run depends on but the data themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import InvalidValueError
from models.initial import REFERENCE_INITIALISATIONS, Initialisation
from models.networks import Network, SelectiveKernel, describe
from models.preprocessing import PREPROCESSINGS, Preprocessing
from models.publish import MODEL_NAME
from models.training.schedules import Schedule

BUNDLED = Path(__file__).parent / "recipes"

Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Pixels: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
Name: TypeAlias = Annotated[str, Field(pattern=f"^({MODEL_NAME.pattern})$")]  # of a folder, and of a model
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Channels: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strict:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChoice(_Strict):
    """Which network is trained; how its stem pools is the description's own unless it is said."""

    name: str
    classes: Annotated[int, Field(ge=2, le=100_000)]
    width: Annotated[Positive, Field(le=16)] = 1.0
    stem_pool: Literal["ceil", "padded"] | None = None

    def describe(self) -> Network:
        """Return the network."""
        network = describe(self.name, classes=self.classes, width=self.width)
        return replace(network, stem_pool=self.stem_pool) if self.stem_pool else network


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice(_Strict):
    """Where the pictures are.

    `folder` has a folder for each class, `cifar10` the files of the binary version; `synthetic` draws `images`
    pictures by the seed, `train` and `evaluation` alike. Paths may be URLs of an object storage.
    With `is_cached` decoded pictures stay in memory. `workers` are the threads that make rows.
    """

    format: Literal["folder", "cifar10", "synthetic"]
    train: str = ""
    evaluation: str = ""
    images: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    is_cached: bool = False
    workers: Annotated[int, Field(ge=1, le=256)] = 4

    @property
    def evaluation_name(self) -> str:
        """Return what the pictures of evaluation are called: the last two names of their path, if they have one."""
        return "/".join(PurePath(self.evaluation or self.train).parts[-2:]) or self.format


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingChoice(_Strict):
    """How pictures become rows, in training's end and in the served model alike: a name, and what differs."""

    name: Literal["standard", "mindspore", "cifar10"] = "standard"
    input_size: Pixels = 224
    mode: Literal["shortest", "exact"] | None = None
    size: Pixels | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    antialias: bool | None = None
    mean: Channels | None = None
    std: Channels | None = None

    def build(self) -> Preprocessing:
        """Return the object that goes into the manifest."""
        given = {
            key: value
            for key, value in asdict(self).items()
            if key not in ("name", "input_size") and value is not None
        }
        return replace(PREPROCESSINGS[self.name](self.input_size), **given)

    def shrunk(self, input_size: int) -> "PreprocessingChoice":
        """Return the same for rows of another size: what is seen of a picture stays."""
        size = self.size and round(self.size * input_size / self.input_size)
        return replace(self, input_size=input_size, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(_Strict):
    """What becomes of a picture in training, in this order: crop, mirror, colours, erasing.

    `crop` is `none`; `padded`: the picture with a black border of `padding` pixels, cut to its own size at a
    random place, then resized as the preprocessing says; `resized`: a random part of the area, within `scale` and
    `aspect`, resized to the input. Colours change by up to these shares, in random order.
    Of `erasing`, a share of the pictures, a random part is filled with the preprocessing's mean.
    """

    crop: Literal["none", "padded", "resized"] = "none"
    padding: Annotated[int, Field(ge=0, le=4096)] = 4
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    mirror: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    erasing: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFirst(_Strict):
    """For how many `epochs` training begins with rows of a smaller `input_size`, whose steps take less time."""

    input_size: Pixels
    epochs: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer(_Strict):
    """Stochastic gradient descent: v = momentum v + g + weight_decay w; w -= rate v.

    Norms and biases do not decay unless `decays_all`.
    """

    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Amount = 1e-4
    decays_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision(_Strict):
    """What the network computes in; norms, loss and weights are always float32.

    The loss is multiplied by `loss_scale` before gradients are taken; `dynamic` halves it and skips the step when
    they overflow, and doubles it after 2,000 steps without.
    """

    compute: Literal["f32", "f16", "bf16"] = "f32"
    loss_scale: Positive | Literal["dynamic"] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(_Strict):
    """What weights training begins with: drawn as `initialisation` says, or a checkpoint's.

    `reference` is what the reference of the network does. With `whitens_stem` the first convolution is not drawn,
    but is the principal components of the training pictures' patches. Of a checkpoint with another number of
    classes all but the classifier is taken if `replaces_head`.
    """

    initialisation: Literal["reference", "fan_in", "fan_out", "fan_out_silent", "identity"] = "reference"
    whitens_stem: bool = False
    checkpoint: str | None = None
    replaces_head: bool = False

    def initial(self, network: str) -> Initialisation:
        """Return how weights are drawn."""
        if self.initialisation == "reference":
            return REFERENCE_INITIALISATIONS[network]
        return _INITIALISATIONS[self.initialisation]


_INITIALISATIONS = {
    "fan_in": Initialisation(),
    "fan_out": Initialisation(convolution="fan out"),
    "fan_out_silent": Initialisation(convolution="fan out", is_block_silent=True),
    "identity": Initialisation(convolution="fan out", is_3x3_identity=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping(_Strict):
    """When checkpoints are written, and how many stay beside the best one."""

    every_epochs: Count = 1
    every_steps: Count | None = None
    keep: Count = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(_Strict):
    """A training. `batch` is the pictures of one device in one pass; `accumulate` passes make a step.

    `ema` is the share of itself that the moving average of the weights keeps at each step: it is what is evaluated
    and published then.
    """

    name: Name
    network: NetworkChoice
    data: DataChoice
    preprocessing: PreprocessingChoice = field(default_factory=PreprocessingChoice)
    augmentation: Augmentation = field(default_factory=Augmentation)
    small_first: SmallFirst | None = None
    epochs: Count
    batch: Count
    accumulate: Count = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    schedule: Annotated[Schedule, Field(discriminator="kind")]
    optimizer: Optimizer = field(default_factory=Optimizer)
    label_smoothing: Share = 0.0
    precision: Precision = field(default_factory=Precision)
    start: Start = field(default_factory=Start)
    ema: Share = 0.0
    norms: Literal["per_device", "synchronised", "frozen"] = "per_device"
    evaluate_every: Count = 1
    checkpoints: Keeping = field(default_factory=Keeping)

    def preprocessing_of(self, epoch: int) -> Preprocessing:
        """Return how pictures become rows in an epoch of training, from 0."""
        small = self.small_first
        if small and epoch < small.epochs:
            return self.preprocessing.shrunk(small.input_size).build()
        return self.preprocessing.build()

    def text(self) -> str:
        """Return the recipe as YAML, with every default written out."""
        return str(yaml.safe_dump(as_document(self), sort_keys=False))


def as_document(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values: what a file would hold."""
    document: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    return document


def read_recipe(where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a file, or of one that is bundled by its name, with `key=value` in place of its own.

    Keys of sections are parted by dots: `schedule.rate=0.1`. Raises InvalidValueError with a line for each fault.
    """
    path = _found(where)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"recipe {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InvalidValueError(f"recipe {path} holds {type(document).__name__}; allowed are keys and values")
    for override in overrides:
        _override(document, override)
    return parse_recipe(document, where=str(path))


def parse_recipe(document: Mapping[str, Any], *, where: str) -> Recipe:
    """Return the recipe that plain values describe; raises InvalidValueError with a line for each fault."""
    try:
        recipe: Recipe = TypeAdapter(Recipe).validate_python(document)
    except ValidationError as error:
        raise InvalidValueError(f"recipe {where} cannot be used:{_listed(_told(error))}") from error
    faults = list(_contradictions(recipe))
    if faults:
        raise InvalidValueError(f"recipe {where} cannot be used:{_listed(faults)}")
    return recipe


def _found(where: str) -> Path:
    bundled = BUNDLED / f"{where}.yaml"
    path = Path(where)
    if not path.is_file() and bundled.exists():
        return bundled
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in BUNDLED.glob("*.yaml")))
        raise InvalidValueError(f"recipe is {where!r}; allowed is a file, or one of {names}")
    return path


def _override(document: dict[str, Any], override: str) -> None:
    name, parted, text = override.partition("=")
    *sections, key = name.split(".")
    if not parted or not key:
        raise InvalidValueError(f"override is {override!r}; allowed is key=value, such as schedule.rate=0.1")
    for section in sections:
        inner = document.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InvalidValueError(f"override is {override!r}, but {section} is {inner!r} and no section")
        document = inner
    try:
        document[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidValueError(f"override is {override!r}, whose value is no YAML") from error


def _told(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}"
        + ("" if fault["type"] == "missing" else f", and not {fault['input']!r}")
        for fault in error.errors(include_url=False)
    ]


def _listed(faults: Sequence[str]) -> str:
    return "".join(f"\n  {fault}" for fault in faults)


def _contradictions(recipe: Recipe) -> list[str]:
    faults = _faults_of(recipe.network.describe) + _faults_of(recipe.preprocessing.build)
    faults += _faults_of_small_first(recipe)
    faults += recipe.schedule.faults(recipe.epochs)
    data = recipe.data
    if data.format == "synthetic" and not data.images:
        faults.append("data.images: synthetic pictures need a number of at least 1, and not 0")
    if data.format != "synthetic" and not data.train:
        faults.append(f"data.train: {data.format} needs a path or URL")
    if recipe.optimizer.nesterov and not recipe.optimizer.momentum:
        faults.append("optimizer.nesterov: there is no momentum to look ahead of; allowed is more than 0")
    even = 1 - 1 / recipe.network.classes
    if recipe.label_smoothing > even:
        faults.append(
            f"label_smoothing: allowed is at most {even:g}, where all classes have the same share,"
            f" and not {recipe.label_smoothing:g}"
        )
    faults += _faults_of_augmentation(recipe.augmentation) + _faults_of_norms(recipe)
    if recipe.precision.compute == "f32" and recipe.precision.loss_scale == "dynamic":
        faults.append("precision.loss_scale: dynamic is for f16 and bf16, and not for f32")
    if recipe.start.replaces_head and not recipe.start.checkpoint:
        faults.append("start.replaces_head: there is no start.checkpoint whose head could be replaced")
    if recipe.start.whitens_stem and recipe.start.checkpoint:
        faults.append("start.whitens_stem: the stem is start.checkpoint's, and does not begin anew")
    return faults


def _faults_of(build: Callable[[], object]) -> list[str]:
    try:
        build()
    except InvalidValueError as error:
        return [str(error)]
    return []


def _faults_of_augmentation(augmentation: Augmentation) -> list[str]:
    pairs = {"scale": augmentation.scale, "aspect": augmentation.aspect}
    faults = [
        f"augmentation.{key}: allowed is a rising pair, and not {low:g}, {high:g}"
        for key, (low, high) in pairs.items()
        if low > high
    ]
    if augmentation.scale[1] > 1:
        faults.append(f"augmentation.scale: allowed are shares up to 1, and not {augmentation.scale[1]:g}")
    return faults


def _faults_of_norms(recipe: Recipe) -> list[str]:
    if recipe.batch > 1 or recipe.norms != "per_device" or _faults_of(recipe.network.describe):
        return []
    gate = recipe.network.describe().gate
    if isinstance(gate, SelectiveKernel) and gate.has_fuse_norm:
        return [f"batch: the norm in the gate of {recipe.network.name} needs at least 2 pictures, and not 1"]
    return []


def _faults_of_small_first(recipe: Recipe) -> list[str]:
    small, whole = recipe.small_first, recipe.preprocessing.input_size
    if small is None:
        return []
    faults: list[str] = []
    if small.input_size >= whole:
        faults.append(
            f"small_first.input_size: allowed is less than preprocessing.input_size, {whole},"
            f" and not {small.input_size}"
        )
    elif not _faults_of(recipe.preprocessing.build):
        faults += [
            f"small_first.input_size: {fault}" for fault in _faults_of(lambda: recipe.preprocessing_of(0))
        ]
    if small.epochs >= recipe.epochs:
        faults.append(
            f"small_first.epochs: allowed is less than epochs, {recipe.epochs}, and not {small.epochs}"
        )
    return faults
