"""Listens for gRPC: the classifier, health and reflection on one port."""

from types import TracebackType
from typing import Self

import anyio
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.health import Health
from service.repository import Repository
from service.rpc.classifier import Classifier
from service.rpc.health import HealthService
from service.stubs.cardinal.v1 import classifier_pb2

_HOLD_S = 0.2  # for calls on their way to arrive, and calls in progress to finish
_TELL_S = 0.05
_ENVELOPE_BYTES = 65536  # what a message may hold beside its images


class RpcServer:
    """The gRPC port. Taken when made; serves between start() and close(), or at the latest the end of its block."""

    def __init__(
        self, classifier: Classifier, health: Health, repository: Repository, *, address: str, max_bytes: int
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", max_bytes + _ENVELOPE_BYTES),
            ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a share of the calls
        ]
        self._classifier = classifier
        self._server = grpc.aio.server(options=options)
        names = [
            service.full_name
            for file in (classifier_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
            for service in file.services_by_name.values()
        ]
        self._server.add_generic_rpc_handlers((classifier.handlers(),))
        health_service = HealthService(health, repository, frozenset({"", names[0]}))
        health_pb2_grpc.add_HealthServicer_to_server(health_service, self._server)
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)
        self.port = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._server.stop(0)

    async def close(self, limit_s: float) -> None:
        """Take no more calls; give those in progress so long.

        gRPC cancels calls that reach it while it begins to stop: answers are held back until every connection has
        been told to go away.
        """
        async with anyio.create_task_group() as tasks:
            with self._classifier.answers.closed():
                await anyio.sleep(_HOLD_S)
                tasks.start_soon(self._server.stop, limit_s)
                await anyio.sleep(_TELL_S)
