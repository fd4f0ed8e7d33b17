"""The service grpc.health.v1.Health, true to the state at every moment.

The service names are "" and "cardinal.v1.Classifier" for the server, and the name of each model for that model.
"""

from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import ModelNotFound
from service.health import Health
from service.repository import Repository

_Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # generated without types
    """Answers from the same Health as every probe."""

    def __init__(self, health: Health, repository: Repository, server_names: frozenset[str]) -> None:
        self._health, self._repository, self._server_names = health, repository, server_names

    async def Check(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> health_pb2.HealthCheckResponse:
        """Tell the state of a service now."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r}")
        return _Status(status=status)

    async def Watch(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell the state of a service now and at each change, the end of the server included, until then."""
        del context
        told = None
        is_over = False
        while not is_over:
            change, is_over = self._health.bell.next(), self._health.is_over
            status = self._status(request.service)
            if status != told:
                told = status
                yield _Status(status=status)
            if not is_over:
                await change.wait()

    def _status(self, service: str) -> int:
        if service in self._server_names:
            is_serving = self._health.is_ready
        else:
            try:
                is_serving = self._repository.slot(service).is_ready and not self._health.is_stopping
            except ModelNotFound:
                return int(_Status.SERVICE_UNKNOWN)
        return int(_Status.SERVING if is_serving else _Status.NOT_SERVING)
