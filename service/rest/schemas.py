"""The JSON of the REST door, as it is read, written and documented."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class EncodedImage(BaseModel):
    """One picture inside JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Annotated[str, Field(description="The bytes of a JPEG, PNG or WebP file in base64.")]


class ClassifyBody(BaseModel):
    """A classification request as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: Annotated[list[EncodedImage], Field(min_length=1)]
    top_k: Annotated[int | None, Field(description="Classes to return for each image; at most all.")] = None


class ScoredClass(BaseModel):
    """One class with its probability."""

    index: int
    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class Result(BaseModel):
    """The classes of one image, best first."""

    classes: list[ScoredClass]


class TimingMs(BaseModel):
    """Milliseconds that the request spent in each stage."""

    decode: float
    queue: float
    engine: float
    total: float


class ClassifyAnswer(BaseModel):
    """The answer to a classification request."""

    model: str
    version: str
    request_id: str
    results: Annotated[list[Result], Field(description="One for each image, in the order of the request.")]
    engine: Annotated[str, Field(description="What ran the model.")]
    timing_ms: TimingMs


class Refusal(BaseModel):
    """Every error."""

    error: Annotated[
        str, Field(description="A sentence: what was wrong, with the value, and what is allowed.")
    ]
    code: Annotated[str, Field(description="A stable word for programs.")]
    request_id: str


class Accuracy(BaseModel):
    """Measured accuracy."""

    dataset: str
    top1: float
    top5: float
    n: int


class Preprocessing(BaseModel):
    """What is done to a picture before the model sees it."""

    mode: Literal["shortest", "exact"]
    size: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool


class Provenance(BaseModel):
    """Where the weights come from."""

    recipe: str | None
    framework: str | None
    checkpoint_sha256: str | None
    seed: int | None


class ModelDescription(BaseModel):
    """A model of the repository; what lies behind `reason` is null until it is loaded."""

    name: str
    version: str
    ready: bool
    reason: Annotated[str, Field(description="Why it is not ready; empty where it is.")]
    engine: str | None = None
    network: str | None = None
    untrained: Annotated[
        bool | None, Field(description="True for random weights: its answers mean nothing.")
    ] = None
    classes: int | None = None
    labels: list[str] | None = None
    accuracy: Accuracy | None = None
    preprocessing: Preprocessing | None = None
    provenance: Provenance | None = None


class ModelList(BaseModel):
    """All models of the repository."""

    models: list[ModelDescription]
