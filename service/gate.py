"""Holds answers back for the moment in which a door closes.

A client that waits for an answer sends nothing new. So while answers are held back, nothing of it is on its way, and
nothing gets lost between "too late to be taken" and "early enough to be refused".
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Gate:
    """Open, but for the length of `closed()`."""

    def __init__(self) -> None:
        self._opened = anyio.Event()
        self._opened.set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold back whoever wants to pass until the end of the block."""
        self._opened = anyio.Event()
        try:
            yield
        finally:
            self._opened.set()
