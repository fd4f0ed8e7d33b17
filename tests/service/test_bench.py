import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.bench import Comparison, Pace, Turn
from serving import ROOT, UNTRAINED


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_the_boundary_adds_is_the_median_of_the_pairs() -> None:
    comparison = Comparison(
        about="an engine",
        inside_s=[0.001, 0.002, 0.009],
        outside_s=[0.002, 0.005, 0.010],
        engine_s=[0.001, 0.003, 0.008],
    )
    assert comparison.added_p50_s == pytest.approx(0.001)
    lines = str(comparison).splitlines()
    assert lines[0] == "an engine, 3 of each"
    assert [line.split()[-2] for line in lines[2:]] == ["2.000", "5.000", "1.000", "2.000"]


@pytest.mark.parametrize("words", [[], [str(UNTRAINED / "sknet50/1"), "--engine", "openvino"]])
def test_an_engine_is_compared_with_itself_in_one_process(words: list[str]) -> None:
    ran = bench("engine", *words, "--runs", "20")
    assert ran.returncode == 0, ran.stderr
    first, *others = ran.stdout.splitlines()
    about = "openvino .* cpu .*" if words else "simulated at no pace"
    out = 40 if words else 4000
    assert re.fullmatch(rf"{about}, batches of 1: 150528 bytes in, {out} out, 20 of each", first)
    assert [line[:28].strip() for line in others] == [
        "",
        "in this process",
        "in its own",
        "added",
        "on the way to it and back",
    ]


def test_paces_are_compared_over_all_turns() -> None:
    turns = {
        "plain loop": [Turn(images=10, seconds=1.0), Turn(images=10, seconds=4.0)],
        "queue and engine process": [Turn(images=9, seconds=3.0)],
    }
    lines = str(Pace(about="a model", turns=turns)).splitlines()
    assert lines[0] == "a model"
    assert [line.split()[-3:-1] for line in lines[2:4]] == [["4.00", "100.0"], ["3.00", "75.0"]]
    assert lines[4:] == ["onnxruntime is not installed, and left out"]


def test_the_pace_of_another_library_is_told_where_it_was_measured() -> None:
    names = ("plain loop", "queue and engine process", "onnxruntime f32, plain loop")
    turns = {name: [Turn(images=images, seconds=1.0)] for name, images in zip(names, (4, 3, 2), strict=True)}
    lines = str(Pace(about="a model", turns=turns)).splitlines()
    assert lines[-1] == "served at 1.50 times the pace of onnxruntime f32"


def test_queue_and_engine_are_compared_with_a_plain_loop() -> None:
    ran = bench("serve", str(UNTRAINED / "sknet50/1"), "--seconds", "1.6")
    assert ran.returncode == 0, ran.stderr
    about, _, *paces = ran.stdout.splitlines()
    assert re.match(r"sknet50, openvino .*, as many threads as it likes, batches of \d+, 8 turns of ", about)
    for line, name in zip(paces, ["plain loop", "queue and engine process"], strict=False):
        assert line.startswith(name)
        assert float(line[28:38]) > 0


@pytest.mark.parametrize("command", ["engine", "serve"])
def test_a_bundle_that_cannot_be_measured_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "1").mkdir()
    ran = bench(command, str(tmp_path / "1"))
    assert ran.returncode == 2
    assert ran.stderr.startswith("cardinal: model.json: ")
