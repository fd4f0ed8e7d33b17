import asyncio
import contextvars
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import (
    ClientGone,
    DeadlineExceeded,
    InternalError,
    InvalidImage,
    ModelNotFound,
    Overloaded,
    ServiceError,
)
from service.journal import Door, Entry, Journal, choose_id
from service.logs import request_id
from service.metrics import Metrics

pytestmark = pytest.mark.anyio

SECRET = "password=hunter2 of /home/someone"


@pytest.fixture
def journal() -> Journal:
    return Journal(Metrics(), max_requests=2)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "cardinal.request")
    return caplog


@pytest.fixture(autouse=True)
def _own_request_id() -> Iterator[None]:
    token = request_id.set("")
    yield
    request_id.reset(token)


def _lines(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record)["fields"] for record in log.records if record.getMessage() == "request"]


def _samples(journal: Journal, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metric by their labels, as they are scraped."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in journal.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == name
    }


def _run(journal: Journal, error: BaseException | None = None, *, door: Door = "rest") -> None:
    with journal.entry(door, None):
        if error:
            raise error


async def test_an_answered_request_is_counted_timed_and_logged_once(
    journal: Journal, log: pytest.LogCaptureFixture
) -> None:
    with journal.entry("grpc", "abc") as entry:
        entry.model, entry.version, entry.images = "cats", "3", 2
    assert _samples(journal, "cardinal_requests_total") == {("cats", "3", "grpc", "OK"): 1}
    assert _samples(journal, "cardinal_request_seconds_count") == {("cats", "3", "grpc"): 1}
    (line,) = _lines(log)
    seconds = line.pop("seconds")
    assert 0 <= seconds < 60
    assert _samples(journal, "cardinal_request_seconds_sum") == {
        ("cats", "3", "grpc"): pytest.approx(seconds, abs=1e-6)
    }
    assert line == {"door": "grpc", "code": "OK", "model": "cats", "version": "3", "images": 2, "error": ""}


@pytest.mark.parametrize(
    "error", [InvalidImage("bad"), ModelNotFound("none"), DeadlineExceeded("late"), ClientGone("gone")]
)
async def test_a_known_error_passes_as_it_is_and_is_logged_with_its_code_and_sentence(
    journal: Journal, log: pytest.LogCaptureFixture, error: ServiceError
) -> None:
    with pytest.raises(ServiceError) as raised:
        _run(journal, error)
    assert raised.value is error
    (line,) = _lines(log)
    assert (line["code"], line["error"]) == (error.code, str(error))
    assert _samples(journal, "cardinal_requests_total") == {("", "", "rest", error.code): 1}
    assert [record.levelname for record in log.records] == ["INFO"]


@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, MemoryError, ZeroDivisionError])
async def test_an_unforeseen_error_becomes_an_internal_one_that_leaks_nothing_of_it(
    journal: Journal, log: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    error = kind(SECRET)
    with pytest.raises(InternalError) as raised, journal.entry("rest", "id-7"):
        raise error
    assert str(raised.value) == "an unforeseen error; the log has it under request id id-7"
    assert raised.value.__cause__ is error
    (line,) = _lines(log)
    assert line["code"] == "INTERNAL"
    assert SECRET not in str(line)


async def test_an_unforeseen_error_is_logged_with_its_trace_once(
    journal: Journal, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InternalError):
        _run(journal, ValueError(SECRET))
    (record,) = [record for record in log.records if record.exc_info]
    assert (record.levelname, record.getMessage()) == ("ERROR", "unforeseen_error")
    assert record.exc_info
    assert str(record.exc_info[1]) == SECRET


async def test_an_unforeseen_group_of_errors_becomes_an_internal_one(journal: Journal) -> None:
    with pytest.raises(InternalError):
        _run(journal, ExceptionGroup("several", [ValueError(SECRET)]))
    assert journal.in_progress["rest"] == 0


async def test_a_cancelled_request_is_counted_and_stays_cancelled(
    journal: Journal, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(asyncio.CancelledError):
        _run(journal, asyncio.CancelledError())
    assert [line["code"] for line in _lines(log)] == ["CANCELLED"]
    assert _samples(journal, "cardinal_requests_total") == {("", "", "rest", "CANCELLED"): 1}
    assert journal.in_progress["rest"] == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_the_end_of_the_process_is_no_request_error(
    journal: Journal, kind: type[BaseException]
) -> None:
    with pytest.raises(kind):
        _run(journal, kind())
    assert journal.in_progress["rest"] == 0


async def test_a_request_above_the_limit_is_refused_counted_and_logged(
    journal: Journal, log: pytest.LogCaptureFixture
) -> None:
    with journal.entry("rest", None), journal.entry("rest", None):
        with pytest.raises(Overloaded, match="2 requests are in progress; no more are taken") as refusal:
            _run(journal)
        assert journal.in_progress["rest"] == 2
    assert refusal.value.retry_after_s
    assert [line["code"] for line in _lines(log)] == ["OVERLOADED", "OK", "OK"]
    assert _samples(journal, "cardinal_requests_total") == {
        ("", "", "rest", "OVERLOADED"): 1,
        ("", "", "rest", "OK"): 2,
    }


async def test_the_place_of_a_finished_request_is_free_again(journal: Journal) -> None:
    for error in (None, InvalidImage("bad"), ValueError("bug"), asyncio.CancelledError()) * 3:
        try:
            _run(journal, error)
        except (ServiceError, asyncio.CancelledError):
            continue
    assert journal.in_progress == {"rest": 0, "grpc": 0}


async def test_each_door_has_a_limit_of_its_own(journal: Journal) -> None:
    with journal.entry("rest", None), journal.entry("rest", None):
        _run(journal, door="grpc")
        with pytest.raises(Overloaded):
            _run(journal, door="rest")


async def test_the_requests_in_progress_are_shown(journal: Journal) -> None:
    with journal.entry("rest", None):
        with journal.entry("rest", None), journal.entry("grpc", None):
            assert _samples(journal, "cardinal_requests_in_progress") == {("rest",): 2, ("grpc",): 1}
        assert _samples(journal, "cardinal_requests_in_progress") == {("rest",): 1, ("grpc",): 0}
    assert journal.in_progress == {"rest": 0, "grpc": 0}


async def test_labels_stay_bounded_whatever_ids_callers_choose(journal: Journal) -> None:
    for number in range(50):
        try:
            with journal.entry("rest", f"id-{number}"):
                raise ModelNotFound(f"no model {number}")
        except ModelNotFound:
            continue
    assert _samples(journal, "cardinal_requests_total") == {("", "", "rest", "MODEL_NOT_FOUND"): 50}
    assert len(_samples(journal, "cardinal_request_seconds_count")) == 1


@pytest.mark.parametrize(
    "proposed", ["a", "0" * 128, "trace-1.2_3:4/5+6=7", "550e8400-e29b-41d4-a716-446655440000"]
)
async def test_a_harmless_request_id_of_the_caller_is_kept(journal: Journal, proposed: str) -> None:
    assert choose_id(proposed) == proposed
    assert journal.entry("rest", proposed).id == proposed


@pytest.mark.parametrize(
    "proposed", [None, "", "0" * 129, "a b", "a\n", "a\r\nb", "\x1b[2J", "a\0", "кот", "a;b", '"']
)
async def test_any_other_request_id_is_replaced_by_a_new_one(proposed: str | None) -> None:
    first, second = choose_id(proposed), choose_id(proposed)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


async def test_the_request_id_is_set_for_all_that_the_request_logs(journal: Journal) -> None:
    def request() -> tuple[Entry, str]:
        entry = journal.entry("rest", "abc")
        return entry, request_id.get()

    entry, seen = contextvars.copy_context().run(request)
    assert entry.id == seen == "abc"
    assert request_id.get() == ""
