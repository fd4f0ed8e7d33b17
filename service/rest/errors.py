"""ServiceError -> HTTP status and JSON."""

import math

from fastapi.responses import JSONResponse

from service import errors

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidInput: 400,
    errors.InvalidImage: 400,
    errors.UnsupportedMedia: 415,
    errors.TooLarge: 413,
    errors.ModelNotFound: 404,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ModelNotReady: 503,
    errors.Overloaded: 429,
    errors.Stopping: 503,
    errors.DeadlineExceeded: 504,
    errors.ClientGone: 499,
    errors.EngineFault: 500,
    errors.InternalError: 500,
}


def refusal(error: errors.ServiceError, request_id: str) -> JSONResponse:
    """Spell an error as every endpoint does."""
    headers = {"X-Request-Id": request_id}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    body = {"error": str(error), "code": error.code, "request_id": request_id}
    return JSONResponse(body, STATUS[type(error)], headers)
