"""Listens for HTTP with uvicorn, under a life that server.py rules: its own signal handling is left out."""

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from service.gate import Gate

_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # longer than the usual 60 s of load balancers, which else meet closed connections
_HOLD_S = 0.2  # for connections on their way to arrive, and requests in progress to finish
_LATER_S = 2.0  # the core cuts requests off at the limit, with an answer; uvicorn would without


def _bind(host: str, port: int) -> socket.socket:
    """Take an address, or raise OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


class HttpListener(uvicorn.Server):
    """One HTTP port, taken when this is made (or OSError is raised)."""

    def __init__(self, app: ASGIApp, host: str, port: int, answers: Gate, *, drain_timeout_s: float) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # bounds what comes before a body, and hands on the body of an upgrade that is not taken
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(drain_timeout_s + _LATER_S),
        )
        super().__init__(config)
        self._answers = answers
        self._listening = _bind(host, port)

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self._listening.getsockname()[1])

    async def run_until_stopped(self) -> None:
        """Serve; returns after stop(), when the accepted requests are answered."""
        await self.serve([self._listening])

    def stop(self) -> None:
        """Have run_until_stopped() come to its end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting while answers are held back: a connection that the kernel has taken would be reset."""
        with self._answers.closed():
            await anyio.sleep(_HOLD_S)
            for server in self.servers:
                server.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to server.py."""
        yield
