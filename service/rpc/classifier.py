"""The service cardinal.v1.Classifier: translates a call, calls the core, translates the answer."""

import grpc

from service.deadline import Deadline
from service.errors import ServiceError, TooLarge
from service.gate import Gate
from service.inference import Classification, ClassifyRequest, Inference
from service.journal import Journal
from service.rpc.errors import refuse
from service.stubs.cardinal.v1 import classifier_pb2 as wire
from service.stubs.cardinal.v1 import classifier_pb2_grpc

_MS = 1000


class Classifier(classifier_pb2_grpc.ClassifierServicer):
    """Answers calls with the same core as the REST door."""

    def __init__(self, inference: Inference, journal: Journal, *, max_bytes: int, longest_s: float) -> None:
        self._inference, self._journal = inference, journal
        self._max_bytes, self._longest_s = max_bytes, longest_s
        self.answers = Gate()

    async def Classify(  # noqa: N802 - the name in the contract
        self, call: wire.ClassifyRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> wire.ClassifyResponse:
        """Classify one or several pictures."""
        entry = self._journal.entry("grpc", _request_id(context))
        try:
            with entry:
                self._check_size(call)
                request = ClassifyRequest(
                    model=call.model,
                    version=call.version or None,
                    images=call.images,
                    top_k=call.top_k if call.HasField("top_k") else None,
                    deadline=Deadline.after(context.time_remaining(), self._longest_s),
                )
                answer = await self._inference.classify(request, entry)
                await self.answers.passed()
                return _answer(answer, entry.id, entry.seconds)
        except ServiceError as error:
            await refuse(context, error, entry.id)

    def _check_size(self, call: wire.ClassifyRequest) -> None:
        size = sum(map(len, call.images))
        if size > self._max_bytes:
            raise TooLarge(f"the images are {size} bytes; allowed are {self._max_bytes}")


def _request_id(context: "grpc.aio.ServicerContext[object, object]") -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str):
            return value
    return None


def _answer(answer: Classification, request_id: str, seconds: float) -> wire.ClassifyResponse:
    results = [
        wire.Result(classes=[wire.ScoredClass(index=c.index, label=c.label, score=c.score) for c in classes])
        for classes in answer.results
    ]
    timing = wire.Timing(
        decode=_MS * answer.times.decode,
        queue=_MS * answer.times.queue,
        engine=_MS * answer.times.engine,
        total=_MS * seconds,
    )
    return wire.ClassifyResponse(
        model=answer.model,
        version=answer.version,
        request_id=request_id,
        results=results,
        engine=answer.engine,
        timing_ms=timing,
    )
