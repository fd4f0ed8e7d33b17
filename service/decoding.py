"""Decodes the images of a request on threads: encoded bytes -> rows (n, side, side, 3)."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress

import anyio
import numpy as np
from anyio.to_thread import run_sync

from service.errors import InvalidInput
from service.images import Preprocessing, decode
from service.tensors import Rows

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 4 * 1024 * 1024


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

    async def rows(self, images: Sequence[bytes], spec: Preprocessing) -> Rows:
        """Decode all images side by side.

        Raises:
            InvalidInput: for the first image that cannot be decoded; with several, it says which.
        """
        rows: dict[int, Rows] = {}
        faults: dict[int, InvalidInput] = {}
        share = anyio.CapacityLimiter(self._share)

        async def decode_one(place: int) -> None:
            try:
                async with share:
                    rows[place] = await run_sync(self._decode, images[place], spec, limiter=self._limiter)
            except InvalidInput as error:  # kept until the group is closed, which would wrap it
                faults[place] = error
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for place in range(len(images)):
                tasks.start_soon(decode_one, place)
        if not faults:
            return np.stack([rows[place] for place in range(len(images))])
        place, fault = min(faults.items())
        raise fault if len(images) == 1 else type(fault)(f"images[{place}]: {fault}")

    def _decode(self, body: bytes, spec: Preprocessing) -> Rows:
        return decode(body, spec, max_pixels=self._max_pixels)
