"""A program that the event loop can wait for: its end through a pidfd, its output line by line.

Started with subprocess.Popen in the loop's own thread. Not in another one: a child with PR_SET_PDEATHSIG dies with the
thread that made it. Not by the loop: uvloop forks, while this copies no memory and troubles none of gRPC's fork
handlers.
"""

import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence

import anyio

from service.bell import Bell

_LONGEST_LINE = 4096
_LONGEST_READ = 65536
_TIME_TO_DIE_S = 5.0


class Program:
    """A running program. `close()` must be awaited whatever happened.

    One that was killed and does not die, since a driver holds it in the kernel, is given up after a while.
    """

    def __init__(
        self, words: Sequence[str], descriptors: Sequence[int], *, time_to_die_s: float = _TIME_TO_DIE_S
    ) -> None:
        """Start it with these file descriptors open; raises OSError."""
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            start_new_session=True,
        )
        try:
            self._pid_fd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise
        self._watch: anyio.CancelScope | None = None  # a file descriptor has room for one waiting task
        self._unwatched = Bell()
        self._time_to_die_s, self._dies_by = time_to_die_s, math.inf
        self._is_given_up = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once."""
        self._strike()
        self._dies_by = min(self._dies_by, anyio.current_time() + self._time_to_die_s)
        if self._watch is not None:
            self._watch.deadline = self._dies_by

    async def ended(self) -> str:
        """Wait until it is gone, or given up; tell how it went."""
        while (code := self._process.poll()) is None:
            if self._is_given_up:
                return "it was killed, but does not end"
            if self._watch is not None:
                await self._unwatched.wait()
            else:
                await self._watch_it()
        return f"signal {-code}, {_signal_name(-code)}" if code < 0 else f"exit code {code}"

    async def close(self) -> None:
        """Make sure that it is gone, and let go of what is left of it."""
        self.kill()
        await self.ended()
        os.close(self._pid_fd)

    def _strike(self) -> None:
        self._process.kill()

    async def _watch_it(self) -> None:
        try:
            with anyio.CancelScope(deadline=self._dies_by) as self._watch:
                await anyio.wait_readable(self._pid_fd)
            self._is_given_up = self._watch.cancelled_caught
        finally:
            self._watch = None
            self._unwatched.ring()

    async def lines(self) -> AsyncIterator[str]:
        """Read what it prints until it ends, or until nobody holds the pipe any more."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        with self._process.stdout as pipe:
            rest = b""
            while True:
                await anyio.wait_readable(pipe)
                chunk = os.read(pipe.fileno(), _LONGEST_READ)
                *whole, rest = (rest + chunk).split(b"\n")
                if not chunk or len(rest) > _LONGEST_LINE:
                    whole.append(rest)
                    rest = b""
                for line in whole:
                    if text := line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip():
                        yield text
                if not chunk:
                    return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
