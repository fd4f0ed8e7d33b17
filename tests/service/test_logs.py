import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from patience import PATIENCE_S
from service.logs import JsonLines, TextLines, fields, request_id

# What ends a line somewhere, moves the cursor or begins a terminal's commands.
CONTROLS = [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0))]
FORGED = "x\n2026-01-01T00:00:00.000+00:00 info    request code=OK"


def _record(
    event: str, values: dict[str, Any] | None = None, error: Exception | None = None
) -> logging.LogRecord:
    trace = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("cardinal.test", logging.WARNING, __file__, 1, event, (), trace)
    record.__dict__ |= fields(**(values or {}))
    return record


def _json(record: logging.LogRecord) -> dict[str, Any]:
    return dict(json.loads(JsonLines().format(record)))


def _with_request_id(identity: str, work: Callable[[], str]) -> str:
    def run() -> str:
        request_id.set(identity)
        return work()

    return copy_context().run(run)


def _raised(sentence: str) -> Exception:
    try:
        raise ValueError(sentence)
    except ValueError as error:
        return error


# JSON


def test_a_json_line_has_time_level_logger_event_and_fields() -> None:
    record = _record("request", {"rows": 3, "model": "cats", "seconds": 0.5, "error": ""})
    line = _json(record)
    time = datetime.fromisoformat(line.pop("time"))
    assert time.tzinfo == UTC
    assert abs(time.timestamp() - record.created) < 0.001
    assert line == {
        "level": "warning",
        "logger": "cardinal.test",
        "event": "request",
        "rows": 3,
        "model": "cats",
        "seconds": 0.5,
        "error": "",
    }


@pytest.mark.parametrize("control", [*CONTROLS, "\u2028", "\u2029"], ids=ascii)
def test_a_control_character_does_not_end_a_json_line(control: str) -> None:
    text = f"a{control}b"
    line = JsonLines().format(_record(text, {"value": text}))
    assert line.splitlines() == [line]
    assert (json.loads(line)["event"], json.loads(line)["value"]) == (text, text)


def test_a_json_line_is_plain_ascii_whatever_the_value() -> None:
    line = JsonLines().format(_record("event", {"value": "тест \ud800 \u202e 😀"}))
    assert line.isascii()
    assert json.loads(line)["value"] == "тест \ud800 \u202e 😀"


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    assert _json(_record("event", {"path": Path("/models"), "error": ValueError("why")})) | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "cardinal.test",
        "event": "event",
        "path": "/models",
        "error": "why",
    }


def test_a_record_without_fields_is_a_line_too() -> None:
    record = logging.LogRecord("uvicorn", logging.INFO, __file__, 1, "%s of %d", ("one", 2), None)
    assert _json(record)["event"] == "one of 2"
    assert TextLines().format(record).endswith("info    one of 2")


def test_the_request_id_is_in_each_json_line_of_its_request_and_in_no_other() -> None:
    line = _with_request_id("abc-1", lambda: JsonLines().format(_record("event")))
    assert json.loads(line)["request_id"] == "abc-1"
    assert "request_id" not in _json(_record("event"))


def test_the_trace_stays_within_its_json_line() -> None:
    line = JsonLines().format(_record("event", error=_raised(FORGED)))
    assert line.splitlines() == [line]
    trace = json.loads(line)["trace"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("ValueError: " + FORGED)


# Text


def test_a_text_line_has_time_level_event_and_the_fields_that_say_something() -> None:
    line = TextLines().format(_record("request", {"rows": 0, "error": "", "model": "cats"}))
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning request rows=0 model=cats", line)


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_a_control_character_is_escaped_in_a_text_line(control: str) -> None:
    escaped = f"a\\x{ord(control):02x}b"
    line = TextLines().format(_record(f"a{control}b", {"value": f"a{control}b"}))
    assert line.endswith(f" {escaped} value={escaped}")
    assert line.splitlines() == [line]


def test_other_alphabets_stay_readable_in_a_text_line() -> None:
    assert TextLines().format(_record("event", {"model": "кот 猫"})).endswith("event model=кот 猫")


def test_the_trace_follows_its_text_line() -> None:
    first, *trace = TextLines().format(_record("event", {"rows": 1}, _raised("why"))).splitlines()
    assert first.endswith("event rows=1")
    assert trace[0].strip() == "Traceback (most recent call last):"
    assert trace[-1].strip() == "ValueError: why"


def test_the_sentence_of_an_error_cannot_forge_a_text_line() -> None:
    _, *trace = TextLines().format(_record("event", error=_raised(FORGED + "\x1b[2J\r"))).split("\n")
    assert all(line.startswith(" ") for line in trace)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "\n".join(trace))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029"], ids=ascii)
def test_a_line_separator_is_escaped_in_a_text_line(separator: str) -> None:
    line = TextLines().format(_record("event", {"value": f"a{separator}b"}))
    assert line.splitlines() == [line]


def test_the_request_id_is_in_each_text_line_of_its_request() -> None:
    assert "abc-1" in _with_request_id("abc-1", lambda: TextLines().format(_record("event")))


# Set up, in a process of its own because it is the whole process that is set up

SCRIPT = """
import logging, warnings
from service.logs import fields, set_up
set_up({style!r}, {level!r})
logging.getLogger("cardinal.test").debug("low")
logging.getLogger("cardinal.test").info("event", extra=fields(rows=3))
logging.getLogger("uvicorn.error").info("started")
logging.getLogger("uvicorn.error").warning("odd")
warnings.warn("old", stacklevel=1)
set_up({style!r}, {level!r})
logging.getLogger("cardinal.test").error("last")
"""


def _lines(style: str, level: str, stderr: int) -> list[str]:
    """Return what a process logs, to a pipe or to the terminal that is given."""
    command = [sys.executable, "-c", SCRIPT.format(style=style, level=level)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=True, timeout=PATIENCE_S)
    assert done.stdout == b""
    return [] if done.stderr is None else done.stderr.decode().splitlines()


@pytest.mark.parametrize("style", ["auto", "json"])
def test_lines_are_json_where_no_terminal_is(style: str) -> None:
    lines = [json.loads(line) for line in _lines(style, "info", subprocess.PIPE)]
    events = [(line["logger"], line["event"]) for line in lines]
    assert events[:2] == [("cardinal.test", "event"), ("uvicorn.error", "odd")]
    assert events[2][0] == "py.warnings"
    assert "UserWarning: old" in events[2][1]
    assert events[3:] == [("cardinal.test", "last")]
    assert lines[0]["rows"] == 3


def test_lines_are_text_where_it_is_asked_for() -> None:
    assert _lines("text", "error", subprocess.PIPE)[0].endswith(" error   last")


def test_lines_are_text_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        _lines("auto", "error", theirs)
        assert os.read(ours, 1000).decode().rstrip().endswith(" error   last")
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_level_is_the_least_severe_that_is_written() -> None:
    events = [json.loads(line)["event"] for line in _lines("json", "debug", subprocess.PIPE)]
    assert events[:2] == ["low", "event"]
    assert "started" not in events
    assert len(_lines("json", "error", subprocess.PIPE)) == 1
