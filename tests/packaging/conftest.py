"""What the tests of image and chart share: the programs that they drive, and a real server."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import ROOT, UNTRAINED, RunningServer, running


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program; without it a test is skipped, but in CI it fails."""
    folders = [str(ROOT / ".venv" / "tools"), str(Path(sys.executable).parent), os.environ["PATH"]]

    def find(name: str) -> str:
        if found := shutil.which(name, path=os.pathsep.join(folders)):
            return found
        missing = f"{name} is missing: run tests/packaging/install-tools and install the extra `dev`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)

    return find


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with running(UNTRAINED) as started:
        yield started
