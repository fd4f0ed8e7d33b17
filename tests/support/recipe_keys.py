"""The keys of a recipe, as its files and its documents name them."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints


def keys_of(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a section and of those in it, parted by dots."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        nested = [part for part in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(part)]
        for part in nested:
            yield from keys_of(part, f"{prefix}{field.name}.")
        if not nested:
            yield f"{prefix}{field.name}"
