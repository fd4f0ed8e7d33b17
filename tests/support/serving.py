"""Starts real servers for tests: `cardinal serve` in a process of its own, on free ports."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
UNTRAINED = ROOT / "tests" / "untrained"


@dataclass
class RunningServer:
    """A server, what it said so far, and where it listens."""

    process: subprocess.Popen[str]
    patience_s: float = PATIENCE_S
    log: list[dict[str, Any]] = field(default_factory=list)
    heard: threading.Condition = field(default_factory=threading.Condition)

    @property
    def rest(self) -> str:
        return str(self.event("listening")["rest"])

    @property
    def grpc(self) -> str:
        return str(self.event("listening")["grpc"])

    @property
    def control(self) -> str:
        return str(self.event("listening")["control"])

    def event(self, name: str, **wanted: object) -> dict[str, Any]:
        """Wait for a log line."""
        return self.events(name, 1, **wanted)[0]

    def events(self, name: str, count: int, **wanted: object) -> list[dict[str, Any]]:
        """Wait for so many log lines."""

        def found() -> list[dict[str, Any]]:
            return [
                line for line in list(self.log) if line["event"] == name and wanted.items() <= line.items()
            ]

        with self.heard:
            is_there = self.heard.wait_for(
                lambda: len(found()) >= count or self.process.poll() is not None, self.patience_s
            )
        if not is_there or len(found()) < count:
            pytest.fail(f"the server never said {name} {wanted}; it said:\n" + "\n".join(map(str, self.log)))
        return found()

    def listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.heard:
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.log.append({"event": "not_json", "line": line})
                self.heard.notify_all()
        with self.heard:
            self.heard.notify_all()

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE_S)


def _serve(repository: Path, *flags: str) -> list[str]:
    """Say how to serve as fast and cleanly as can be."""
    words = [sys.executable, "-m", "service.cli", "serve", "--model-repository", str(repository)]
    return [*words, "--state-folder", "none", "--openvino-precision", "f32", "--profile-s", "0.2", *flags]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CARDINAL_")}


def checked(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Load and verify a repository as `cardinal serve --check` does."""
    return subprocess.run(
        _serve(repository, "--check", *flags),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
        env=_environment(),
    )


@contextmanager
def running(
    repository: Path, *flags: str, wait: str = "ready", patience_s: float = PATIENCE_S
) -> Iterator[RunningServer]:
    """Start a server, wait for an event, and end it however the block ends."""
    ports = ("--rest-port", "0", "--grpc-port", "0", "--control-port", "0", "--lame-duck-s", "0.3")
    process = subprocess.Popen(
        _serve(repository, *ports, *flags), stderr=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()
    )
    server = RunningServer(process, patience_s)
    listener = threading.Thread(target=server.listen, daemon=True)
    listener.start()
    try:
        server.event(wait)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        listener.join(PATIENCE_S)
        assert process.stderr is not None
        process.stderr.close()


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, timeout=PATIENCE_S, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=PATIENCE_S, **options)


def eventually(truth: Callable[[], bool], what: str) -> None:
    """Poll something outside of our processes' control, such as a process table."""
    end = time.monotonic() + PATIENCE_S
    while not truth():
        if time.monotonic() > end:
            pytest.fail(f"it never came true that {what}")
        time.sleep(0.02)


def found(program: str) -> str:
    """Find a program that tests/install-tools installs; without it CI fails and others skip."""
    path = shutil.which(program)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed, though CI runs tests/install-tools")
    return path or pytest.skip(f"{program} is not installed: see tests/install-tools")
