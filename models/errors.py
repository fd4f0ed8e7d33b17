"""The errors that the package raises on purpose: their sentences are meant for the person who asked."""


class InvalidValueError(ValueError):
    """A value that was given cannot be used; the message says which, what it is, and what is allowed."""


class TrainingFailedError(Exception):
    """A training cannot go on; the message says at which step, why, and what is left of it."""


class TransferFailedError(OSError):
    """Files could not be brought from a storage, or sent to it; the message says which, and what is left."""
