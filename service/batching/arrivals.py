"""Who comes when: a seed or a recorded file -> arrivals, for the simulator."""

import csv
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_COLUMNS = ("time_s", "rows", "deadline_ms", "caller")
_NEEDED = 2  # of them


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, and how long its caller waits for it."""

    time_s: float
    rows: int = 1
    deadline_s: float = math.inf  # after its arrival
    caller: str = ""
    priority: int = 0
    leaves_s: float = math.inf  # after its arrival; who has no answer by then is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Traffic that comes in bursts with silence between them, both of random length."""

    peak: float  # rate within a burst, in terms of the mean rate
    length_s: float  # mean length of a burst

    def __post_init__(self) -> None:
        if not 1 < self.peak < math.inf or not 0 < self.length_s < math.inf:
            raise ValueError(
                f"bursts are {self.peak} times the mean rate for {self.length_s} s;"
                " allowed is a peak above 1 and a length above 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What random arrivals are like. Of several values each is as likely as the others."""

    rate: float  # rows a second
    deadline_s: Sequence[float] = (math.inf,)
    rows: Sequence[int] = (1,)
    callers: int = 1
    priorities: Sequence[int] = (0,)
    leaving: float = 0.0  # share of those that may leave
    patience_s: float = 0.01  # how long they wait on average
    bursts: Bursts | None = None

    def arrivals(self, count: int, seed: int) -> Iterator[Arrival]:
        """Draw the first arrivals: the same ones for the same seed."""
        draw = random.Random(seed)  # noqa: S311 - no secret
        requests_rate = self.rate * len(self.rows) / sum(self.rows)
        times = poisson_times(requests_rate, draw)
        if self.bursts:
            times = _in_bursts(poisson_times(requests_rate * self.bursts.peak, draw), self.bursts, draw)
        if self._is_plain:
            return (Arrival(time_s, self.rows[0], self.deadline_s[0]) for time_s in islice(times, count))
        return (self._arrival(time_s, draw) for time_s in islice(times, count))

    @property
    def _is_plain(self) -> bool:
        """Tell whether nothing but the time is random, which most simulations want quickly."""
        return (
            self.callers == 1
            and not self.leaving
            and len({*self.rows}) == len({*self.deadline_s}) == 1
            and (tuple(self.priorities) == (0,))
        )

    def _arrival(self, time_s: float, draw: random.Random) -> Arrival:
        return Arrival(
            time_s,
            rows=draw.choice(self.rows),
            deadline_s=draw.choice(self.deadline_s),
            caller=f"caller {draw.randrange(self.callers)}" if self.callers > 1 else "",
            priority=draw.choice(self.priorities),
            leaves_s=draw.expovariate(1 / self.patience_s) if draw.random() < self.leaving else math.inf,
        )


def poisson_times(rate: float, draw: random.Random) -> Iterator[float]:
    """Tell when arrivals come that know nothing of each other, without end."""
    time_s = 0.0
    while True:
        time_s += draw.expovariate(rate)
        yield time_s


def _in_bursts(times: Iterable[float], bursts: Bursts, draw: random.Random) -> Iterator[float]:
    """Push silences between stretches of the arrivals."""
    silence_s = bursts.length_s * (bursts.peak - 1)
    silent_s, burst_ends = 0.0, draw.expovariate(1 / bursts.length_s)
    for time_s in times:
        while time_s > burst_ends:
            silent_s += draw.expovariate(1 / silence_s)
            burst_ends += draw.expovariate(1 / bursts.length_s)
        yield time_s + silent_s


def read_trace(path: Path) -> list[Arrival]:
    """Read recorded arrivals, a CSV file with the columns time_s, rows and, if known, deadline_ms and caller.

    Raises:
        ValueError: the file is none; the message names line, value and what is allowed.
        OSError: it cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        try:
            header = [name.strip() for name in next(lines, [])]
            _check_header(header)
            arrivals = [
                _parsed(dict(zip(header, line, strict=False)), lines.line_num) for line in lines if line
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"line {lines.line_num + 1} is not CSV in UTF-8: {error}") from error
    return _from_zero(arrivals)


def _check_header(header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [name for name in _COLUMNS[:_NEEDED] if name not in header]
    if unknown or missing or len({*header}) < len(header):
        raise ValueError(
            f"line 1 is {','.join(header)!r}; it must name the columns time_s and rows, and may name deadline_ms"
            " and caller"
        )


def _parsed(fields: dict[str, str], line: int) -> Arrival:
    deadline_ms = fields.get("deadline_ms", "").strip()
    return Arrival(
        _number(fields, "time_s", line),
        rows=_rows(fields, line),
        deadline_s=_number(fields, "deadline_ms", line) / 1000 if deadline_ms else math.inf,
        caller=fields.get("caller", "").strip(),
    )


def _number(fields: dict[str, str], name: str, line: int) -> float:
    text = fields.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"line {line}: {name} is {text!r}; allowed is a number from 0")
    return value


def _rows(fields: dict[str, str], line: int) -> int:
    text = fields.get("rows", "").strip()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"line {line}: rows is {text!r}; allowed is a whole number from 1")
    return int(text)


def _from_zero(arrivals: list[Arrival]) -> list[Arrival]:
    """Let time begin with the first arrival; recordings often count from 1970."""
    if not arrivals:
        raise ValueError("there is no arrival in it; it needs one at least")
    begin_s = min(arrival.time_s for arrival in arrivals)
    moved = (Arrival(each.time_s - begin_s, each.rows, each.deadline_s, each.caller) for each in arrivals)
    return sorted(moved, key=lambda arrival: arrival.time_s)
