"""The control port: metrics for Prometheus, probes for Kubernetes. Not for the public."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.health import Health


def build_control_app(health: Health, registry: CollectorRegistry) -> Starlette:
    """Build the ASGI application of the control port."""

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        reasons = health.reasons()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except TypeError:  # prometheus_client cannot read every version that a header may name
            encode, content_type = choose_encoder("")
        return Response(encode(registry), headers={"Content-Type": content_type})

    return Starlette(routes=[Route("/live", live), Route("/ready", ready), Route("/metrics", metrics)])
