"""An engine process: loads one artifact, then answers batches until its socket closes.

    python service/engines/child SOCKET_FD MEMORY_FD PARENT_PID

Runs under Python 3.7 and newer with numpy and the one engine library; see wire.py for what is said.
"""

import ctypes
import importlib
import json
import mmap
import os
import platform
import signal
import socket
import sys
import time
import traceback
from typing import Any, Dict, Tuple

import numpy as np
import wire

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the parent named on the command line until it closes the socket."""
    socket_fd, memory_fd, parent_pid = (int(word) for word in sys.argv[1:4])
    _die_with(parent_pid)
    # The terminal's Ctrl-C and a group-wide SIGTERM are for the parent, which drains before it lets go of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    talk = socket.socket(fileno=socket_fd)
    _say(talk, wire.HELLO, text=json.dumps({"protocol": wire.PROTOCOL, "python": platform.python_version()}))
    try:
        order = json.loads(wire.unpack(talk.recv(wire.LONGEST_PACKET)).text)
        engine = importlib.import_module("engine_" + order["engine"]).Engine(order)
        images, logits = _map(memory_fd, order)
    except Exception as error:  # noqa: BLE001 - the parent reports it; there is nobody else to tell
        traceback.print_exc()
        _say(talk, wire.FAIL, text=_sentence(error))
        return
    _say(talk, wire.LOADED, text=json.dumps({"about": engine.about}))
    while True:
        data = talk.recv(wire.SHORTEST_PACKET)
        if not data:
            return
        _run(talk, engine, images, logits, wire.unpack(data).rows)


def _run(talk: socket.socket, engine: Any, images: np.ndarray, logits: np.ndarray, rows: int) -> None:
    started = time.perf_counter()
    try:
        answer = engine.run(images[:rows])
        if answer.shape != (rows, logits.shape[1]) or answer.dtype != np.float32:
            raise ValueError("the engine answered %s %s for %d rows" % (answer.dtype, answer.shape, rows))
        logits[:rows] = answer
    except MemoryError:  # who knows what else has failed for it: another process begins afresh
        raise
    except Exception as error:  # noqa: BLE001 - one batch fails; the process, and the parent, go on
        traceback.print_exc()
        _say(talk, wire.FAIL, text=_sentence(error))
    else:
        _say(talk, wire.DONE, rows=rows, nanoseconds=int((time.perf_counter() - started) * 1e9))


def _map(memory_fd: int, order: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray]:
    """Lay the two arrays over the shared memory."""
    memory = mmap.mmap(memory_fd, 0)
    os.close(memory_fd)
    max_rows, side, classes = order["max_rows"], order["side"], order["classes"]
    images = np.frombuffer(memory, np.uint8, max_rows * side * side * 3).reshape(max_rows, side, side, 3)
    offset = wire.output_offset(max_rows, side * side * 3)
    logits = np.frombuffer(memory, np.float32, max_rows * classes, offset).reshape(max_rows, classes)
    return images, logits


def _die_with(parent_pid: int) -> None:
    """Have the kernel end this process with its parent, however that one dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")


def _say(talk: socket.socket, kind: int, rows: int = 0, nanoseconds: int = 0, text: str = "") -> None:
    talk.send(wire.pack(wire.Packet(kind, rows, nanoseconds, text)))


def _sentence(error: Exception) -> str:
    return "%s: %s" % (type(error).__name__, " ".join(str(error).split()))


if __name__ == "__main__":
    main()
