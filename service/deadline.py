"""One deadline for each request, on one clock, from its arrival to its answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from service.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the event loop's clock, and how long the caller allowed."""

    at: float
    allowed_s: float

    @classmethod
    def after(cls, asked_s: float | None, longest_s: float) -> "Deadline":
        """Start the clock of a request; nobody may ask for longer than `longest_s`."""
        allowed_s = longest_s if asked_s is None else min(asked_s, longest_s)
        return cls(anyio.current_time() + allowed_s, allowed_s)

    @contextmanager
    def enforced(self, doing: str) -> Iterator[None]:
        """Cancel the block when the deadline passes, and say what the request was `doing`."""
        with anyio.CancelScope(deadline=self.at) as scope:
            yield
        if scope.cancelled_caught:
            raise self.exceeded(doing)

    def exceeded(self, doing: str) -> DeadlineExceeded:
        """Make the error that says what the request was `doing` when its time was over."""
        return DeadlineExceeded(f"no answer within {self.allowed_s:g} s: the time ran out while {doing}")
