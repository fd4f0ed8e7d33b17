"""Every error that a caller can be told of, and whose fault it is.

    ServiceError
      InvalidInput            the caller: a value that is not allowed
        InvalidImage          the bytes are not a picture that can be decoded
        UnsupportedMedia      a picture, or a body, of a kind that is not served
        TooLarge              more bytes or pixels than is allowed
      ModelNotFound           the caller: no such model or version
      RouteNotFound           the caller: no such endpoint
      MethodNotAllowed        the caller: an endpoint, but not with this method
      ModelNotReady           the operator: the model is there but cannot serve; the reason says why
      Overloaded              nobody: more work than can wait
      Stopping                nobody: the server is shutting down
      ClientGone              the caller: it left before the answer was there
      DeadlineExceeded        nobody: the answer would have come too late
      EngineFault             us: the engine process failed while it held the request
      InternalError           us: anything not foreseen

The classes know nothing of HTTP or gRPC: each door has one table from class to status.
"""

from typing import ClassVar

_LONGEST_QUOTE = 80


def quoted(value: object) -> str:
    """Show a caller's value inside an error's sentence, cut to a harmless length."""
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


class ServiceError(Exception):
    """The root: `str(error)` is the sentence for the caller, `code` the stable word for programs."""

    code: ClassVar[str] = "INTERNAL"
    retry_after_s: float | None = None


class InvalidInput(ServiceError):
    """A value that is not allowed; the sentence names it and what is."""

    code = "INVALID_INPUT"


class InvalidImage(InvalidInput):
    """Bytes that are not a whole, readable picture."""

    code = "INVALID_IMAGE"


class UnsupportedMedia(InvalidInput):
    """A kind of picture or body that the server does not take."""

    code = "UNSUPPORTED_MEDIA"


class TooLarge(InvalidInput):
    """More bytes or pixels than the limit."""

    code = "TOO_LARGE"


class ModelNotFound(ServiceError):
    """No model of this name, or no such version of it."""

    code = "MODEL_NOT_FOUND"


class RouteNotFound(ServiceError):
    """No endpoint at this path."""

    code = "ROUTE_NOT_FOUND"


class MethodNotAllowed(ServiceError):
    """An endpoint, but not with this method."""

    code = "METHOD_NOT_ALLOWED"


class ModelNotReady(ServiceError):
    """The model exists but cannot serve now."""

    code = "MODEL_NOT_READY"
    retry_after_s = 5.0


class Overloaded(ServiceError):
    """As much work as may wait is waiting."""

    code = "OVERLOADED"

    def __init__(self, sentence: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Stopping(ServiceError):
    """The server no longer takes requests."""

    code = "STOPPING"
    retry_after_s = 1.0


class ClientGone(ServiceError):
    """The caller left; nobody will read the answer."""

    code = "CANCELLED"


class DeadlineExceeded(ServiceError):
    """The request's deadline passed before its answer was there."""

    code = "DEADLINE_EXCEEDED"


class EngineFault(ServiceError):
    """The engine failed while it ran the batch that the request was in."""

    code = "ENGINE_FAULT"


class InternalError(ServiceError):
    """A fault that was not foreseen; its trace is in the log under the request id."""

    code = "INTERNAL"
