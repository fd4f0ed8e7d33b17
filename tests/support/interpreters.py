"""Other interpreters that tests drive: MindSpore needs an older numpy than ours."""

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
MINDSPORE = ROOT / ".venv-mindspore" / "bin"
_MOST_RUNS = 3
_CRASHED = "Error code: -11"  # as msrun tells it


def mindspore(program: str, *words: str | Path, folder: Path, fails: bool = False) -> str:
    """Run a program of the environment with MindSpore, in this folder, and return what it printed.

    That is its errors where it is to fail with the exit code 2. Without that environment CI fails and others skip.
    """
    ended = run_mindspore(program, *words, folder=folder)
    assert ended.returncode == (2 if fails else 0), ended.stderr
    return ended.stderr if fails else ended.stdout


def run_mindspore(program: str, *words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment with MindSpore, in this folder, however it ends."""
    mindspore_python()
    command = [str(MINDSPORE / program), *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def under_msrun(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program in two processes under msrun; anew where one of them crashed.

    MindSpore's collectives on the CPU die of signal 11 now and then; the runs that end are exact.
    """
    for _ in range(_MOST_RUNS):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        options = ["--worker_num", "2", "--local_worker_num", "2", "--master_port", port, "--join", "True"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(MINDSPORE), prepend=os.pathsep)  # msrun starts the python that it finds
            ended = run_mindspore("msrun", *options, "--log_dir", folder / "log", *words, folder=folder)
        if _CRASHED not in ended.stderr:
            break
    return ended


def mindspore_python() -> str:
    """Return the interpreter that has MindSpore. Without it CI fails and others skip."""
    if not MINDSPORE.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{MINDSPORE} is missing, though CI runs make test")
        pytest.skip(f"{MINDSPORE} is missing: make test installs MindSpore there")
    return str(MINDSPORE / "python")


def mindspore_program(*words: str | Path, folder: Path) -> str:
    """Run mindspore_program.py of this folder."""
    return mindspore("python", Path(__file__).with_name("mindspore_program.py"), *words, folder=folder)


def arrays(file: Path) -> dict[str, NDArray[np.float32]]:
    """Read the arrays that a program has left."""
    with np.load(file) as found:
        return dict(found)


def of_ranks(folder: Path, name: str, size: int) -> list[dict[str, NDArray[np.float32]]]:
    """Read what each of several processes has left under a name."""
    return [arrays(folder / f"{name} {rank}.npz") for rank in range(size)]
