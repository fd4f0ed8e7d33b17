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
    """The classes of one image, best first, and what they are from."""

    classes: list[ScoredClass]
    source: Annotated[
        Literal["engine", "shared", "cache"],
        Field(
            description="`engine`: computed for this request. `shared`: computed once for several equal images "
            "that were asked for at the same time. `cache`: remembered."
        ),
    ]


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
    engine: Annotated[
        str, Field(description="What computed the answers; several engines are parted by commas.")
    ]
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


class Gear(BaseModel):
    """How long batches of one size take, and the least that as many images could take otherwise."""

    gear: int
    p50_ms: float
    p99_ms: float
    images_per_s: float
    least_ms: Annotated[float, Field(description="The least time for as many images, by any batches.")]
    best_batches: Annotated[list[int], Field(description="The batches that take the least time.")]
    is_used: Annotated[bool, Field(description="False for a size that is never worth running.")]


class Profile(BaseModel):
    """The measured curve of one engine, and what the queue makes of it at the present load."""

    device: str
    engine: str
    gears: list[Gear]
    images_per_s: Annotated[float, Field(description="The arrivals that the queue is tuned to.")]
    deadline_ms: Annotated[
        float,
        Field(description="The usual deadline that it is tuned to; a later one would make no difference."),
    ]
    main_gear: Annotated[int, Field(description="The batch size that a long line is run with.")]


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
    profiles: list[Profile] | None = None


class ModelList(BaseModel):
    """All models of the repository."""

    models: list[ModelDescription]
