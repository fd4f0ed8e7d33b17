"""Write a compilation's script beside its bundle, and run it where the programs that it needs are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from models.ascend.script import Compilation, compile_script
from models.errors import InvalidValueError


def write_script(order: Compilation, folder: Path) -> Path:
    """Write the script into a model's folder, where no server takes it for a version; return its path."""
    script = folder / order.script_name
    script.write_text(compile_script(order), encoding="utf-8")
    script.chmod(0o755)
    return script


def missing_tools(order: Compilation) -> list[str]:
    """Return the programs of the script that are not here."""
    return [tool for tool in order.tools if shutil.which(tool, path=_path()) is None]


def run_script(script: Path) -> None:
    """Run it to its end, its output going where ours goes; InvalidValueError where it fails."""
    ended = subprocess.run([script], env=os.environ | {"PATH": _path()}, check=False)
    if ended.returncode:
        raise InvalidValueError(f"{script} failed with exit code {ended.returncode}")


def _path() -> str:
    """Return PATH, before it the folder of this program, which is one of the script's tools."""
    own = str(Path(sys.argv[0]).absolute().parent)
    return os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
