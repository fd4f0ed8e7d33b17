"""Tells any number of waiting tasks that something has changed."""

import anyio


class Bell:
    """Rung by whoever changes a state; those who wait look at the state again."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = anyio.Event()

    def next(self) -> anyio.Event:
        """Give the next ring: fetched before a state is looked at, it misses no change of it."""
        return self._event

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._event.wait()
