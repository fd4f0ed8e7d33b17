"""Has each distinct image computed once, however many ask for it at the same time.

    images -> cache -> errands: those of others are waited for, the rest is carried: decode -> queue -> logits

An errand is one distinct image on its way to its logits; all who ask for this image for the same model share it.
It is carried by one of its askers, in that one's own task and with that one's deadline and admission, so a carrier
that leaves, is refused or runs out of time just puts it down: the most urgent of the others takes it up where it is.
What is wrong with the image, or befell the engine with it, is the answer for all of them.

Nobody waits for a carrier that has clearly more time than itself, or a lower priority: it carries the errand a second
time, and whichever answer comes first is everybody's.

All state changes in synchronous functions on the event loop, so there is no lock.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import anyio
import numpy as np
from anyio.to_thread import run_sync

from service.batching import QueueAnswer, Urgency
from service.bell import Bell
from service.cache import Answer, AnswerCache
from service.deadline import Deadline
from service.decoding import Keep
from service.errors import EngineFault, InvalidInput, ServiceError
from service.metrics import Metrics
from service.tensors import Logits, Rows

Source = Literal["engine", "shared", "cache"]

_HASH_THREADS = 2
_HASHED_AT_ONCE_BYTES = 256 * 1024  # 0.15 ms of sha256 with the instructions that CPUs have for it
_MORE_TIME = 1.1  # a carrier with no more than this times one's own time is worth waiting for


class Work(Protocol):
    """How the images of one request are computed. Each step may raise a ServiceError."""

    @property
    def identity(self) -> bytes:
        """Tells apart what would answer the same image differently."""

    @property
    def labels(self) -> tuple[str, str]:
        """Model and version."""

    @property
    def deadline(self) -> Deadline:
        """When the request's time is over."""

    @property
    def urgency(self) -> Urgency:
        """How soon its rows are wanted."""

    def check_room(self, images: Sequence[bytes]) -> None:
        """Refuse what has no chance, before it costs anything."""

    async def decode(self, images: Sequence[bytes], keep: Keep) -> None:
        """Hand the row of each image to `keep`, or why it has none, upon which others may be left out."""

    async def run(self, rows: Rows) -> QueueAnswer:
        """Have the rows (n, side, side, 3) answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAnswer:
    """The logits of a request's images in their order, and how they came about."""

    logits: Logits
    engines: list[str]  # for each image, what computed it
    sources: list[Source]
    decode_s: float  # with the time to tell the images apart
    queue_s: float  # with the time that the errands of others took longer than one's own
    engine_s: float


class Sharing:
    """All errands of a server."""

    def __init__(self, cache: AnswerCache, metrics: Metrics) -> None:
        self._cache, self.metrics = cache, metrics
        self._errands: dict[bytes, _Errand] = {}
        self._hashing = anyio.CapacityLimiter(_HASH_THREADS)

    def __len__(self) -> int:
        return len(self._errands)

    async def answer(self, images: Sequence[bytes], work: Work) -> SharedAnswer:
        """Answer all images of a request, which may be equal among themselves. Who is cancelled leaves.

        Raises:
            InvalidInput: for the first image that cannot be decoded; with several, it says which.
            DeadlineExceeded: the time of `work` is over.
            ServiceError: what a step of `work` raised, or for EngineFault: the same of another request.
        """
        began = time.monotonic()
        keys = await self._keys(images, work)
        asker = _Asker(work, self, decode_s=time.monotonic() - began)
        try:
            for key, image in zip(keys, images, strict=True):
                if key not in asker.errands:
                    asker.errands[key] = self._ask(key, asker)
                    asker.images[key] = image
            for errand in asker.errands.values():
                _hand_over(errand, [asker])
            if not asker.is_over:
                await asker.wait()
            return self._joined(keys, asker)
        finally:
            for errand in asker.errands.values():
                self._leave(errand, asker)
            asker.forget()

    def settle(self, errand: "_Errand", outcome: Answer | ServiceError, settler: "_Asker") -> None:
        """Give all who ask for an image its answer, unless it has come already."""
        if errand.outcome is not None:
            return
        if isinstance(outcome, ServiceError):
            outcome = _own(outcome, "")  # without its trace, which holds images
        else:
            self._cache.put(errand.key, outcome)
        errand.outcome, errand.settler, errand.row = outcome, settler, None
        del self._errands[errand.key]
        for asker in errand.askers:
            if (
                asker is not settler
            ):  # which rings when it is through: a task that is cancelled keeps its images for long
                asker.bell.ring()

    async def _keys(self, images: Sequence[bytes], work: Work) -> list[bytes]:
        if sum(map(len, images)) <= _HASHED_AT_ONCE_BYTES:
            return _digests(work.identity, images)
        return await run_sync(_digests, work.identity, images, limiter=self._hashing)

    def _ask(self, key: bytes, asker: "_Asker") -> "_Errand":
        errand = self._errands.get(key)
        if errand is None:
            errand = _Errand(key, outcome=self._cache.get(key, asker.work.labels))
            if errand.outcome is None:
                self._errands[key] = errand
        errand.askers[asker] = None
        return errand

    def _leave(self, errand: "_Errand", asker: "_Asker") -> None:
        del errand.askers[asker]
        if errand.outcome is not None:
            return
        if not errand.askers:
            del self._errands[errand.key]
        elif asker in errand.carriers:
            errand.carriers.remove(asker)
            _hand_over(errand, sorted(errand.askers, key=_urgency))

    def _joined(self, keys: Sequence[bytes], asker: "_Asker") -> SharedAnswer:
        """Put the answers to the images of a request together, or raise what is wrong with the first bad one."""
        answers: list[Answer] = []
        sources: dict[bytes, Source] = {}
        by_image: list[Source] = []
        for place, key in enumerate(keys):
            errand = asker.errands[key]
            if isinstance(errand.outcome, ServiceError):
                raise _own(errand.outcome, f"images[{place}]: " if len(keys) > 1 else "")
            if errand.outcome is not None:
                answers.append(errand.outcome)
            by_image.append(_again(sources[key]) if key in sources else _source(errand, asker))
            sources[key] = by_image[-1]
        self.metrics.coalesced_images.labels(*asker.work.labels).inc(by_image.count("shared"))
        return SharedAnswer(
            logits=np.stack([answer.logits for answer in answers]),
            engines=[answer.engine for answer in answers],
            sources=by_image,
            decode_s=asker.decode_s,
            queue_s=asker.queue_s + time.monotonic() - asker.carried_at,
            engine_s=asker.engine_s,
        )


@dataclass(slots=True, eq=False)
class _Errand:
    key: bytes
    outcome: Answer | ServiceError | None
    settler: "_Asker | None" = None  # None where the outcome was in the cache
    row: Rows | None = None  # (side, side, 3), once decoded, whoever carries it on
    askers: dict["_Asker", None] = field(default_factory=dict)  # in the order in which they came
    carriers: set["_Asker"] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Asker:
    """One request, as long as it waits for its images."""

    work: Work
    sharing: Sharing
    decode_s: float
    queue_s: float = 0.0
    engine_s: float = 0.0
    carried_at: float = field(default_factory=time.monotonic)  # when it was through with errands of its own
    errands: dict[bytes, _Errand] = field(default_factory=dict)
    images: dict[bytes, bytes] = field(default_factory=dict)
    handed: list[_Errand] = field(default_factory=list)  # to carry from now on
    refusal: ServiceError | None = None  # of an errand that it carried
    bell: Bell = field(default_factory=Bell)  # rung when an errand is settled or handed over
    doing: str = "it waited for the engine"

    async def wait(self) -> None:
        """Return when all is answered or an image is bad; raise what keeps this request from being answered."""
        with anyio.CancelScope(deadline=self.work.deadline.at) as scope:
            async with anyio.create_task_group() as tasks:
                while not self.is_over:
                    called = self.bell.next()
                    if self.handed:
                        tasks.start_soon(self._carry, self.handed)
                        self.handed = []
                    await called.wait()
                tasks.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise self.work.deadline.exceeded(self.doing)
        if self.refusal is not None:
            raise self.refusal

    def forget(self) -> None:
        """Let images and errors go: each is in a cycle with this, and would stay until they are looked for."""
        self.errands.clear()
        self.images.clear()
        self.refusal = None

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        outcomes = [errand.outcome for errand in self.errands.values()]
        return (
            self.refusal is not None
            or all(outcome is not None for outcome in outcomes)
            or any(isinstance(outcome, ServiceError) for outcome in outcomes)
        )

    async def _carry(self, errands: Sequence[_Errand]) -> None:
        try:
            self.work.check_room([self.images[errand.key] for errand in errands])
            await self._decode([errand for errand in errands if errand.row is None])
            await self._run([errand for errand in errands if errand.outcome is None])
        except ServiceError as error:  # kept until the group is closed, which would wrap it
            self.refusal = error
        self.carried_at = time.monotonic()
        self.bell.ring()

    async def _decode(self, errands: Sequence[_Errand]) -> None:
        began = time.monotonic()
        self.doing = "its images were decoded"

        def keep(place: int, outcome: Rows | InvalidInput) -> None:
            if isinstance(outcome, InvalidInput):
                self.sharing.settle(errands[place], outcome, self)
            elif errands[place].outcome is None:
                errands[place].row = outcome

        await self.work.decode([self.images[errand.key] for errand in errands], keep)
        self.doing = "it waited for the engine"
        self.decode_s += time.monotonic() - began

    async def _run(self, errands: Sequence[_Errand]) -> None:
        if self.is_over or not errands:
            return
        decoded = [errand.row for errand in errands if errand.row is not None]
        rows = np.stack(decoded) if len(decoded) > 1 else decoded[0][np.newaxis]  # a single one is not copied
        for errand, row in zip(errands, rows, strict=True):
            errand.row = row  # the same memory as the batch: a row is held once
        try:
            answer = await self.work.run(rows)
        except EngineFault as fault:
            for errand in errands:
                if errand.carriers == {self}:
                    self.sharing.settle(errand, fault, self)
            raise
        self.queue_s += answer.queue_s
        self.engine_s += answer.engine_s
        for errand, logits, engine in zip(errands, answer.logits, answer.engines, strict=True):
            self.sharing.settle(errand, Answer(logits=logits, engine=engine), self)


def _hand_over(errand: _Errand, candidates: Sequence[_Asker]) -> None:
    """Have an errand carried by the candidates, most urgent first, for whom nobody carries it in time."""
    now = anyio.current_time()
    for asker in candidates:
        own = asker.work.urgency
        latest = now + _MORE_TIME * (own.deadline - now)
        others = [carrier.work.urgency for carrier in errand.carriers]
        is_in_time = any(other.deadline <= latest and other.priority <= own.priority for other in others)
        if errand.outcome is None and not is_in_time and not asker.is_over:
            errand.carriers.add(asker)
            asker.handed.append(errand)
            asker.bell.ring()


def _urgency(asker: _Asker) -> tuple[int, float]:
    return asker.work.urgency.priority, asker.work.urgency.deadline


def _digests(identity: bytes, images: Iterable[bytes]) -> list[bytes]:
    model = hashlib.sha256(identity)
    digests = []
    for image in images:
        digest = model.copy()
        digest.update(image)
        digests.append(digest.digest())
    return digests


def _own(error: ServiceError, where: str) -> ServiceError:
    """Make each asker an error of its own, which says where it has the image; a fault of the engine has no place."""
    return type(error)(f"{where}{error}" if isinstance(error, InvalidInput) else str(error))


def _source(errand: _Errand, asker: _Asker) -> Source:
    if errand.settler is None:
        return "cache"
    return "engine" if errand.settler is asker else "shared"


def _again(source: Source) -> Source:
    """Tell the source of an image that was in the request before."""
    return "cache" if source == "cache" else "shared"
