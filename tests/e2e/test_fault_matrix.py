"""What happens to clients, and to the server, when engines fail in every way, twenty times, under load."""

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from load import OverRest, pressed
from pictures import encoded, photo
from serving import UNTRAINED, RunningServer, eventually

pytestmark = pytest.mark.e2e

TIMES = 20
CLIENTS = 4
IMAGE = encoded(photo(64, 64))


def engine_pid(server: RunningServer) -> int:
    return int(server.events("engine_loaded", 1)[-1]["pid"])


@dataclass(frozen=True)
class Holdings:
    """What the server's process has."""

    files: int
    threads: int
    children: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Holdings":
        return cls(process.num_fds(), process.num_threads(), len(process.children(recursive=True)))

    def is_within(self, other: "Holdings") -> bool:
        """Tell whether nothing is more: threads come and go with their work."""
        return self.files <= other.files and self.threads <= other.threads and self.children <= other.children


SENTENCES = {
    signal.SIGKILL: r"the engine process ended \(signal 9, SIGKILL\) while it ran",
    signal.SIGSEGV: r"the engine process ended \(signal 11, SIGSEGV\) while it ran",
    signal.SIGSTOP: r"the engine process was killed: no answer for 0.5 s while it ran",
    "garbage": r"the engine process was killed: it answered .* while it ran",
    "memory": r"the engine process ended \(exit code 1\) while it ran",
}


@pytest.mark.parametrize("fault", SENTENCES, ids=lambda fault: getattr(fault, "name", fault))
def test_engines_that_fail_twenty_times_under_load_fail_their_batches_only_and_leave_nothing(
    fault: signal.Signals | str, start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    (tmp_path / "sknet50").symlink_to(UNTRAINED / "sknet50")
    faults = f"{fault}:0.2" if isinstance(fault, str) else "none"
    limit_s = "0.5" if fault is signal.SIGSTOP else "20"  # a busy machine is slow, which is no hang
    flags = ["--engine", "simulated", "--engine-timeout-s", limit_s, "--simulated-faults", faults]
    flags += ["--simulated-jitter", "100"]  # so that most moments are in the middle of a batch
    server = start(tmp_path, *flags)
    process = psutil.Process(server.process.pid)
    chance = random.Random()
    clients = [OverRest(server.rest, "sknet50", IMAGE, keep_alive=True) for _ in range(CLIENTS)]
    with pressed(clients) as load:
        eventually(lambda: len(load.outcomes) > 20, "the clients are served")
        before, taken_bytes = Holdings.of(process), process.memory_info().rss
        for life in range(1, TIMES + 1):
            if isinstance(fault, signal.Signals):
                wanted = len(load.outcomes) + chance.randrange(1, 30)
                eventually(lambda wanted=wanted: len(load.outcomes) > wanted, "the clients are served")
                with suppress(
                    ProcessLookupError
                ):  # a slow one has been killed for it, which is one more life
                    os.kill(engine_pid(server), fault)
            server.events("engine_loaded", life + 1)
        if isinstance(fault, str):
            server.events("ready", TIMES + 1)
        eventually(lambda: Holdings.of(process).is_within(before), f"the server holds {before} again")
        assert process.memory_info().rss - taken_bytes < 32 * 2**20

    codes = Counter(outcome.code for outcome in load.outcomes)
    assert codes.keys() <= {"OK", "ENGINE_FAULT", "MODEL_NOT_READY"}
    lives = len(server.events("engine_loaded", TIMES + 1)) - 1
    assert codes["ENGINE_FAULT"] <= lives * CLIENTS + CLIENTS  # a batch holds at most one request of each
    assert codes["ENGINE_FAULT"]  # some moment was in the middle of a batch
    for outcome in load.outcomes:
        if outcome.code == "ENGINE_FAULT":
            assert re.match(SENTENCES[fault], outcome.says), outcome.says
        if outcome.code == "MODEL_NOT_READY":  # by chance three in a row failed at their first batch
            assert "its engine failed" in outcome.says, outcome.says
    assert abs(len(server.events("not_ready", TIMES)) - lives) <= 1  # readiness was as true as its engine
