"""What the client says and hears, free of protobuf: pictures in, an Answer or a CardinalError out."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import grpc

from service.stubs.cardinal.v1 import classifier_pb2 as wire

Picture: TypeAlias = bytes | str | os.PathLike[str]  # an encoded picture, or the path of its file


class CardinalError(Exception):
    """The server refused or could not be reached.

    `code` is the server's word for it ("INVALID_IMAGE"), or gRPC's where no server answered ("UNAVAILABLE").
    """

    def __init__(
        self, sentence: str, *, code: str = "", request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.code, self.request_id, self.retry_after_s = code, request_id, retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClass:
    """One class with its probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The classes of each picture, best first, and how they came about."""

    model: str
    version: str
    request_id: str
    engine: str
    results: Sequence[Sequence[ScoredClass]]
    sources: Sequence[str]  # of each picture's classes: "engine", "shared" with an equal picture, or "cache"
    timing_ms: dict[str, float]

    @property
    def best(self) -> ScoredClass:
        """The best class of the first picture."""
        return self.results[0][0]


def request_of(pictures: Sequence[Picture], model: str, version: str, top_k: int) -> wire.ClassifyRequest:
    """Read the files among the pictures and fill in the message."""
    images = [picture if isinstance(picture, bytes) else Path(picture).read_bytes() for picture in pictures]
    return wire.ClassifyRequest(model=model, version=version, images=images, top_k=top_k)


def answer_of(message: wire.ClassifyResponse) -> Answer:
    """Take the message apart."""
    times = message.timing_ms
    return Answer(
        model=message.model,
        version=message.version,
        request_id=message.request_id,
        engine=message.engine,
        results=[
            [ScoredClass(index=c.index, label=c.label, score=c.score) for c in result.classes]
            for result in message.results
        ],
        sources=[result.source for result in message.results],
        timing_ms={
            "decode": times.decode,
            "queue": times.queue,
            "engine": times.engine,
            "total": times.total,
        },
    )


def error_of(fault: grpc.RpcError) -> CardinalError:
    """Turn a failed call into the error that its caller handles."""
    metadata = {str(key): str(value) for key, value in _pairs(fault)}
    wait_ms = metadata.get("retry-after-ms")
    return CardinalError(
        fault.details() or fault.code().name,
        code=metadata.get("cardinal-code", fault.code().name),
        request_id=metadata.get("x-request-id", ""),
        retry_after_s=float(wait_ms) / 1000 if wait_ms else None,
    )


def _pairs(fault: grpc.RpcError) -> Iterable[tuple[object, object]]:
    # The blocking client has named tuples here and the other one plain pairs; the stubs know neither.
    return cast("Iterable[tuple[object, object]]", fault.trailing_metadata() or ())
