"""What `make` does about MindSpore Lite, with stand-ins for Python 3.7."""

import subprocess
from pathlib import Path

from patience import PATIENCE_S
from serving import ROOT

PYTHON = """\
#!/bin/sh
case "$1 $2" in
"-c import"*) exit {has_venv} ;;
"-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/pip" ;;
*) echo "pip $*"; exit {pip_code} ;;
esac
"""


def _make(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [ROOT / "models" / "lite" / "make-environment", folder / "made"]
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), **variables}
    return subprocess.run(
        words, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False
    )


def _python(folder: Path, *, has_venv: int = 0, pip_code: int = 0) -> None:
    program = folder / "python3.7"
    program.write_text(PYTHON.format(has_venv=has_venv, pip_code=pip_code))
    program.chmod(0o755)


def test_it_is_installed_once_with_the_pinned_packages(tmp_path: Path) -> None:
    _python(tmp_path)
    first, second = _make(tmp_path), _make(tmp_path)
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("pip install ")
    assert (first.stderr, second.stdout, second.stderr) == ("", "", "")


def test_without_python_3_7_one_line_says_what_is_left_out(tmp_path: Path) -> None:
    made = _make(tmp_path)
    assert made.returncode == 0
    assert made.stderr == (
        "MindSpore Lite on CPU is left out: it needs Python 3.7, or CARDINAL_MINDSPORE_LITE_PYTHON,"
        " a Python that has mindspore_lite.\n"
    )
    assert not (tmp_path / "made").exists()


def test_what_cannot_be_installed_is_left_out_too(tmp_path: Path) -> None:
    _python(tmp_path, pip_code=1)
    made = _make(tmp_path)
    assert made.returncode == 0
    assert made.stderr == "MindSpore Lite on CPU is left out: it could not be installed for python3.7.\n"
    assert not (tmp_path / "made").exists()


def test_a_python_without_venv_is_passed_over(tmp_path: Path) -> None:
    _python(tmp_path, has_venv=1)
    assert "it needs Python 3.7" in _make(tmp_path).stderr


def test_nothing_is_made_where_another_python_is_named(tmp_path: Path) -> None:
    _python(tmp_path)
    made = _make(tmp_path, CARDINAL_MINDSPORE_LITE_PYTHON="/opt/python")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert not (tmp_path / "made").exists()
