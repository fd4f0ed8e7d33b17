"""The service cardinal.v1.Classifier: translates a call, calls the core, translates the answer."""

import grpc
from google.protobuf.message import DecodeError

from service.errors import InvalidInput, ServiceError, TooLarge
from service.gate import Gate
from service.inference import Classification, ClassifyRequest, Inference
from service.journal import Journal
from service.rpc.errors import refuse
from service.stubs.cardinal.v1 import classifier_pb2 as wire

_MS = 1000


class Classifier:
    """Answers calls with the same core as the REST door."""

    def __init__(self, inference: Inference, journal: Journal, *, max_bytes: int) -> None:
        self._inference, self._journal, self._max_bytes = inference, journal, max_bytes
        self.answers = Gate()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Name the methods. They take bytes: what gRPC itself cannot parse it answers, and logs, as a fault of ours."""
        serialize = wire.ClassifyResponse.SerializeToString
        classify: grpc.RpcMethodHandler[bytes, wire.ClassifyResponse] = grpc.unary_unary_rpc_method_handler(
            self.classify, response_serializer=serialize
        )
        return grpc.method_handlers_generic_handler("cardinal.v1.Classifier", {"Classify": classify})

    async def classify(
        self, message: bytes, context: "grpc.aio.ServicerContext[object, object]"
    ) -> wire.ClassifyResponse:
        """Classify one or several pictures."""
        entry = self._journal.entry("grpc", _request_id(context))
        try:
            with entry:
                call = _parsed(message)
                self._check_size(call)
                request = ClassifyRequest(
                    model=call.model,
                    version=call.version or None,
                    images=call.images,
                    top_k=call.top_k if call.HasField("top_k") else None,
                    deadline=self._inference.deadline(context.time_remaining()),
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


def _parsed(message: bytes) -> wire.ClassifyRequest:
    try:
        return wire.ClassifyRequest.FromString(message)
    except DecodeError as error:
        raise InvalidInput(f"the message is no cardinal.v1.ClassifyRequest: {error}") from error


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
