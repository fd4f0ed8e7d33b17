"""Remembers answers: the logits of the images that were asked for last, up to a number of bytes. Off if it is 0."""

import sys
from collections import OrderedDict

import numpy as np

from service.metrics import Metrics
from service.tensors import Logits

# At most, of the table for an entry and of what malloc rounds up; measured with CPython 3.11 on 64 bits.
_ENTRY_BYTES = 208


class AnswerCache:
    """The least recently used answer goes first. A key tells image, model and preprocessing apart."""

    def __init__(self, *, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes, self._metrics = max_bytes, metrics
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()
        self._held_bytes = 0

    def get(self, key: bytes, labels: tuple[str, str]) -> Logits | None:
        """Find the logits (classes,) of an image, and count whether they were there."""
        if not self._max_bytes:
            return None
        answer = self._answers.get(key)
        if answer is None:
            self._metrics.cache_misses.labels(*labels).inc()
            return None
        self._answers.move_to_end(key)
        self._metrics.cache_hits.labels(*labels).inc()
        return np.frombuffer(answer, np.float32)

    def put(self, key: bytes, logits: Logits) -> None:
        """Keep the logits (classes,) of an image, which must be the answer to this key for ever."""
        answer = logits.tobytes()  # no view, which would keep the whole batch
        cost = _cost(key, answer)
        if key in self._answers or cost > self._max_bytes:
            return
        self._answers[key] = answer
        self._held_bytes += cost
        while self._held_bytes > self._max_bytes:
            self._held_bytes -= _cost(*self._answers.popitem(last=False))
            self._metrics.cache_evictions.inc()
        self._metrics.cache_bytes.set(self._held_bytes)


def _cost(key: bytes, answer: bytes) -> int:
    return sys.getsizeof(key) + sys.getsizeof(answer) + _ENTRY_BYTES
