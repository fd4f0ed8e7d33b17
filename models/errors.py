"""The one error that the package raises on purpose: its sentence is meant for the person who asked."""


class InvalidValueError(ValueError):
    """A value that was given cannot be used; the message says which, what it is, and what is allowed."""
