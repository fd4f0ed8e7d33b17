import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.bench import Comparison
from serving import DEMO, ROOT


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "bench", "engine", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_the_boundary_adds_is_the_median_of_the_pairs() -> None:
    comparison = Comparison(
        about="an engine", inside_s=[0.001, 0.002, 0.009], outside_s=[0.002, 0.005, 0.010]
    )
    assert comparison.added_p50_s == pytest.approx(0.001)
    lines = str(comparison).splitlines()
    assert lines[0] == "an engine, batches of 1, 3 pairs"
    assert [line.split()[-2] for line in lines[2:]] == ["2.000", "5.000", "1.000"]


@pytest.mark.parametrize("engine", ["simulated", "openvino"])
def test_an_engine_is_compared_with_itself_in_one_process(engine: str) -> None:
    ran = bench(str(DEMO / "sknet50/1"), "--engine", engine, "--runs", "5")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(rf"{engine} .*, batches of 1, 5 pairs", ran.stdout.splitlines()[0])
    assert len(ran.stdout.splitlines()) == 5


def test_a_bundle_that_cannot_be_compared_is_told(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    ran = bench(str(tmp_path / "1"))
    assert ran.returncode == 2
    assert ran.stderr.startswith("cardinal: model.json: ")
