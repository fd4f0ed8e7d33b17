"""The manifest of a bundle, model.json: one frozen dataclass, and how it is written."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import InvalidValueError

FORMAT = 1
MANIFEST_FILE = "model.json"
GRAPH_FILE = "model.onnx"
LABELS_FILE = "labels.txt"

_TARGET = re.compile(r"cpu|ascend[0-9][0-9a-z]*")
_MAX_GEAR = 2048  # of Ascend's compiler


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSection:
    """Which network it is, and the multiplier of its channels."""

    name: str
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingSection:
    """What is left to the host between a decoded picture and a row."""

    mode: Literal["shortest", "exact"]
    size: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSection:
    """A file of the bundle."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSection:
    """A file that an engine runs on a target: `cpu`, or a chip such as `ascend310p`.

    One gear is a fixed batch size, several were compiled into the file, None is any.
    """

    engine: Literal["openvino", "mindspore_lite"]
    target: str
    file: str
    sha256: str
    gears: tuple[int, ...] | None
    precision: Literal["f32", "f16", "mixed"]

    def __post_init__(self) -> None:
        if not _TARGET.fullmatch(self.target):
            raise InvalidValueError(
                f"target is {self.target!r}; allowed is cpu, or a chip such as ascend310p"
            )
        if self.gears is not None:
            check_gears(self.gears)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSection:
    """A golden picture and the scores expected for it."""

    file: str
    sha256: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSection:
    """The golden samples; in f32 a score may differ by `tolerance` times the sample's best score."""

    computed_by: str
    tolerance: float
    samples: tuple[SampleSection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracySection:
    """What was measured on a dataset of `n` pictures."""

    dataset: str
    top1: float
    top5: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceSection:
    """Where the weights come from."""

    untrained: bool
    recipe: str | None
    framework: str | None
    checkpoint_sha256: str | None
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a bundle says about itself; field order is the order in the file."""

    format: int = FORMAT
    network: NetworkSection
    input_size: int
    preprocessing: PreprocessingSection
    classes: int
    labels: FileSection
    artifacts: tuple[ArtifactSection, ...]
    golden: GoldenSection
    accuracy: AccuracySection | None
    provenance: ProvenanceSection
    temperature: float

    def text(self) -> str:
        """Return the content of model.json."""
        return manifest_text(asdict(self))


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Return the manifest of a bundle that was published; InvalidValueError for a folder that is none."""
    try:
        document = json.loads((bundle / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"bundle is {bundle}; allowed is the folder of a version: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidValueError(f"{bundle / MANIFEST_FILE} is of another format than {FORMAT}")
    return document


def with_artifacts(document: dict[str, Any], artifacts: Sequence[ArtifactSection]) -> dict[str, Any]:
    """Return the manifest with these artifacts, in place of those for the same engine and target."""
    replaced = {(artifact.engine, artifact.target) for artifact in artifacts}
    kept = [entry for entry in document["artifacts"] if (entry["engine"], entry["target"]) not in replaced]
    return document | {"artifacts": [*kept, *map(asdict, artifacts)]}


def manifest_text(document: dict[str, Any]) -> str:
    """Return the content of model.json: two spaces a level, plain lists on one line."""
    return _render(document, "\n") + "\n"


def check_gears(gears: Sequence[int]) -> None:
    """Refuse batch sizes that are none, out of order or too large for any engine."""
    if not gears or list(gears) != sorted(set(gears)) or not 1 <= gears[0] <= gears[-1] <= _MAX_GEAR:
        words = ",".join(map(str, gears))
        raise InvalidValueError(f"gears are {words!r}; allowed are rising numbers from 1 to {_MAX_GEAR}")


def _render(value: object, newline: str) -> str:
    inner = newline + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_render(item, inner)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(items) + newline + "}"
    if isinstance(value, tuple | list) and any(isinstance(item, dict) for item in value):
        return "[" + inner + ("," + inner).join(_render(item, inner) for item in value) + newline + "]"
    return json.dumps(value)
