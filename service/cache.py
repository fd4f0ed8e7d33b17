"""Remembers answers: the logits of the images that were asked for last, up to a number of bytes. Off if it is 0."""

import sys
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from service.metrics import Metrics
from service.tensors import Logits

# At most, of the table for an entry and of what malloc rounds up; measured with CPython 3.11 on 64 bits.
_ENTRY_BYTES = 272


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known of an image."""

    logits: Logits  # (classes,)
    engine: str  # what computed them


class AnswerCache:
    """The least recently used answer goes first. A key tells image, model and preprocessing apart."""

    def __init__(self, *, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes, self._metrics = max_bytes, metrics
        self._answers: OrderedDict[bytes, tuple[bytes, str]] = OrderedDict()  # logits and engine
        self._held_bytes = 0

    def get(self, key: bytes, labels: tuple[str, str]) -> Answer | None:
        """Find the answer to an image, and count whether it was there."""
        if not self._max_bytes:
            return None
        kept = self._answers.get(key)
        if kept is None:
            self._metrics.cache_misses.labels(*labels).inc()
            return None
        self._answers.move_to_end(key)
        self._metrics.cache_hits.labels(*labels).inc()
        logits, engine = kept
        return Answer(logits=np.frombuffer(logits, np.float32), engine=engine)

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep what must be the answer to this key for ever."""
        logits = answer.logits.tobytes()  # no view, which would keep the whole batch
        cost = _cost(key, logits)
        if key in self._answers or cost > self._max_bytes:
            return
        self._answers[key] = (logits, answer.engine)
        self._held_bytes += cost
        while self._held_bytes > self._max_bytes:
            oldest, (forgotten, _) = self._answers.popitem(last=False)
            self._held_bytes -= _cost(oldest, forgotten)
            self._metrics.cache_evictions.inc()
        self._metrics.cache_bytes.set(self._held_bytes)


def _cost(key: bytes, logits: bytes) -> int:
    return sys.getsizeof(key) + sys.getsizeof(logits) + _ENTRY_BYTES  # the engine's name is held once for all
