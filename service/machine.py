"""What the machine has that engines depend on, as its kernel shows it. `root` is where its files are found."""

import math
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from service import cgroup

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The devices and the CPU."""

    ascend_nodes: tuple[str, ...]
    cpu_model: str
    cpu_flags: frozenset[str]
    cpus: int = 1  # that this process may use
    is_limited: bool = False  # to less time than its CPUs have, which libraries that count CPUs do not see

    @classmethod
    def look(cls, root: Path = Path("/")) -> Self:
        """Read it; what cannot be read is taken for absent."""
        info, cpus = _cpu_info(root / "proc/cpuinfo"), usable_cpus(root)
        return cls(
            ascend_nodes=ascend_nodes(root / "dev"),
            cpu_model=info.get("model name", info.get("CPU part", "")),
            cpu_flags=frozenset(info.get("flags", info.get("Features", "")).split()),
            cpus=cpus,
            is_limited=cpus < len(os.sched_getaffinity(0)),
        )

    @property
    def computes_bf16(self) -> bool:
        """Tell whether the CPU multiplies bf16 in hardware."""
        return bool(self.cpu_flags & _BF16_FLAGS)


def usable_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may run on, or whose time its cgroup allows it if that is less."""
    count, limit = len(os.sched_getaffinity(0)), cgroup.cpus(root)
    return count if limit is None else max(1, min(count, math.ceil(limit)))


def ascend_nodes(folder: Path) -> tuple[str, ...]:
    """List the device nodes of NPUs: davinci0, davinci1 and so on; davinci_manager is none."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return ()
    numbers = sorted(int(name[7:]) for name in names if name.startswith("davinci") and name[7:].isdecimal())
    return tuple(f"davinci{number}" for number in numbers)


def python_with_lite(chosen: str = "auto") -> Path | None:
    """Find an interpreter that has mindspore_lite: the chosen one, our own, or the one of `.venv-mslite`."""
    if chosen != "auto":
        return Path(chosen)
    if find_spec("mindspore_lite") is not None:
        return Path(sys.executable)
    beside = Path(sys.prefix).parent / ".venv-mslite/bin/python"
    return beside if beside.exists() else None


def _cpu_info(path: Path) -> dict[str, str]:
    """Read what is said of the first CPU."""
    first = cgroup.text_of(path).split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
