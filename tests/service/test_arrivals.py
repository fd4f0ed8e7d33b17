import math
from itertools import pairwise
from pathlib import Path

import pytest

from service.batching.arrivals import Arrival, Bursts, Traffic, read_trace


def test_the_same_seed_brings_the_same_arrivals() -> None:
    traffic = Traffic(rate=100, rows=(1, 5), callers=3, priorities=(0, 1), leaving=0.5, deadline_s=(0.1, 0.2))
    assert [*traffic.arrivals(200, seed=1)] == [*traffic.arrivals(200, seed=1)]
    assert [*traffic.arrivals(200, seed=1)] != [*traffic.arrivals(200, seed=2)]


@pytest.mark.parametrize("bursts", [None, Bursts(peak=4, length_s=0.05)])
def test_the_rate_is_that_of_rows_over_a_long_time(bursts: Bursts | None) -> None:
    arrivals = [*Traffic(rate=1000, rows=(1, 3), bursts=bursts).arrivals(50_000, seed=5)]
    rows = sum(arrival.rows for arrival in arrivals)
    assert rows / arrivals[-1].time_s == pytest.approx(1000, rel=0.05)
    assert all(one.time_s < other.time_s for one, other in pairwise(arrivals))


def test_bursts_have_silence_between_them() -> None:
    def busiest(bursts: Bursts | None) -> int:
        times = [arrival.time_s for arrival in Traffic(rate=100, bursts=bursts).arrivals(5000, seed=1)]
        return max(sum(start <= time < start + 1 for time in times) for start in range(int(times[-1])))

    assert busiest(Bursts(peak=5, length_s=1)) > 2 * busiest(None)


@pytest.mark.parametrize(
    ("peak", "length_s"), [(1, 1), (0, 1), (math.inf, 1), (math.nan, 1), (2, 0), (2, -1)]
)
def test_bursts_that_are_none_are_refused_with_their_values(peak: float, length_s: float) -> None:
    with pytest.raises(ValueError, match=f"{peak} times the mean rate for {length_s} s; allowed is"):
        Bursts(peak=peak, length_s=length_s)


def test_some_callers_leave_and_all_kinds_come() -> None:
    traffic = Traffic(rate=10, rows=(1, 2), callers=2, priorities=(0, 1), leaving=0.3, deadline_s=(1, 2))
    arrivals = [*traffic.arrivals(2000, seed=3)]
    assert {arrival.rows for arrival in arrivals} == {1, 2}
    assert {arrival.priority for arrival in arrivals} == {0, 1}
    assert {arrival.deadline_s for arrival in arrivals} == {1, 2}
    assert len({arrival.caller for arrival in arrivals}) == 2
    assert sum(arrival.leaves_s < math.inf for arrival in arrivals) / 2000 == pytest.approx(0.3, abs=0.05)


# Recorded arrivals


def _trace(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_trace_begins_at_its_first_arrival_whatever_its_clock(tmp_path: Path) -> None:
    text = "time_s,rows,deadline_ms,caller\n1700000000.5,2,15,anna\n1700000000.25,1,,\n"
    assert read_trace(_trace(tmp_path, text)) == [
        Arrival(0.0, 1),
        Arrival(0.25, 2, deadline_s=0.015, caller="anna"),
    ]


def test_columns_may_stand_in_any_order_and_lines_be_empty(tmp_path: Path) -> None:
    assert read_trace(_trace(tmp_path, "rows, time_s\r\n3, 1.5\r\n\r\n")) == [Arrival(0.0, 3)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1 is ''; it must name the columns time_s and rows"),
        ("0.1,1\n", "line 1 is '0.1,1'"),
        ("time_s\n1\n", "line 1 is 'time_s'"),
        ("time_s,rows,rows\n", "line 1 is"),
        ("time_s,rows,colour\n", "line 1 is"),
        ("time_s,rows\n", "there is no arrival in it"),
        ("time_s,rows\n0,1\nsoon,1\n", "line 3: time_s is 'soon'; allowed is a number from 0"),
        ("time_s,rows\nnan,1\n", "line 2: time_s is 'nan'"),
        ("time_s,rows\n-1,1\n", "line 2: time_s is '-1'"),
        ("time_s,rows\n1\n", "line 2: rows is ''; allowed is a whole number from 1"),
        ("time_s,rows\n1,0\n", "line 2: rows is '0'"),
        ("time_s,rows\n1,1.5\n", "line 2: rows is '1.5'"),
        ("time_s,rows,deadline_ms\n1,1,late\n", "line 2: deadline_ms is 'late'"),
        (b"time_s,rows\n\xff,1\n", "is not CSV in UTF-8"),
    ],
)
def test_a_fault_in_a_trace_is_named_with_its_line(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the sentence is compared below
        read_trace(_trace(tmp_path, text))
    assert fault in str(error.value)
