import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.cli import main
from service.doctor import Probe, examine

GIB = 1024**3
HELPERS = ("davinci_manager", "devmm_svm", "hisi_hdc")


@pytest.fixture
def bare(tmp_path: Path) -> Probe:
    """Look at a machine with a CPU, memory, and nothing else; a Python 3.7 is not there either."""
    write(tmp_path / "proc/cpuinfo", "model name : A fine CPU\nflags : fpu avx2 avx512f\n")
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    (tmp_path / "dev").mkdir()
    return Probe(root=tmp_path, environment={}, open_files=65536, cpus=3, lite_python=None, state=None)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def python(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def line(report: str, name: str) -> str:
    """Find a line, as `mark text`."""
    (found,) = re.findall(rf"^  (.{{4}}){re.escape(name):16}(.*)$", report, re.MULTILINE)
    return " ".join(part.strip() for part in found).strip()


def with_npus(probe: Probe, *, driver: str = "Version=23.0.0\n") -> Probe:
    for node in ("davinci0", "davinci1", *HELPERS):
        (probe.root / "dev" / node).touch()
    write(probe.root / "usr/local/Ascend/driver/version.info", driver)
    write(probe.root / "usr/local/Ascend/ascend-toolkit/latest/compiler/version.info", "Version=[8.0.RC1]\n")
    return replace(probe, lite_python=python(probe.root, "echo 2.4.1 3.10"))


def test_a_machine_without_npu_and_python_3_7_is_told_what_it_can_and_why_not_in_one_screen(
    bare: Probe,
) -> None:
    report = examine(bare)
    assert line(report, "openvino").startswith("yes 20")
    assert line(report, "openvino").endswith(" on the CPU, f32; this CPU does not compute bf16")
    assert line(report, "mindspore_lite").startswith("no no Python here has it. The wheel on PyPI is 2.0.0")
    assert "CARDINAL_MINDSPORE_LITE_PYTHON" in report
    assert line(report, "Ascend NPU") == (
        "no missing: device nodes /dev/davinci0 and so on, the driver (/usr/local/Ascend/driver), "
        "CANN (source its set_env.sh), mindspore_lite"
    )
    assert line(report, "simulated").startswith("yes")
    assert line(report, "CPU") == "A fine CPU: 3 usable, avx2 avx512f"
    assert line(report, "memory") == "yes 8.0 GiB usable"
    assert line(report, "open files") == "yes 65536 allowed"
    assert line(report, "state folder") == "none: models are compiled at each start"
    assert [line(report, name) for name in ("NPU nodes", "NPU driver", "CANN")] == ["none"] * 3
    assert len(report.splitlines()) <= 24


def test_a_machine_that_shows_nothing_at_all_is_survived(tmp_path: Path) -> None:
    report = examine(Probe(root=tmp_path, environment={}, open_files=1, cpus=1, lite_python=None, state=None))
    assert line(report, "CPU") == "unknown: 1 usable, no known vector extensions"


def test_a_machine_with_all_that_npus_need_can_use_them(bare: Probe) -> None:
    report = examine(with_npus(bare))
    assert line(report, "Ascend NPU") == "yes 2 devices, by mindspore_lite"
    assert line(report, "mindspore_lite").startswith("yes 2.4.1 on the CPU, in ")
    assert line(report, "mindspore_lite").endswith("(Python 3.10)")
    assert line(report, "NPU nodes") == "davinci0, davinci1"
    assert line(report, "NPU driver") == "23.0.0"
    assert line(report, "CANN") == "8.0.RC1"


@pytest.mark.parametrize(
    ("lost", "missing"),
    [
        ("dev/davinci_manager", "/dev/davinci_manager"),
        ("usr/local/Ascend/driver/version.info", "the driver (/usr/local/Ascend/driver)"),
        ("python", "mindspore_lite"),
    ],
)
def test_whatever_is_missing_for_npus_is_named(bare: Probe, lost: str, missing: str) -> None:
    probe = with_npus(bare)
    (probe.root / lost).unlink()
    assert line(examine(probe), "Ascend NPU") == f"no missing: {missing}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every node")
def test_nodes_that_may_not_be_opened_are_named_with_the_group(bare: Probe) -> None:
    probe = with_npus(bare)
    (probe.root / "dev/davinci1").chmod(0)
    said = line(examine(probe), "Ascend NPU")
    assert said == "no missing: the right to use davinci1 (the group is usually HwHiAiUser)"


def test_cann_is_found_where_the_environment_says(bare: Probe) -> None:
    write(bare.root / "opt/cann/version.info", "version = 7.0\n")
    named = replace(bare, environment={"ASCEND_HOME_PATH": "/opt/cann"})
    assert line(examine(named), "CANN") == "7.0"
    missing = replace(bare, environment={"ASCEND_HOME_PATH": "/opt/nothing"})
    assert line(examine(missing), "CANN") == "none"
    (bare.root / "opt/cann/version.info").unlink()
    assert line(examine(named), "CANN").startswith("of unknown version in ")


def test_a_python_that_cannot_import_the_library_is_told_with_its_words(bare: Probe) -> None:
    broken = replace(
        bare, lite_python=python(bare.root, "echo oops; echo 'ImportError: libgomp.so.1' >&2; exit 1")
    )
    assert line(examine(broken), "mindspore_lite").endswith(
        "/python cannot import it: ImportError: libgomp.so.1"
    )
    silent = replace(bare, lite_python=python(bare.root, "exit 3"))
    assert line(examine(silent), "mindspore_lite").endswith("cannot import it: exit code 3")
    absent = replace(bare, lite_python=bare.root / "nowhere")
    assert "does not run: " in line(examine(absent), "mindspore_lite")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"memory.max": 3 * GIB, "memory.current": GIB // 2},
            "yes 2.5 GiB usable; the cgroup allows 3.0 GiB and has 0.5 in use",
        ),
        (
            {"pods/a/memory.max": 4 * GIB, "memory.max": GIB},
            "yes 4.0 GiB usable; the cgroup allows 4.0 GiB and has 0.0 in use",
        ),
        ({"memory.max": "max"}, "yes 8.0 GiB usable"),
        ({"memory/memory.limit_in_bytes": 2**63 - 4096}, "yes 8.0 GiB usable"),
        (
            {"memory/memory.limit_in_bytes": GIB, "memory/memory.usage_in_bytes": 0},
            "no 1.0 GiB usable; the cgroup allows 1.0 GiB and has 0.0 in use; large networks may not load",
        ),
    ],
)
def test_the_limit_of_the_cgroup_counts(bare: Probe, files: dict[str, object], said: str) -> None:
    write(bare.root / "proc/self/cgroup", "0::/pods/a\n")
    for name, value in files.items():
        write(bare.root / "sys/fs/cgroup" / name, f"{value}\n")
    assert line(examine(bare), "memory") == said


def test_the_time_that_the_cgroup_allows_is_told_beside_the_cpus(bare: Probe) -> None:
    write(bare.root / "sys/fs/cgroup/cpu.max", "250000 100000\n")
    assert (
        line(examine(bare), "CPU") == "A fine CPU: 3 usable (the cgroup allows the time of 2.5), avx2 avx512f"
    )


def test_few_open_files_are_told_with_what_would_do(bare: Probe) -> None:
    said = line(examine(replace(bare, open_files=1024)), "open files")
    assert said == "no 1024 allowed; for many clients raise it to 4096 (ulimit -n)"


def test_the_state_folder_need_not_be_there_yet(bare: Probe) -> None:
    state = bare.root / "cache/cardinal"
    assert line(examine(replace(bare, state=state)), "state folder") == f"yes {state}"
    blocked = bare.root / "proc/cpuinfo/cardinal"  # that is no directory
    said = line(examine(replace(bare, state=blocked)), "state folder")
    assert said == f"no {blocked} cannot be written: models are compiled at each start"


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert line(capsys.readouterr().out, "simulated").startswith("yes")
