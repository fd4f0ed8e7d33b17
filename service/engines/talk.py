"""The server's end of the socket to an engine process: a packet out -> the next one in, within a limit of time.

A network sweeps the caches, so that every line of Python here costs several times what it usually would: the loop is
told once to watch the socket, and one timer looks after the limits of many batches. `anyio.wait_readable` in a scope
with a time limit takes as long again as all else that a batch costs.
"""

import asyncio
import math
import socket
from contextlib import suppress

from service.engines.child import wire


class Talk:
    """One process's socket, watched from the start. `close()` must be called whatever happened."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket, self._loop = end, asyncio.get_running_loop()
        self._waiter: asyncio.Future[bytes | None] | None = None
        self._early: list[bytes | None] = []  # what came before anybody waited for it; None is a reset
        self._until = self._looks_at = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._loop.add_reader(end, self._read)

    def ask(self, packet: bytes) -> None:
        """Send a packet.

        Raises:
            BrokenPipeError: nobody is there to read it.
            ProtocolError: the process has said something that nobody had asked for.
        """
        if self._early:
            if not self._early[0]:
                raise BrokenPipeError
            raise wire.ProtocolError("a packet that nobody had asked for")
        self._socket.send(packet)

    async def hear(self, until: float) -> bytes:
        """Wait for the next packet until a time of the loop's clock.

        Raises:
            EOFError: the process has closed its end.
            ConnectionResetError: it has, and has not read what it was asked.
            TimeoutError: it said nothing.
        """
        if self._early:
            packet = self._early.pop(0)
        else:
            self._waiter, self._until = self._loop.create_future(), until
            if until < self._looks_at:
                self._look_at(until)
            packet = await self._waiter
        if packet is None:
            raise ConnectionResetError
        if not packet:
            raise EOFError
        return packet

    def hang_up(self) -> None:
        """Tell the process that nothing more is said; whoever waits to hear it meets the end."""
        with suppress(OSError):  # not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)
        self._heard(b"")

    def close(self) -> None:
        """Let go of the socket."""
        self.hang_up()
        if self._alarm is not None:
            self._alarm.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def fileno(self) -> int:
        """Tell the socket's file descriptor."""
        return self._socket.fileno()

    def _read(self) -> None:
        packet: bytes | None
        try:
            packet = self._socket.recv(wire.LONGEST_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = None
        self._heard(packet)

    def _heard(self, packet: bytes | None) -> None:
        """Give a packet to who waits for it. After the end, and after two that nobody waited for, no more are read."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(packet)
        else:
            self._early.append(packet)
        if not packet or len(self._early) > 1:
            self._loop.remove_reader(self._socket)

    def _look_at(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._looks_at, self._alarm = moment, self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        """End a wait that is over; of one that has begun since, look at its end again."""
        self._looks_at, self._alarm = math.inf, None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._until:
            self._look_at(self._until)
        else:
            self._waiter.set_exception(TimeoutError())
