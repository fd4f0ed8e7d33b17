"""What the tests of the service share."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import blockbuster_ctx

from engines import LogWatch


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_event_loop() -> Iterator[None]:
    """Fail any test whose code under test blocks the loop."""
    with blockbuster_ctx("service") as tripwire:
        # A pipe is read when it is readable; a program must be started by the thread that its life hangs on; the
        # repository is listed when the server has nothing else to do.
        tripwire.functions["os.read"].can_block_in("engines/program.py", {"lines"})
        tripwire.functions["os.read"].can_block_in("subprocess.py", {"_execute_child"})
        # Coverage has a lock of its own, which a thread of ours may hold for a moment.
        tripwire.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
        for function in ("os.listdir", "os.stat"):
            tripwire.functions[function].can_block_in("repository/repository.py", {"_scan", "_newest"})
        yield


@pytest.fixture
async def log() -> AsyncIterator[LogWatch]:
    watch, logger = LogWatch(), logging.getLogger("cardinal.engine")
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.INFO)
    yield watch
    logger.removeHandler(watch)
    logger.setLevel(level)
