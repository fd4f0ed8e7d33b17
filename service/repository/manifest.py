"""Reads a bundle's model.json: bytes -> Manifest, or an error that names key, value and what is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from service.errors import quoted
from service.images import Preprocessing

FILE_NAME = "model.json"
_MAX_GEAR = 2048  # of Ascend's compiler
_HALF_FACTOR = 10.0  # half precision moves the scores of these networks by up to 2.6e-3 of the best one


class ManifestError(Exception):
    """A key is missing, unknown, or has a value that is not allowed; one line for each fault."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError("a path inside the bundle is needed")
    return path


def _ascending(gears: tuple[int, ...]) -> tuple[int, ...]:
    if list(gears) != sorted(set(gears)):
        raise ValueError("each gear once, in rising order, is needed")
    return gears


FilePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Gear = Annotated[int, Field(ge=1, le=_MAX_GEAR)]
Target = Annotated[str, Field(pattern=r"^(cpu|ascend[0-9][0-9a-z]*)$")]  # ascend310p, ascend910b


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strict:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile(_Strict):
    """A file of the bundle, by its path inside it, and the digest of its bytes."""

    file: FilePath
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(_Strict):
    """Which of the networks it is, and how wide."""

    name: str
    width: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(BundleFile):
    """A file that one engine can load.

    What one engine runs on one target may be several files, each with gears of its own: one gear where the
    file has a fixed batch size, several where they were compiled into it, None where it runs at any.
    """

    engine: Literal["openvino", "mindspore_lite"]
    target: Target
    gears: Annotated[tuple[Gear, ...], Field(min_length=1), AfterValidator(_ascending)] | None
    precision: Literal["f32", "f16", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSample(BundleFile):
    """A picture and the scores that the network which was trained gives it."""

    scores: tuple[Share, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden(_Strict):
    """What the model must answer before it is served."""

    computed_by: str
    tolerance: Share  # largest difference of a score in f32, as a share of the sample's best score
    samples: Annotated[tuple[GoldenSample, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy(_Strict):
    """Measured shares of right answers on n images of a dataset."""

    dataset: str
    top1: Share
    top5: Share
    n: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance(_Strict):
    """Where the weights come from."""

    untrained: bool
    recipe: str | None
    framework: str | None
    checkpoint_sha256: Sha256 | None
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPreprocessing(Preprocessing):
    """The preprocessing of images.py, with the bounds that a file must keep."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)
    size: Side
    crop: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(_Strict):
    """All that model.json says."""

    format: Annotated[int, Field(ge=1, le=1)]
    network: Network
    input_size: Side
    preprocessing: DeclaredPreprocessing
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    labels: BundleFile
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    golden: Golden
    accuracy: Accuracy | None
    provenance: Provenance
    temperature: Positive

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the bytes of a model.json.

        Raises:
            ManifestError: naming each key and value that is wrong.
        """
        try:
            manifest: Self = TypeAdapter(cls).validate_json(data)
        except ValidationError as error:
            raise ManifestError("; ".join(_faults(error))) from None
        manifest._check_together()
        return manifest

    @property
    def files(self) -> tuple[BundleFile, ...]:
        """Every file that the manifest names."""
        return (self.labels, *self.artifacts, *self.golden.samples)

    def tolerance_for(self, artifact: Artifact) -> float:
        """Tell how far its scores may be off: half precision is granted more than f32."""
        factor = 1.0 if artifact.precision == "f32" else _HALF_FACTOR
        return self.golden.tolerance * factor

    def _check_together(self) -> None:
        spec = self.preprocessing
        if not spec.crop == self.input_size <= spec.size:
            raise ManifestError(
                f"preprocessing.crop is {spec.crop}; input_size, {self.input_size}, is needed, "
                f"and at most preprocessing.size, {spec.size}"
            )
        if spec.interpolation != "bilinear" and not spec.antialias:
            raise ManifestError(
                f"preprocessing.antialias is false; with interpolation {spec.interpolation} only true is allowed"
            )
        self._check_artifacts()
        for index, sample in enumerate(self.golden.samples):
            if len(sample.scores) != self.classes:
                raise ManifestError(
                    f"golden.samples[{index}].scores has {len(sample.scores)} values; {self.classes} are needed"
                )

    def _check_artifacts(self) -> None:
        gears_of: dict[tuple[str, str], set[int]] = {}
        for index, artifact in enumerate(self.artifacts):
            key = f"artifacts[{index}]"
            if artifact.engine == "openvino" and artifact.target != "cpu":
                raise ManifestError(
                    f"{key}.target is {artifact.target!r}; for openvino only 'cpu' is allowed"
                )
            if artifact.engine == "mindspore_lite" and artifact.gears is None:
                raise ManifestError(f"{key}.gears is null; for mindspore_lite the gears are needed")
            gears = set(artifact.gears or range(1, _MAX_GEAR + 1))
            taken = gears_of.setdefault((artifact.engine, artifact.target), set())
            if gears & taken:
                raise ManifestError(
                    f"{key}.gears has {min(gears & taken)}, as another artifact for {artifact.engine} on "
                    f"{artifact.target}; only one file for each gear is allowed"
                )
            taken |= gears


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(
            "."
        )
        if fault["type"] == "missing":
            yield f"{key} is missing"
        elif fault["type"] == "json_invalid":
            yield f"is not JSON: {fault['msg']}"
        else:
            yield f"{key or 'the document'} is {quoted(fault['input'])}: {fault['msg']}"
