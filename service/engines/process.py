"""One life of one engine process: start, handshake, load, run batches, end.

rows -> shared memory + RUN -> child -> DONE + shared memory -> logits
"""

import asyncio
import fcntl
import json
import logging
import mmap
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio
import numpy as np

from service.engines.child import wire
from service.engines.order import EngineOrder
from service.engines.program import Program
from service.engines.talk import Talk
from service.errors import EngineFault
from service.logs import fields
from service.tensors import Logits, Rows

_log = logging.getLogger("cardinal.engine")

CHILD = Path(__file__).parent / "child"
# A child that made the memory shorter would end us by a signal when we touch what is gone.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_HANG_FACTOR = 20  # times the expected time: by then it is not slow, it hangs
_SHORTEST_HANG_S = 2.0  # whatever is expected: the machine may be busy
_TIME_TO_EXIT_S = 0.5
_TIME_TO_END_S = 5.0


class Refused(EngineFault):
    """The process is well, but will not do what it was asked; another one would not either."""


class NotBegun(Exception):
    """No process took the batch: it costs nobody anything, and another process can run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """What the engine made of one batch."""

    logits: Logits
    engine: str  # what ran it
    engine_s: float


class EngineProcess:
    """A process that runs one model, one batch at a time. `end()` must be awaited whatever happened.

    After a fault that leaves its state unknown it has been killed, and `ended()` returns.
    """

    def __init__(self, order: EngineOrder, program: Program, talk: socket.socket, memory: mmap.mmap) -> None:
        self.about = ""
        self.is_lost = False  # its state is unknown: it must not be given another batch
        self.order = order
        self._program, self._talk = program, Talk(talk)
        side, rows, classes = order.side, order.max_rows, order.classes
        images = np.frombuffer(memory, np.uint8, rows * side * side * 3)
        self._images = images.reshape(rows, side, side, 3)
        logits = np.frombuffer(memory, np.float32, rows * classes, _output_offset(order))
        self._logits = logits.reshape(rows, classes)

    @classmethod
    def start(cls, order: EngineOrder) -> Self:
        """Start a process; it has loaded nothing yet."""
        with ExitStack() as ours, ExitStack() as theirs:
            try:
                talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.callback(talk.close)
                theirs.callback(their_talk.close)
                memory_fd = os.memfd_create("cardinal-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                theirs.callback(os.close, memory_fd)
                os.ftruncate(memory_fd, _output_offset(order) + order.max_rows * order.classes * 4)
                fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, _SEALS)
                memory = mmap.mmap(memory_fd, 0)
                descriptors = (their_talk.fileno(), memory_fd)
                words = [order.python, str(CHILD), *map(str, descriptors), str(os.getpid())]
                program = Program(words, descriptors)
            except OSError as error:
                raise EngineFault(f"the engine process could not be started: {error}") from error
            ours.pop_all()
        return cls(order, program, talk, memory)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._program.pid

    async def load(self) -> None:
        """Shake hands and have the model loaded.

        Raises:
            EngineFault: the process refused, ended, or took too long.
        """
        limit_s = self.order.load_timeout_s
        until = asyncio.get_running_loop().time() + limit_s
        async with self._told("loaded its model", limit_s):
            hello = json.loads((await self._heard(wire.HELLO, until)).text)
            if hello["protocol"] != wire.PROTOCOL:
                raise wire.ProtocolError(f"protocol {hello['protocol']}, not {wire.PROTOCOL}")
            self._talk.ask(wire.pack(wire.Packet(wire.LOAD, text=self.order.packed())))
            self.about = str(json.loads((await self._heard(wire.LOADED, until)).text)["about"])

    async def run(self, batch: Sequence[Rows], gear: int, expected_s: float | None = None) -> BatchAnswer:
        """Run the rows of `batch` as one batch of size `gear`, padded with the last row.

        A process that takes many times longer than expected hangs, and is killed.

        Raises:
            EngineFault: the process failed at it.
            NotBegun: the process was gone before.
        """
        rows = self._write(batch, gear)
        limit_s = patience_s(self.order.run_timeout_s, expected_s)
        try:
            self._talk.ask(wire.pack(wire.Packet(wire.RUN, gear)))
            done = await self._heard(wire.DONE, asyncio.get_running_loop().time() + limit_s)
            if done.rows != gear:
                raise wire.ProtocolError(f"{done.rows} rows, not {gear}")
        except (BrokenPipeError, ConnectionResetError) as error:  # the packet was never read
            self.kill()
            raise NotBegun from error
        except BaseException:
            async with self._told("ran this request's batch", limit_s):
                raise
        return BatchAnswer(
            logits=self._logits[:rows].copy(), engine=self.about, engine_s=done.nanoseconds / 1e9
        )

    async def ended(self) -> str:
        """Wait until the process is gone; tell how it went."""
        return await self._program.ended()

    async def end(self) -> None:
        """Have the process end itself, by force if it does not. A batch that runs fails."""
        with anyio.CancelScope(shield=True):
            self.is_lost = True
            self._talk.hang_up()
            with anyio.move_on_after(_TIME_TO_END_S):
                await self.ended()
            await self._program.close()
            self._talk.close()

    def kill(self) -> None:
        """End the process at once."""
        self.is_lost = True
        self._program.kill()

    async def log_output(self) -> None:
        """Pass what the process prints on to the log, line by line, until it ends."""
        who = {"model": self.order.model, "version": self.order.version, "pid": self.pid}
        async for line in self._program.lines():
            _log.info("engine_output", extra=fields(**who, line=line))

    def _write(self, batch: Sequence[Rows], gear: int) -> int:
        rows = 0
        for part in batch:
            self._images[rows : rows + len(part)] = part
            rows += len(part)
        if rows < gear:
            self._images[rows:gear] = self._images[rows - 1]
        return rows

    async def _heard(self, kind: int, until: float) -> wire.Packet:
        packet = wire.unpack(await self._talk.hear(until))
        if packet.kind == wire.FAIL:
            raise Refused(f"the engine refused: {packet.text}")
        if packet.kind != kind:
            raise wire.ProtocolError(f"a packet of kind {packet.kind}, not {kind}")
        return packet

    @asynccontextmanager
    async def _told(self, doing: str, limit_s: float) -> AsyncIterator[None]:
        """Translate whatever goes wrong in talking to the process; kill it where its state is unknown."""
        try:
            yield
        except EngineFault:  # its own words; it is well
            raise
        except TimeoutError:
            self.kill()
            sentence = f"the engine process was killed: no answer for {limit_s:g} s while it {doing}"
            raise EngineFault(sentence) from None
        except (EOFError, OSError) as error:
            self.is_lost = True
            with anyio.move_on_after(_TIME_TO_EXIT_S):  # it may be on its way out: then that is the news
                await self.ended()
            self.kill()
            raise EngineFault(f"the engine process ended ({await self.ended()}) while it {doing}") from error
        except (wire.ProtocolError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.kill()
            raise EngineFault(
                f"the engine process was killed: it answered {error} while it {doing}"
            ) from error
        except BaseException:  # cancelled, or gone before it began
            self.kill()
            raise


def patience_s(limit_s: float, expected_s: float | None) -> float:
    """Tell how long a batch may take before its process hangs."""
    return limit_s if expected_s is None else min(limit_s, max(_SHORTEST_HANG_S, _HANG_FACTOR * expected_s))


def _output_offset(order: EngineOrder) -> int:
    return wire.output_offset(order.max_rows, order.side * order.side * 3)
