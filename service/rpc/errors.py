"""ServiceError -> gRPC status."""

from typing import NoReturn

import grpc

from service import errors

STATUS: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedMedia: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,  # what gRPC itself says of a message over its limit
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RouteNotFound: grpc.StatusCode.UNIMPLEMENTED,
    errors.MethodNotAllowed: grpc.StatusCode.UNIMPLEMENTED,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Stopping: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ClientGone: grpc.StatusCode.CANCELLED,
    errors.EngineFault: grpc.StatusCode.INTERNAL,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

_MS = 1000


async def refuse(
    context: "grpc.aio.ServicerContext[object, object]", error: errors.ServiceError, request_id: str
) -> NoReturn:
    """End a call with the status of an error, its code and the request id."""
    metadata = [("x-request-id", request_id), ("cardinal-code", error.code)]
    if error.retry_after_s is not None:
        metadata.append(("retry-after-ms", str(round(error.retry_after_s * _MS))))
    await context.abort(STATUS[type(error)], str(error), tuple(metadata))
