"""What a file of a bundle holds: bytes, the bytes of another file, or chunks that are made when they are asked for."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

Content: TypeAlias = bytes | Path | Callable[[], Iterator[bytes]]

_CHUNK_BYTES = 1 << 20


def chunks(content: Content) -> Iterator[bytes]:
    """Yield the bytes, the same ones each time."""
    if isinstance(content, bytes):
        yield content
    elif isinstance(content, Path):
        with content.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    else:
        yield from content()


def sha256_of(content: Content) -> str:
    """Return the digest of the bytes, as a manifest spells it."""
    digest = hashlib.sha256()
    for chunk in chunks(content):
        digest.update(chunk)
    return digest.hexdigest()
