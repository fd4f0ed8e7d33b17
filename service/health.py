"""Tells whether the server, and each model, is ready: one truth for every door and probe."""

from service.bell import Bell
from service.repository import Repository, Slot


class Health:
    """Readiness follows the models and the life of the server; liveness is that the loop turns at all."""

    def __init__(self, repository: Repository, required: frozenset[str] | None, bell: Bell) -> None:
        self.bell = bell  # rung at every change
        self._repository = repository
        self._required = required  # None means all models of the repository
        self._is_stopping = False
        self._is_over = False

    @property
    def is_stopping(self) -> bool:
        """Tell whether the server is about to go."""
        return self._is_stopping

    def begin_to_stop(self) -> None:
        """Be not ready from now on."""
        self._is_stopping = True
        self.bell.ring()

    @property
    def is_over(self) -> bool:
        """Tell whether those who watch should go too."""
        return self._is_over

    def end(self) -> None:
        """Send those who watch away."""
        self._is_over = True
        self.bell.ring()

    @property
    def is_ready(self) -> bool:
        """Tell whether requests should be sent here."""
        return not self.reasons()

    def reasons(self) -> list[str]:
        """Say why the server is not ready; nothing where it is."""
        if self._is_stopping:
            return ["the server is stopping"]
        slots = {slot.model: slot for slot in self._repository.slots}
        required = slots.keys() if self._required is None else self._required
        if not slots and self._required is None:
            return ["the repository holds no model"]
        return [
            f"model {name}: {reason}" for name in sorted(required) if (reason := _reason(slots.get(name)))
        ]


def _reason(slot: Slot | None) -> str:
    return slot.reason if slot else "it is not in the repository"
