"""Find a Python that has MindSpore Lite, and run child.py in it."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from models.errors import InvalidValueError

VARIABLE = "CARDINAL_MINDSPORE_LITE_PYTHON"

_CHILD = Path(__file__).with_name("child.py")
_LIMIT_S = 900.0  # ResNeXt101 takes 20 s on two cores
_WORDS_OF_A_FAULT = 3


def find_interpreter() -> Path | None:
    """Return the Python that the server would take too: the named one, this one, or that of `make` beside this.

    None where none of them has MindSpore Lite.
    """
    named = os.environ.get(VARIABLE, "auto")
    if named != "auto":
        return Path(named)
    if importlib.util.find_spec("mindspore_lite"):
        return Path(sys.executable)
    beside = Path(sys.prefix).parent / ".venv-mslite" / "bin" / "python"
    return beside if beside.exists() else None


def run_lite(python: Path, *words: str | Path, limit_s: float = _LIMIT_S) -> str:
    """Run a command of child.py and return what it printed.

    Raises InvalidValueError, with the end of what the library said, when it fails, dies or takes too long.
    """
    task = f"MindSpore Lite ({python}): {words[0]}"
    try:
        ended = subprocess.run(
            [python, _CHILD, *words],
            env=os.environ | {"GLOG_v": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidValueError(f"{task} took more than {limit_s:g} s") from error
    except OSError as error:
        raise InvalidValueError(f"{task} could not start: {error.strerror}") from error
    if ended.returncode:
        said = " ".join(ended.stderr.split("\n")[-_WORDS_OF_A_FAULT - 1 :]).strip()
        raise InvalidValueError(f"{task} {_end_of(ended.returncode)}: {said or 'it said nothing'}")
    return ended.stdout


def _end_of(code: int) -> str:
    if code > 0:
        return f"failed with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
