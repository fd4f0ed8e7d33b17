"""Decodes the images of a request on threads: encoded bytes -> each image's row (side, side, 3)."""

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import anyio
from anyio.to_thread import run_sync

from service.errors import InvalidInput
from service.images import Preprocessing, decode
from service.tensors import Rows

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 4 * 1024 * 1024
_MEMORY = 0.95  # weight of the past in the moving mean

Keep: TypeAlias = Callable[
    [int, Rows | InvalidInput], None
]  # told an image's place, and its row or why it has none


def give_large_pictures_back() -> None:
    """Have glibc return the memory of large pictures to the system when they are freed.

    By itself it keeps blocks of up to 32 MiB for the thread that freed them: after a few dozen photos of 50
    megapixels a server would hold a gigabyte for good.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class Decoder:
    """A bounded number of threads, shared by all requests."""

    def __init__(self, *, threads: int, max_pixels: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._threads = threads
        self._pending_bytes = 0
        self._byte_s = 0.0  # thread time for a byte of a picture, a moving mean
        # What one request may have of them, so that many pictures in it do not keep out the others.
        self._share = max(1, threads // 2)
        self._max_pixels = max_pixels

    async def decode(self, images: Sequence[bytes], spec: Preprocessing, keep: Keep) -> None:
        """Decode all images side by side, handing each to `keep` when it is done, with its place.

        The first that cannot be decoded ends it: what still waits for a thread is left alone.
        """
        share = anyio.CapacityLimiter(self._share)

        async def decode_one(place: int) -> None:
            async with share:
                try:
                    row, took_s = await run_sync(self._decode, images[place], spec, limiter=self._limiter)
                except InvalidInput as error:
                    keep(place, error.with_traceback(None))  # which holds the image, and itself in a cycle
                    tasks.cancel_scope.cancel()
                else:
                    self._learn(len(images[place]), took_s)
                    keep(place, row)

        size = sum(map(len, images))
        self._pending_bytes += size
        try:
            async with anyio.create_task_group() as tasks:
                for place in range(len(images)):
                    tasks.start_soon(decode_one, place)
        finally:
            self._pending_bytes -= size

    def foreseen_s(self, size_bytes: int) -> float:
        """Tell about how long it would take until pictures of so many bytes were decoded, behind all others."""
        return self._byte_s * (self._pending_bytes + size_bytes) / self._threads

    def _decode(self, body: bytes, spec: Preprocessing) -> tuple[Rows, float]:
        began = time.thread_time()
        row = decode(body, spec, max_pixels=self._max_pixels)
        return row, time.thread_time() - began

    def _learn(self, size_bytes: int, took_s: float) -> None:
        byte_s = took_s / size_bytes
        self._byte_s = _MEMORY * self._byte_s + (1 - _MEMORY) * byte_s if self._byte_s else byte_s
