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

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._event.wait()
