"""The two clients: one that blocks, one for asyncio. Same calls, same answers, same errors."""

from types import TracebackType
from typing import Self

import grpc

from service.client.messages import Answer, Picture, answer_of, error_of, request_of
from service.stubs.cardinal.v1 import classifier_pb2_grpc

# The server decides what is too large; the client must not refuse first.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_TIMEOUT_S = 30.0


class Client:
    """A connection to one server; may be shared by threads."""

    def __init__(self, address: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._stub = classifier_pb2_grpc.ClassifierStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def classify(self, *pictures: Picture, model: str, version: str = "", top_k: int = 5) -> Answer:
        """Classify one or several pictures.

        Raises:
            CardinalError: the server refused, or could not be reached.
            OSError: a picture was a path that cannot be read.
        """
        request = request_of(pictures, model, version, top_k)
        try:
            return answer_of(self._stub.Classify(request, timeout=self._timeout_s))
        except grpc.RpcError as fault:
            raise error_of(fault) from fault


class AsyncClient:
    """A connection to one server for asyncio; made and used inside one event loop."""

    def __init__(self, address: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, _OPTIONS)
        self._stub = classifier_pb2_grpc.ClassifierStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def classify(self, *pictures: Picture, model: str, version: str = "", top_k: int = 5) -> Answer:
        """Classify one or several pictures; raises as Client.classify does. Paths are read in place."""
        request = request_of(pictures, model, version, top_k)
        try:
            return answer_of(await self._stub.Classify(request, timeout=self._timeout_s))
        except grpc.RpcError as fault:
            raise error_of(fault) from fault
