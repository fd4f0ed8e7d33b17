"""Writes log lines: an event and its fields, as JSON for machines or as text for a terminal."""

import json
import logging
import sys
import textwrap
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

request_id: ContextVar[str] = ContextVar("request_id", default="")

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029)}
_CONTROL_OF_TRACE = {code: text for code, text in _CONTROL.items() if code != ord("\n")}


def set_up(style: Literal["auto", "text", "json"], level: str) -> None:
    """Send all log lines of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines() if as_text else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(
        max(logging.WARNING, root.level)
    )  # server.py tells of start and stop
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each malformed form
    logging.captureWarnings(True)


def fields(**values: object) -> dict[str, Any]:
    """Give a log call its fields: `log.info("event", extra=fields(rows=3))`."""
    return {"fields": values}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; control characters are escaped by JSON itself."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if identity := request_id.get():
            line["request_id"] = identity
        line |= _fields_of(record)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One line for a person; values of callers cannot forge a second one."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record as `time level event key=value ...`."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        words = [time, f"{record.levelname.lower():7}", record.getMessage()]
        if identity := request_id.get():
            words.append(f"request_id={identity}")
        words += [f"{key}={value}" for key, value in _fields_of(record).items() if value != ""]
        line = " ".join(words).translate(_CONTROL)
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info).translate(_CONTROL_OF_TRACE)
        return line + "\n" + textwrap.indent(trace, "  ", lambda _: True)


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    values: Mapping[str, Any] = getattr(record, "fields", {})
    return values
