"""Decodes the images of a request on threads: encoded bytes -> each image's row (side, side, 3)."""

import ctypes
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
                    row = await run_sync(self._decode, images[place], spec, limiter=self._limiter)
                except InvalidInput as error:
                    keep(place, error.with_traceback(None))  # which holds the image, and itself in a cycle
                    tasks.cancel_scope.cancel()
                else:
                    keep(place, row)

        async with anyio.create_task_group() as tasks:
            for place in range(len(images)):
                tasks.start_soon(decode_one, place)

    def _decode(self, body: bytes, spec: Preprocessing) -> Rows:
        return decode(body, spec, max_pixels=self._max_pixels)
