"""Real servers for the end-to-end tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from patience import PATIENCE_S
from serving import UNTRAINED, RunningServer, running


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """The untrained models, served for the whole session; tests leave it as they found it."""
    with running(UNTRAINED) as started:
        yield started


@pytest.fixture
def start() -> Iterator[Callable[..., RunningServer]]:
    """Start servers that a test may harm."""
    with ExitStack() as started:

        def begin(repository: Path = UNTRAINED, *flags: str, wait: str = "ready") -> RunningServer:
            return started.enter_context(running(repository, *flags, wait=wait))

        yield begin


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.rest, timeout=PATIENCE_S) as client:
        yield client
