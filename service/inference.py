"""The story of a request. Every door calls classify(), and nothing else.

ClassifyRequest -> find the model -> decode -> batch -> encode -> Classification
                   repository/       decoding  batching/  answers
                                     each distinct image once: sharing
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from service.answers import ScoredClass, best_classes, scores_of
from service.batching import QueueAnswer, Urgency
from service.deadline import Deadline
from service.decoding import Decoder, Keep
from service.errors import InvalidInput, quoted
from service.journal import Entry
from service.repository import Repository, ServedModel
from service.sharing import Sharing, Source
from service.tensors import Rows

DEFAULT_TOP_K = 5

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)


def priority_of(text: str | None) -> Priority:
    """Read the priority that a caller asks for; without one it is normal."""
    for priority in PRIORITIES:
        if text == priority:
            return priority
    if text is not None:
        raise InvalidInput(f"X-Priority is {quoted(text)}; allowed are {', '.join(PRIORITIES)}")
    return "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """What a door understood of a request."""

    model: str
    version: str | None  # None means the one that is served
    images: Sequence[bytes]  # encoded pictures
    top_k: int | None  # None means DEFAULT_TOP_K; more than there are classes means all
    deadline: Deadline
    caller: str  # who takes turns with others
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Where the time of a request went, in seconds."""

    decode: float
    queue: float
    engine: float
    encode: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The answer: for each image its best classes, best first."""

    model: str
    version: str
    engine: str  # what computed the answers; several are parted by commas
    results: list[list[ScoredClass]]
    sources: list[Source]  # of each image's answer
    times: StageTimes


class Inference:
    """Answers requests with the models of a repository."""

    def __init__(
        self, repository: Repository, decoder: Decoder, sharing: Sharing, *, max_images: int, longest_s: float
    ) -> None:
        self._repository, self._decoder, self._sharing = repository, decoder, sharing
        self._max_images, self._longest_s = max_images, longest_s

    def deadline(self, asked_s: float | None) -> Deadline:
        """Start the clock of a request that has just arrived, with the time that its caller allows."""
        return Deadline.after(asked_s, self._longest_s)

    async def classify(self, request: ClassifyRequest, entry: Entry) -> Classification:
        """Classify all images of a request, or raise the ServiceError that tells why not."""
        model = self._find(request, entry)
        top_k = DEFAULT_TOP_K if request.top_k is None else request.top_k
        urgency = Urgency(
            deadline=request.deadline.at, caller=request.caller, priority=PRIORITIES.index(request.priority)
        )
        work = _Work(model=model, decoder=self._decoder, deadline=request.deadline, urgency=urgency)
        answer = await self._sharing.answer(request.images, work)

        answered = time.monotonic()
        scores = scores_of(answer.logits, model.bundle.manifest.temperature)
        results = best_classes(scores, model.bundle.labels, top_k)

        times = StageTimes(
            decode=answer.decode_s,
            queue=answer.queue_s,
            engine=answer.engine_s,
            encode=time.monotonic() - answered,
        )
        for stage, seconds in asdict(times).items():
            self._sharing.metrics.stage_seconds.labels(model.name, model.version, stage).observe(seconds)
        return Classification(
            model=model.name,
            version=model.version,
            engine=", ".join(dict.fromkeys(answer.engines)),
            results=results,
            sources=answer.sources,
            times=times,
        )

    def _find(self, request: ClassifyRequest, entry: Entry) -> ServedModel:
        slot = self._repository.slot(request.model, request.version)
        entry.model, entry.version, entry.images = slot.model, slot.version, len(request.images)
        if not 1 <= len(request.images) <= self._max_images:
            raise InvalidInput(
                f"the request has {len(request.images)} images; allowed are 1 to {self._max_images}"
            )
        if request.top_k is not None and request.top_k < 1:
            raise InvalidInput(f"top_k is {quoted(request.top_k)}; allowed are integers from 1")
        return self._repository.find(request.model, request.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the images of one request go through, once it is known that nobody else computes them."""

    model: ServedModel
    decoder: Decoder
    deadline: Deadline
    urgency: Urgency

    @property
    def identity(self) -> bytes:
        return " ".join((*self.labels, self.model.bundle.digest)).encode()

    @property
    def labels(self) -> tuple[str, str]:
        return self.model.name, self.model.version

    def check_room(self, images: Sequence[bytes]) -> None:
        decode_s = self.decoder.foreseen_s(sum(map(len, images)))
        self.model.queue.check_room(
            len(images), replace(self.urgency, deadline=self.urgency.deadline - decode_s)
        )

    async def decode(self, images: Sequence[bytes], keep: Keep) -> None:
        await self.decoder.decode(images, self.model.bundle.manifest.preprocessing, keep)

    async def run(self, rows: Rows) -> QueueAnswer:
        return await self.model.queue.submit(rows, self.urgency)
