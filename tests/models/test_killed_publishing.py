"""Publishers that are killed half-way, many times, while others look at the repository."""

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from models.publish import drafted, publish, write_files
from options import serving_options
from patience import PATIENCE_S
from service.bell import Bell
from service.metrics import Metrics
from service.repository import Repository, Slot
from service.repository.bundle import load_bundle
from serving import ROOT, UNTRAINED, checked

BUNDLE = UNTRAINED / "sknet50" / "1"
FILES = {path.relative_to(BUNDLE).as_posix(): path for path in BUNDLE.rglob("*") if path.is_file()}

PUBLISHING = """
import os, random, signal, sys, threading
from pathlib import Path
from models.publish import publish

bundle, repository, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
chance = random.Random(seed)
threading.Timer(chance.uniform(0, 0.05), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
    publish(files, repository=repository, model=f"model-{chance.randrange(5)}")
"""


def _killed(repository: Path, seed: int) -> None:
    words = [sys.executable, "-c", PUBLISHING, str(BUNDLE), str(repository), str(seed)]
    assert subprocess.run(words, cwd=ROOT, timeout=PATIENCE_S, check=False).returncode == -signal.SIGKILL


def _slots(repository: Path) -> list[Path]:
    """See the repository as a server does; every model in it has a version whose every byte is right."""

    async def scan() -> list[Slot]:
        return Repository(repository, serving_options("simulated"), Metrics(), Bell()).slots

    slots = anyio.run(scan)
    assert [slot.failure for slot in slots if slot.failure] == []
    for slot in slots:
        load_bundle(slot.directory)
    return [slot.directory for slot in slots]


@contextmanager
def _watching(look: Callable[[], object]) -> Iterator[list[object]]:
    """Look again and again while the block runs; fail where one look did."""
    seen: list[object] = []
    faults: list[BaseException] = []
    ended = threading.Event()

    def watch() -> None:
        try:
            while not ended.is_set():
                seen.append(look())
        except BaseException as fault:  # noqa: BLE001 - it is the test's to raise
            faults.append(fault)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
    for fault in faults:
        raise fault


def _left(repository: Path) -> list[Path]:
    return list(repository.glob("**/.publishing-*"))


def test_a_bundle_killed_half_way_is_never_visible(tmp_path: Path) -> None:
    chance = random.Random(1)
    left = 0
    with _watching(lambda: _slots(tmp_path)) as seen:
        for _ in range(40):
            _killed(tmp_path, chance.randrange(2**32))
            left += len(_left(tmp_path))
    assert len(seen) > 40
    assert left > 0  # or it was never half-way
    for model in tmp_path.iterdir():
        for version in model.glob("[0-9]*"):
            load_bundle(version)


@pytest.mark.e2e
def test_a_server_that_starts_meanwhile_finds_whole_models_alone(tmp_path: Path) -> None:
    publish(FILES, repository=tmp_path, model="model-0")

    def check() -> None:
        ran = checked(tmp_path, "--engine", "simulated")
        assert ran.returncode == 0, ran.stderr

    chance = random.Random(2)
    with _watching(check) as checks:
        while len(checks) < 3:
            _killed(tmp_path, chance.randrange(2**32))


def _killed_before_it_appears(repository: Path) -> None:
    words = "import os, sys; from pathlib import Path; from models.publish import drafted\n"
    words += "with drafted(Path(sys.argv[1]), 'cats'): os.kill(os.getpid(), 9)"
    ran = subprocess.run([sys.executable, "-c", words, str(repository)], cwd=ROOT, check=False)
    assert ran.returncode == -signal.SIGKILL


@pytest.mark.parametrize("versions", [0, 1])
def test_the_next_publisher_removes_what_a_killed_one_left(tmp_path: Path, versions: int) -> None:
    for _ in range(versions):
        publish(FILES, repository=tmp_path, model="cats")
    _killed_before_it_appears(tmp_path)
    assert len(_left(tmp_path)) == 1
    assert len(_slots(tmp_path)) == versions
    publish(FILES, repository=tmp_path, model="cats")
    assert _left(tmp_path) == []
    assert len(_slots(tmp_path)) == 1


def test_a_publisher_that_is_still_at_work_keeps_its_files(tmp_path: Path) -> None:
    for _ in range(2):
        with drafted(tmp_path, "cats") as draft:
            write_files(draft.folder, FILES)
            publish(FILES, repository=tmp_path, model="dogs")
    assert [path.relative_to(tmp_path) for path in _slots(tmp_path)] == [Path("cats/2"), Path("dogs/2")]


def test_two_first_versions_at_once_both_appear(tmp_path: Path) -> None:
    with drafted(tmp_path, "cats", 2) as draft:
        write_files(draft.folder, FILES)
        publish(FILES, repository=tmp_path, model="cats", version=1)
    assert sorted(path.name for path in (tmp_path / "cats").iterdir()) == ["1", "2"]
