"""The endpoints of the REST door: each translates a request, calls the core, and translates the answer."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.errors import ClientGone, InvalidInput, MethodNotAllowed, RouteNotFound, ServiceError, quoted
from service.gate import Gate
from service.health import Health
from service.inference import Classification, ClassifyRequest, Inference, priority_of
from service.journal import Journal, choose_id
from service.repository import Repository, ServedModel, Slot
from service.rest import schemas
from service.rest.bodies import BODY_DOCUMENTATION, read_body
from service.rest.errors import STATUS, refusal
from service.rest.profiles import profile_of
from service.uploads import Uploads

_PAGE = Path(__file__).parent / "page"
_PAGES = {  # with their types, which would else be looked up in files of the system
    "/": ("index.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
_MS = 1000
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_T = TypeVar("_T")


class RestDoor:
    """Holds what the endpoints need. `build_app` makes the ASGI application from it."""

    def __init__(
        self,
        inference: Inference,
        repository: Repository,
        health: Health,
        journal: Journal,
        uploads: Uploads,
    ) -> None:
        self._inference, self._repository, self._health = inference, repository, health
        self._journal, self._uploads = journal, uploads

    async def classify(self, request: Request, model: str) -> Response:
        """Classify one or several pictures.

        The body is a picture as it is (any content type but the following), a form with files named `image`, or
        JSON. The header `X-Request-Timeout-Ms` sets a deadline, `X-Priority` is `high`, `normal` or `low`, and
        `X-Caller` says who takes turns with others; without it that is the client's address.
        """
        entry = self._journal.entry("rest", request.headers.get("x-request-id"))
        try:
            with entry, self._uploads.one_more() as upload:
                deadline = self._inference.deadline(_timeout_s(request))
                with deadline.enforced("its body was read"):
                    body = await read_body(request, upload)
                asked = ClassifyRequest(
                    model=model,
                    version=_version(request),
                    images=body.images,
                    top_k=body.top_k,
                    deadline=deadline,
                    caller=request.headers.get("x-caller") or (request.client.host if request.client else ""),
                    priority=priority_of(request.headers.get("x-priority")),
                )
                answer = await _unless_gone(request, lambda: self._inference.classify(asked, entry))
                return _answer(answer, entry.id, entry.seconds)
        except ServiceError as error:
            return refusal(error, entry.id)

    async def list_models(self) -> JSONResponse:
        """List the models of the repository, ready or not."""
        return JSONResponse(
            {"models": [_describe(slot, with_labels=False) for slot in self._repository.slots]}
        )

    async def describe_model(self, request: Request, model: str) -> JSONResponse:
        """Describe one model: its state, and all that its bundle says."""
        try:
            return JSONResponse(_describe(self._repository.slot(model, _version(request)), with_labels=True))
        except ServiceError as error:
            return refusal(error, choose_id(request.headers.get("x-request-id")))

    async def live(self) -> JSONResponse:
        """Tell that the server's loop turns."""
        return JSONResponse({"live": True})

    async def ready(self) -> JSONResponse:
        """Tell whether all required models are loaded and verified, and the server is not stopping."""
        is_ready = self._health.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(self, request: Request, model: str) -> JSONResponse:
        """Tell whether a model answers requests."""
        try:
            slot = self._repository.slot(model, _version(request))
        except ServiceError as error:
            return refusal(error, choose_id(request.headers.get("x-request-id")))
        answer = {"name": slot.model, "ready": slot.is_ready, "reason": slot.reason}
        return JSONResponse(answer, 200 if slot.is_ready else 503)


def build_app(door: RestDoor, health: Health, answers: Gate) -> ASGIApp:
    """Build the ASGI application of the REST port."""
    app = FastAPIOffline(
        title="Cardinal",
        version=__version__,
        summary="Image classification on Ascend NPUs, and on any CPU.",
        redoc_url=None,
    )
    app.include_router(_routes(door))
    app.include_router(_pages())
    app.add_exception_handler(HTTPException, _no_route)
    return _Connections(app, health, answers)


def _routes(door: RestDoor) -> APIRouter:
    router = APIRouter()
    model, one = "/models/{model}", "/models/{model}/versions/{version}"
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Refusal} for status in set(STATUS.values())
    }
    for path in (model, one):
        router.add_api_route(
            f"/v1{path}/classify",
            door.classify,
            methods=["POST"],
            tags=["classify"],
            response_model=schemas.ClassifyAnswer,
            responses=refusals,
            openapi_extra=BODY_DOCUMENTATION,
        )
        router.add_api_route(
            f"/v1{path}", door.describe_model, tags=["models"], response_model=schemas.ModelDescription
        )
        router.add_api_route(f"/v2{path}/ready", door.model_ready, tags=["health"])
    router.add_api_route("/v1/models", door.list_models, tags=["models"], response_model=schemas.ModelList)
    router.add_api_route("/v2/health/live", door.live, tags=["health"])
    router.add_api_route("/v2/health/ready", door.ready, tags=["health"])
    return router


def _pages() -> APIRouter:
    router = APIRouter()
    for path, (name, media_type) in _PAGES.items():
        router.add_route(path, _page(_PAGE / name, media_type), include_in_schema=False)
    return router


def _page(file: Path, media_type: str) -> Callable[[Request], Awaitable[FileResponse]]:
    """Make an endpoint that takes nothing from its caller: a default argument would be read from the query."""

    async def page(_: Request) -> FileResponse:
        return FileResponse(file, media_type=media_type, headers=_PAGE_HEADERS)

    return page


class _Connections:
    """Says of all answers what is the connection's affair: when they may go, and whether another request may follow."""

    def __init__(self, app: ASGIApp, health: Health, answers: Gate) -> None:
        self._app, self._health, self._answers = app, health, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._answers.passed()
                if self._health.is_stopping:
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":  # whose body is left out by uvicorn
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send_closing)


async def _unless_gone(request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
    """Do `work`, but end it when the client leaves, which by itself does not end a handler."""
    results: list[_T] = []
    faults: list[ServiceError] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            results.append(await work())
        except ServiceError as error:  # kept until the group is closed, which would wrap it
            faults.append(error)
        tasks.cancel_scope.cancel()
    if faults:
        raise faults[0]
    if not results:
        raise ClientGone("the client left before the answer was there")
    return results[0]


def _version(request: Request) -> str | None:
    # Not a parameter of the endpoints: without a place in the path FastAPI would document it as a query.
    return request.path_params.get("version")


def _timeout_s(request: Request) -> float | None:
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or int(text) == 0:
        raise InvalidInput(f"X-Request-Timeout-Ms is {quoted(text)}; allowed are integers from 1")
    return int(text) / _MS


def _answer(answer: Classification, request_id: str, seconds: float) -> JSONResponse:
    times = {"decode": answer.times.decode, "queue": answer.times.queue, "engine": answer.times.engine}
    body = {
        "model": answer.model,
        "version": answer.version,
        "request_id": request_id,
        "results": [
            {"classes": [asdict(scored) for scored in classes], "source": source}
            for classes, source in zip(answer.results, answer.sources, strict=True)
        ],
        "engine": answer.engine,
        "timing_ms": {stage: round(_MS * s, 3) for stage, s in (times | {"total": seconds}).items()},
    }
    return JSONResponse(body, headers={"X-Request-Id": request_id})


def _describe(slot: Slot, *, with_labels: bool) -> dict[str, Any]:
    description = {"name": slot.model, "version": slot.version, "ready": slot.is_ready, "reason": slot.reason}
    if slot.served is None:
        return description
    manifest = slot.served.bundle.manifest
    provenance = asdict(manifest.provenance)
    return description | {
        "engine": slot.served.about,
        "network": manifest.network.name,
        "untrained": provenance.pop("untrained"),
        "classes": manifest.classes,
        "labels": list(slot.served.bundle.labels) if with_labels else None,
        "accuracy": asdict(manifest.accuracy) if manifest.accuracy else None,
        "preprocessing": asdict(manifest.preprocessing),
        "provenance": provenance,
        "profiles": _profiles(slot.served),
    }


def _profiles(served: ServedModel) -> list[dict[str, Any]]:
    """Tell of each engine how long its batches take, and what follows from that."""
    pairs = zip(served.engines, served.queue.devices, strict=True)
    return [
        {"device": engine.device, "engine": engine.about}
        | profile_of(device.curve, device.demanded, device.tuning)
        for engine, device in pairs
        if device.curve and device.demanded and device.tuning
    ]


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    """Answer what no endpoint took, in the form of every error."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    what = f"{request.method} {quoted(request.url.path)}"
    if error.status_code == STATUS[MethodNotAllowed]:
        allowed = (error.headers or {}).get("Allow", "")
        fault: ServiceError = MethodNotAllowed(f"{what} is not allowed; allowed is {allowed}")
    else:
        fault = RouteNotFound(f"there is no endpoint {what}; /docs lists them")
    response = refusal(fault, choose_id(request.headers.get("x-request-id")))
    response.headers.update(error.headers or {})
    return response
