import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from service.cli import main

QUICK = ("--arrivals", "400")
TABLE = "310p/se_resnext50"
PER_MS = {"1": 1.0, "4": 2.0}  # a curve that is tuned to quickly; at most 2,000 rows/s


@pytest.fixture
def curve(tmp_path: Path) -> str:
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(PER_MS))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["simulate", *arguments]) == 0
    return capsys.readouterr().out


def fault(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = main(["simulate", *arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    assert code == 2
    return capsys.readouterr().err


def test_each_policy_has_a_line_for_each_rate(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, TABLE, *QUICK, "--rate", "300", "900", "--deadline-ms", "15")
    lines = [line.split()[:2] for line in text.splitlines()[3:] if line and not line.startswith("policy")]
    assert lines == [
        [policy, rate]
        for rate in ("300", "900")
        for policy in ("cardinal", "delay", "bounded", "pad", "full")
    ]
    assert "worth running: 1, 4, 32" in text


def test_without_rates_the_whole_range_is_shown(curve: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, curve, *QUICK, "--against", "--json"))
    rates = [run["rate"] for run in found["runs"]]
    assert len(rates) == 10
    assert rates[-1] == pytest.approx(1.2 * 2000)


def test_json_has_everything_of_a_run(curve: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--rate", "2500", "--deadline-ms", "15", "--against", "delay", "--json", "--seed", "7")
    found = json.loads(said(capsys, curve, *QUICK, *options))
    ours, delay = found["runs"]
    assert (found["curve"], found["devices"], found["arrivals"], found["seed"]) == (curve, 1, 400, 7)
    assert (ours["policy"], delay["policy"]) == ("cardinal", "delay")
    assert ours["answered"] + ours["refused"] + ours["expired"] == 400
    assert ours["p99_ms"] <= 15 < delay["p99_ms"]
    assert ours["goodput"] > delay["goodput"]


@pytest.mark.untraced
def test_capacity_is_the_highest_rate_in_time(curve: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--capacity", "4", "--against", "delay", "--json", "--arrivals", "1500")
    ours, delay = json.loads(said(capsys, curve, *options))["capacities"]
    assert 700 < ours["rate_of_answers"] < 2000
    assert 700 < ours["rate_of_arrivals"] < 2000
    assert delay["rate_of_answers"] < 0.1 * ours["rate_of_answers"]  # it waits for longer than that


def test_capacities_are_printed_below_each_other(curve: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, curve, *QUICK, "--capacity", "5", "50", "--against")
    assert [line.split()[:3] for line in text.splitlines()[-2:]] == [
        ["cardinal", "5", "ms"],
        ["cardinal", "50", "ms"],
    ]
    assert "policy" not in text


def test_a_curve_may_be_a_file_of_milliseconds_or_a_kept_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, kept = tmp_path / "plain.json", tmp_path / "kept.json"
    plain.write_text('{"4": 2, "1": 1}')
    kept.write_text(
        '{"gears": {"1": {"p50_s": 0.001, "p99_s": 0.002}, "4": {"p50_s": 0.002, "p99_s": 0.002}}}'
    )
    runs = [json.loads(said(capsys, str(path), *QUICK, "--rate", "900", "--json")) for path in (plain, kept)]
    assert runs[0]["milliseconds"] == runs[1]["milliseconds"] == {"1": 1.0, "4": 2.0}
    assert runs[0]["runs"] == runs[1]["runs"]


def test_a_trace_brings_its_own_arrivals(
    curve: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time_s,rows,deadline_ms\n5,1,10\n5.5,4,10\n6,64,10\n")
    ours, *_ = json.loads(said(capsys, curve, "--trace", str(path), "--json"))["runs"]
    assert (ours["answered"], ours["refused"], ours["rate"]) == (2, 1, 69)


@pytest.mark.parametrize(
    "options",
    [
        ("--devices", "2"),
        ("--jitter", "0.1"),
        ("--bursts", "3", "0.1"),
        ("--rows", "1", "9", "--callers", "3"),
    ],
)
def test_the_same_command_says_the_same(
    curve: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (curve, *QUICK, "--rate", "1500", *options)
    plain = said(capsys, curve, *QUICK, "--rate", "1500")
    assert said(capsys, *command) == said(capsys, *command) != plain


# The picture


def test_the_picture_is_svg_with_a_line_for_each_policy(
    curve: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plot.svg"
    said(capsys, curve, *QUICK, "--rate", "300", "2500", "--against", "pad", "--plot", str(path))
    root = ET.parse(path).getroot()
    lines = root.findall("{*}polyline")
    assert len(lines) == 4  # two policies in two panels
    assert all(len(line.attrib["points"].split()) == 2 for line in lines)
    assert {"cardinal", "pad"} <= {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}


def test_a_page_holds_the_picture_and_no_name_breaks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, path = tmp_path / "<b>&.json", tmp_path / "plot.html"
    odd.write_text('{"1": 1}')
    said(capsys, str(odd), *QUICK, "--rate", "100", "--against", "--plot", str(path))
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;.json" in text


# What is not allowed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no/such",), "no/such is no table and no file (No such file or directory); the tables are 310/se_"),
        ((TABLE, "--rate", "0"), "--rate: '0' is not allowed; allowed is a number above 0"),
        ((TABLE, "--rate", "many"), "--rate: 'many' is not allowed"),
        ((TABLE, "--rate", "inf"), "--rate: 'inf' is not allowed"),
        ((TABLE, "--arrivals", "0"), "--arrivals: '0' is not allowed; allowed is a whole number from 1"),
        ((TABLE, "--devices", "1.5"), "--devices: '1.5' is not allowed"),
        ((TABLE, "--jitter", "2"), "--jitter: '2' is not allowed; allowed is a number from 0 to 1"),
        ((TABLE, "--deadline-ms", "-1"), "--deadline-ms: '-1' is not allowed"),
        (
            (TABLE, "--bursts", "1", "2"),
            "bursts are 1.0 times the mean rate for 2.0 s; allowed is a peak above 1",
        ),
        ((TABLE, "--against", "nobody"), "invalid choice: 'nobody'"),
        (
            (TABLE, "--plot", "plot.png"),
            "'plot.png' is not allowed; allowed are names that end in .svg or .html",
        ),
        ((TABLE, "--trace", "no.csv"), "no.csv: No such file or directory"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in fault(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no curve; allowed is JSON like"),
        ("[1]", "is no curve"),
        ('{"one": 1}', "is no curve"),
        ('{"1": "fast"}', "is no curve"),
        ('{"gears": {"1": {"p99_s": 1}}}', "is no curve"),
        ("{}", "allowed are gears from 1 and times above 0"),
        ('{"0": 1}', "allowed are gears from 1"),
        ('{"1": -1}', "allowed are gears from 1"),
        ('{"1": NaN}', "allowed are gears from 1"),
    ],
)
def test_a_file_that_is_no_curve_is_refused(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text)
    assert f"{path} " in (said := fault(capsys, str(path)))
    assert sentence in said


def test_a_trace_goes_with_no_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time_s,rows\n0,1\n")
    assert "a trace says itself who comes when" in fault(capsys, TABLE, "--trace", str(path), "--rate", "5")
    path.write_text("time_s,rows\n0,none\n")
    assert "line 2: rows is 'none'" in fault(capsys, TABLE, "--trace", str(path))


def test_a_picture_that_cannot_be_written_is_a_clear_fault(
    curve: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (curve, *QUICK, "--rate", "100", "--against", "--plot", "/no/such/folder/plot.svg")
    assert "/no/such/folder/plot.svg: No such file or directory" in fault(capsys, *arguments)
