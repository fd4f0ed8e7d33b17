"""Bounds the bytes of requests: of each one, and of all that are held at the same time. Both doors count here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import Overloaded, TooLarge


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a request may bring."""

    max_bytes: int
    max_images: int
    max_upload_bytes: int  # of all requests that are being read or answered


class Upload:
    """The bytes of one request's body, counted among those of all requests as long as it is held."""

    def __init__(self, uploads: "Uploads") -> None:
        self.limits = uploads.limits
        self._uploads = uploads
        self._chunks: list[bytes] = []
        self._size = 0

    def take(self, chunk: bytes) -> None:
        """Keep one more chunk, or raise TooLarge or Overloaded."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._uploads.held_bytes += len(chunk)
        if self._size > self.limits.max_bytes:
            raise TooLarge(f"the request has more bytes than it may; allowed are {self.limits.max_bytes}")
        if self._uploads.held_bytes > self.limits.max_upload_bytes:
            raise Overloaded(
                f"{self.limits.max_upload_bytes} bytes of requests are held; no more are taken now"
            )

    def whole(self) -> bytes:
        """Join the chunks."""
        self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    def drop(self) -> None:
        """Count the bytes no longer."""
        self._uploads.held_bytes -= self._size


class Uploads:
    """All bodies that are held at the moment."""

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self.held_bytes = 0

    @contextmanager
    def one_more(self) -> Iterator[Upload]:
        """Hold a body for the length of the block."""
        upload = Upload(self)
        try:
            yield upload
        finally:
            upload.drop()
