"""What the control group of this process allows it: version 2, then 1. `root` is where the kernel's files are found."""

import re
from pathlib import Path

_NO_LIMIT = 2**60  # from here on version 1 means none
_SHARE = re.compile(r"(\d+) (\d+)")  # time, and of what time


def memory(root: Path) -> tuple[int | None, int]:
    """Read limit and use, in bytes."""
    cgroup, own = root / "sys/fs/cgroup", _own(root)
    for limit, used in (
        (own / "memory.max", own / "memory.current"),
        (cgroup / "memory.max", cgroup / "memory.current"),
        (cgroup / "memory/memory.limit_in_bytes", cgroup / "memory/memory.usage_in_bytes"),
    ):
        text = text_of(limit)
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text), int(text_of(used) or 0)
    return None, 0


def cpus(root: Path) -> float | None:
    """Read how many CPUs' time it may take, as Kubernetes limits it; more threads than that would be held up."""
    cgroup = root / "sys/fs/cgroup"
    first = " ".join(text_of(cgroup / "cpu" / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    shares = (text_of(_own(root) / "cpu.max"), text_of(cgroup / "cpu.max"), first)
    limits = [int(found[1]) / int(found[2]) for found in map(_SHARE.fullmatch, shares) if found]
    return min(limits, default=None)


def _own(root: Path) -> Path:
    lines = text_of(root / "proc/self/cgroup").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "")
    return root / "sys/fs/cgroup" / own.lstrip("/")


def text_of(path: Path) -> str:
    """Read a file of the kernel or a driver; one that cannot be read says nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
