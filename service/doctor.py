"""Tells what this machine can run and why not: Probe -> one screen of text."""

import os
import platform
import resource
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from service import __version__, cgroup
from service.cgroup import text_of
from service.machine import Machine, python_with_lite, usable_cpus
from service.settings import Settings

_GIB = 1024**3
_FEWEST_OPEN_FILES = 4096
_LEAST_MEMORY_BYTES = 2 * _GIB
_LITE_TIMEOUT_S = 60
_HELPER_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
_TOOLKIT = "usr/local/Ascend/ascend-toolkit/latest"
_ASK_LITE = "import sys, mindspore_lite as lite; print(lite.__version__, '%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Where the doctor looks. `root` is the root of the file system."""

    root: Path
    environment: Mapping[str, str]
    open_files: int
    cpus: int
    lite_python: Path | None
    state: Path | None

    @classmethod
    def here(cls, settings: Settings) -> Self:
        """Look at this machine, as a server with these settings would."""
        return cls(
            root=Path("/"),
            environment=os.environ,
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            cpus=usable_cpus(),
            lite_python=python_with_lite(settings.mindspore_lite_python),
            state=settings.state_directory,
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: whether it is well, or None where it is neither."""

    is_well: bool | None
    name: str
    text: str

    def __str__(self) -> str:
        mark = {True: "yes", False: "no", None: ""}[self.is_well]
        return f"  {mark:4}{self.name:16}{self.text}"


def examine(probe: Probe) -> str:
    """Write the whole report."""
    machine = Machine.look(probe.root)
    lite = _lite(probe)
    engines = [
        _openvino(machine),
        lite,
        _ascend(probe, machine, lite),
        Finding(True, "simulated", "needs nothing"),
    ]
    lines = [
        f"Cardinal {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "",
        "What can run models here",
        *map(str, engines),
        "",
        "What this machine has",
        *map(str, _resources(probe, machine)),
    ]
    return "\n".join(lines)


def _openvino(machine: Machine) -> Finding:
    try:
        found = version("openvino")
    except PackageNotFoundError:
        return Finding(False, "openvino", "the package openvino is not installed")
    precision = "bf16 and f32" if machine.computes_bf16 else "f32; this CPU does not compute bf16"
    return Finding(True, "openvino", f"{found} on the CPU, {precision}")


def _lite(probe: Probe) -> Finding:
    name, python = "mindspore_lite", probe.lite_python
    if python is None:
        return Finding(
            False,
            name,
            "no Python here has it. The wheel on PyPI is 2.0.0 for Python 3.7; make one with\n"
            f"{'':22}python3.7 -m venv .venv-mslite && .venv-mslite/bin/pip install mindspore-lite==2.0.0 numpy\n"
            f"{'':22}or name a Python that has it by CARDINAL_MINDSPORE_LITE_PYTHON",
        )
    try:
        words = [str(python), "-c", _ASK_LITE]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=_LITE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(False, name, f"{python} does not run: {error}")
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        return Finding(False, name, f"{python} cannot import it: {last}")
    lite, of_python = ran.stdout.split()[-2:]
    return Finding(True, name, f"{lite} on the CPU, in {python} (Python {of_python})")


def _ascend(probe: Probe, machine: Machine, lite: Finding) -> Finding:
    missing = list(_missing_for_ascend(probe, machine, lite))
    if missing:
        return Finding(False, "Ascend NPU", f"missing: {', '.join(missing)}")
    return Finding(True, "Ascend NPU", f"{len(machine.ascend_nodes)} devices, by mindspore_lite")


def _missing_for_ascend(probe: Probe, machine: Machine, lite: Finding) -> Iterator[str]:
    if not machine.ascend_nodes:
        yield "device nodes /dev/davinci0 and so on"
    else:
        yield from (f"/dev/{node}" for node in _HELPER_NODES if not (probe.root / "dev" / node).exists())
        closed = [
            node
            for node in machine.ascend_nodes
            if not os.access(probe.root / "dev" / node, os.R_OK | os.W_OK)
        ]
        if closed:
            yield f"the right to use {', '.join(closed)} (the group is usually HwHiAiUser)"
    if _driver(probe) is None:
        yield "the driver (/usr/local/Ascend/driver)"
    if _cann(probe) is None:
        yield "CANN (source its set_env.sh)"
    if not lite.is_well:
        yield "mindspore_lite"


def _resources(probe: Probe, machine: Machine) -> Iterator[Finding]:
    flags = (
        " ".join(flag for flag in _TELLING_FLAGS if flag in machine.cpu_flags) or "no known vector extensions"
    )
    limit = cgroup.cpus(probe.root)
    usable = f"{probe.cpus} usable" + (f" (the cgroup allows the time of {limit:g})" if limit else "")
    yield Finding(None, "CPU", f"{machine.cpu_model or 'unknown'}: {usable}, {flags}")
    yield _memory(probe)
    enough = probe.open_files >= _FEWEST_OPEN_FILES
    advice = "" if enough else f"; for many clients raise it to {_FEWEST_OPEN_FILES} (ulimit -n)"
    yield Finding(enough, "open files", f"{probe.open_files} allowed{advice}")
    yield _state(probe)
    yield Finding(None, "NPU nodes", ", ".join(machine.ascend_nodes) or "none")
    yield Finding(None, "NPU driver", _driver(probe) or "none")
    yield Finding(None, "CANN", _cann(probe) or "none")


def _memory(probe: Probe) -> Finding:
    free = _number_after(probe.root / "proc/meminfo", "MemAvailable:") * 1024
    limit, used = cgroup.memory(probe.root)
    usable = free if limit is None else min(free, limit - used)
    text = f"{usable / _GIB:.1f} GiB usable"
    if limit is not None:
        text += f"; the cgroup allows {limit / _GIB:.1f} GiB and has {used / _GIB:.1f} in use"
    if usable < _LEAST_MEMORY_BYTES:
        text += "; large networks may not load"
    return Finding(usable >= _LEAST_MEMORY_BYTES, "memory", text)


def _state(probe: Probe) -> Finding:
    if probe.state is None:
        return Finding(None, "state folder", "none: models are compiled at each start")
    nearest = next(folder for folder in (probe.state, *probe.state.parents) if folder.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        return Finding(True, "state folder", str(probe.state))
    return Finding(
        False, "state folder", f"{probe.state} cannot be written: models are compiled at each start"
    )


def _driver(probe: Probe) -> str | None:
    return _version_in(probe.root / "usr/local/Ascend/driver/version.info")


def _cann(probe: Probe) -> str | None:
    named = probe.environment.get("ASCEND_HOME_PATH") or probe.environment.get("ASCEND_CUSTOM_PATH")
    home = probe.root / (named or _TOOLKIT).lstrip("/")
    if not home.exists():
        return None
    files = (home / "version.info", home / "compiler/version.info", home / "runtime/version.info")
    return next(filter(None, map(_version_in, files)), f"of unknown version in {home}")


def _version_in(path: Path) -> str | None:
    """Read `Version=...` in any case; a file without it still tells that something is there."""
    text = text_of(path)
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() == "version":
            return value.strip(" []")
    return "of unknown version" if text else None


def _number_after(path: Path, key: str) -> int:
    words = _line_after(path, key).split()
    return int(words[0]) if words else 0


def _line_after(path: Path, key: str) -> str:
    return next((line[len(key) :] for line in text_of(path).splitlines() if line.startswith(key)), "")
