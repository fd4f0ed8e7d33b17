"""Pretends to be an accelerator: takes as long per batch as a table says, answers scores seeded by the picture.

Its order may have it jitter and fail, so that anybody can see what the server makes of that.
"""

import ctypes
import os
import signal
import sys
import time
from typing import Any, Dict

import numpy as np

PR_SET_TIMERSLACK = 29
SLOWNESS = 10  # times the table, where a batch is to be slow


class Engine:
    """A device that only sleeps."""

    def __init__(self, order: Dict[str, Any]) -> None:
        options = order["options"]
        self._classes = order["classes"]
        self._latency_s: Dict[int, float] = {
            int(gear): seconds for gear, seconds in options["latency_s"].items()
        }
        self._jitter: float = options["jitter"]
        self._faults: Dict[str, float] = options["faults"]
        self._chance = np.random.RandomState()
        ctypes.CDLL(None).prctl(
            PR_SET_TIMERSLACK, 1
        )  # else a sleep may last 50 us longer, 5 % of the shortest
        self.about = "simulated %s" % options["table"]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answer uint8 (n, side, side, 3) with float32 (n, classes), the same for the same picture."""
        end = time.perf_counter() + self._time_of(len(images))
        if self._falls_to("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._falls_to("hang"):
            signal.pause()
        if self._falls_to("garbage"):
            os.write(int(sys.argv[1]), os.urandom(50))  # to the server, whose socket it is
        if self._falls_to("memory"):
            np.empty(2**60, np.uint8)
        logits = np.stack([self._logits_of(image) for image in images])
        time.sleep(max(0.0, end - time.perf_counter()))
        return logits[1:] if self._falls_to("wrong_rows") else logits

    def _time_of(self, rows: int) -> float:
        if rows not in self._latency_s:
            known = ", ".join(map(str, sorted(self._latency_s)))
            raise ValueError("a batch of %d rows; the table knows %s" % (rows, known))
        slowness = SLOWNESS if self._falls_to("slow") else 1 + self._chance.uniform(0, self._jitter)
        return self._latency_s[rows] * slowness

    def _falls_to(self, fault: str) -> bool:
        return self._chance.uniform() < self._faults.get(fault, 0)

    def _logits_of(self, image: np.ndarray) -> np.ndarray:
        seed = int(image.sum(dtype=np.uint64)) % 2**32
        return np.random.RandomState(seed).randn(self._classes).astype(np.float32)
