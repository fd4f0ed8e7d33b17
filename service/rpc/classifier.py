"""The service cardinal.v1.Classifier: translates a call, calls the core, translates the answer."""

from typing import TypeAlias

import anyio
import grpc

from service.errors import InvalidInput, ServiceError
from service.gate import Gate
from service.inference import Classification, ClassifyRequest, Inference, priority_of
from service.journal import Entry, Journal
from service.rpc.errors import refuse
from service.rpc.messages import parsed
from service.stubs.cardinal.v1 import classifier_pb2 as wire
from service.uploads import Uploads

_MS = 1000

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class Classifier:
    """Answers calls with the same core as the REST door."""

    def __init__(self, inference: Inference, journal: Journal, uploads: Uploads) -> None:
        self._inference, self._journal, self._uploads = inference, journal, uploads
        limits = uploads.limits
        self._reading = anyio.CapacityLimiter(max(1, limits.max_upload_bytes // limits.max_bytes))
        self.answers = Gate()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Name the methods.

        They read their message themselves, as bytes: gRPC would read any number of them before it asks us, and
        answer, and log, what it cannot parse as a fault of ours. On the wire a unary call is the same.
        """
        serialize = wire.ClassifyResponse.SerializeToString
        classify: grpc.RpcMethodHandler[bytes, wire.ClassifyResponse] = grpc.stream_unary_rpc_method_handler(
            self.classify, response_serializer=serialize
        )
        return grpc.method_handlers_generic_handler("cardinal.v1.Classifier", {"Classify": classify})

    async def classify(self, _messages: object, context: Context) -> wire.ClassifyResponse:
        """Classify one or several pictures."""
        entry = self._journal.entry("grpc", _metadata(context, "x-request-id"))
        try:
            return await self._answered(context, entry)
        except ServiceError as error:
            # The frames of the trace hold the message, and gRPC's own error would hold the trace in a cycle.
            fault = error.with_traceback(None)
            fault.__context__ = fault.__cause__ = None
        return await refuse(context, fault, entry.id)

    async def _answered(self, context: Context, entry: Entry) -> wire.ClassifyResponse:
        with entry, self._uploads.one_more() as upload:
            deadline = self._inference.deadline(context.time_remaining())
            with deadline.enforced("its message was read"):
                message = await self._read(context)
            upload.take(message)
            call = parsed(message, max_images=upload.limits.max_images)
            request = ClassifyRequest(
                model=call.model,
                version=call.version or None,
                images=call.images,
                top_k=call.top_k if call.HasField("top_k") else None,
                deadline=deadline,
                caller=_metadata(context, "x-caller") or context.peer().rpartition(":")[0],
                priority=priority_of(_metadata(context, "x-priority")),
            )
            answer = await self._inference.classify(request, entry)
            await self.answers.passed()
            return _answer(answer, entry.id, entry.seconds)

    async def _read(self, context: Context) -> bytes:
        async with self._reading:
            message = await context.read()
        if not isinstance(message, bytes):
            raise InvalidInput("the call has no message")
        return message


def _metadata(context: Context, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return None


def _answer(answer: Classification, request_id: str, seconds: float) -> wire.ClassifyResponse:
    results = [
        wire.Result(
            classes=[wire.ScoredClass(index=c.index, label=c.label, score=c.score) for c in classes],
            source=source,
        )
        for classes, source in zip(answer.results, answer.sources, strict=True)
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
