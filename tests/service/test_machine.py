import os
import sys
from pathlib import Path

import pytest

from service.machine import Machine, ascend_nodes, python_with_lite, usable_cpus

X86 = "processor\t: 0\nmodel name\t: A fine CPU\nflags\t\t: fpu avx512_bf16 sse\n\nprocessor\t: 1\nflags\t: other\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd0c\n"


def root(folder: Path, cpu: str = "", nodes: tuple[str, ...] = ()) -> Path:
    for name in ("proc", "dev"):
        (folder / name).mkdir()
    (folder / "proc/cpuinfo").write_text(cpu)
    for node in nodes:
        (folder / "dev" / node).touch()
    return folder


def test_npus_are_the_numbered_nodes_in_their_order(tmp_path: Path) -> None:
    nodes = ("davinci10", "davinci2", "davinci_manager", "davinci", "hisi_hdc", "null")
    assert Machine.look(root(tmp_path, nodes=nodes)).ascend_nodes == ("davinci2", "davinci10")


def test_a_machine_that_shows_nothing_has_nothing(tmp_path: Path) -> None:
    machine = Machine.look(tmp_path)
    assert machine == Machine(ascend_nodes=(), cpu_model="", cpu_flags=frozenset(), cpus=machine.cpus)
    assert ascend_nodes(tmp_path / "nowhere") == ()


def test_the_first_cpu_speaks_for_all(tmp_path: Path) -> None:
    machine = Machine.look(root(tmp_path, X86))
    assert machine.cpu_model == "A fine CPU"
    assert machine.cpu_flags == {"fpu", "avx512_bf16", "sse"}
    assert machine.computes_bf16


def test_an_arm_cpu_names_its_part_and_features(tmp_path: Path) -> None:
    machine = Machine.look(root(tmp_path, ARM))
    assert machine.cpu_model == "0xd0c"
    assert "asimd" in machine.cpu_flags
    assert not machine.computes_bf16


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000"}, 16),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 16),
        ({"pods/a/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ({"pods/a/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ({"cpu.max": "nonsense"}, 16),
    ],
)
def test_the_time_that_the_cgroup_allows_counts_as_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], allowed: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    groups = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in (groups | {"proc/self/cgroup": "0::/pods/a"}).items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert usable_cpus(tmp_path) == allowed
    machine = Machine.look(tmp_path)
    assert (machine.cpus, machine.is_limited) == (allowed, allowed < 16)


@pytest.mark.parametrize("chosen", ["/some/python", "python3.7"])
def test_a_python_that_was_chosen_is_taken(chosen: str) -> None:
    assert python_with_lite(chosen) == Path(chosen)


def test_unless_chosen_the_python_is_ours_or_the_one_beside_us() -> None:
    beside = Path(sys.prefix).parent / ".venv-mslite/bin/python"
    assert python_with_lite() in {None, Path(sys.executable), beside}
