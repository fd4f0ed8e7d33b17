"""Which promises pay where a deadline is near the time of a batch, on a curve that is a straight line."""

from itertools import islice
from random import Random

import pytest

from service.batching.arrivals import Arrival, poisson_times
from service.batching.line import Ticket
from service.batching.modes import tune
from service.batching.scheduler import Batch, Bounds, Demanded, Scheduler, Tunings
from service.batching.simulator import Pace, Scheduled, simulate
from service.batching.trial import trial
from service.batching.tuning import Tuning
from service.engines import Curve

TIMES_S = {gear: 0.001 + 0.0003 * gear for gear in (1, 2, 4)}
LINE = Curve.exact(TIMES_S)
DEADLINE_S = 2 * LINE.usual_s(1)


def quiet() -> Tuning:
    """Tune for so few rows a second that nearly all can be in time."""
    return tune(LINE, rate=150, deadline_s=DEADLINE_S)


def busy() -> tuple[Scheduler, Batch]:
    """Have the device run one row since this moment, 0."""
    scheduler = Scheduler(Bounds(max_rows=100, max_device_s=1.0), devices=1, now=0.0)
    scheduler.devices[0].curve = LINE
    scheduler.use(Demanded(curve=LINE, rate=150, deadline_s=DEADLINE_S), quiet())
    assert comes(scheduler, 0.0)
    batch = scheduler.next_batch(0.0)
    assert isinstance(batch, Batch)
    return scheduler, batch


def comes(scheduler: Scheduler, now: float) -> bool:
    ticket = Ticket(rows=1, arrived=now, deadline=now + DEADLINE_S)
    refusal = scheduler.refusal(ticket, now)
    if refusal is None:
        scheduler.admit(ticket)
    else:
        assert 0 < refusal.retry_after_s < 1
    return refusal is None


def test_a_row_that_no_batch_of_its_own_could_bring_in_time_joins_the_one_that_is_being_formed() -> None:
    assert quiet().has_joining
    scheduler, batch = busy()
    assert comes(scheduler, 0.0005)
    assert comes(scheduler, 0.0005)
    scheduler.finished(batch)
    both = scheduler.next_batch(0.0013)
    assert isinstance(both, Batch)
    assert (both.gear, both.rows) == (2, 2)
    assert both.slowly_until <= 0.0005 + DEADLINE_S


def test_who_does_not_fit_into_a_batch_that_all_are_promised_is_refused() -> None:
    scheduler, batch = busy()
    assert comes(scheduler, 0.0005)
    assert comes(scheduler, 0.0005)
    assert not comes(scheduler, 0.0012)  # three rows would take 2.2 ms, which the others do not have
    scheduler.finished(batch)
    assert isinstance(scheduler.next_batch(0.0013), Batch)
    assert comes(scheduler, 0.0017)


def test_a_promise_without_a_moment_to_spare_is_kept() -> None:
    scheduler, batch = busy()
    first = Ticket(rows=1, arrived=0.0, deadline=0.0013 + LINE.usual_s(1))
    second = Ticket(rows=1, arrived=0.0, deadline=0.0013 + 2 * LINE.usual_s(1))
    for ticket in (first, second):
        scheduler.admit(ticket)
    scheduler.finished(batch)
    alone = scheduler.next_batch(0.0013)
    assert isinstance(alone, Batch)
    assert [part.ticket for part in alone.parts] == [first]


@pytest.mark.parametrize(("rate", "times"), [(150, 2), (2000, 3), (2500, 10)])
def test_a_trial_finds_what_the_scheduler_then_achieves(rate: float, times: float) -> None:
    deadline_s = times * LINE.usual_s(1)
    missed = trial(tune(LINE, rate, deadline_s), rate, deadline_s).missed
    arrivals = (Arrival(time, 1, deadline_s) for time in islice(poisson_times(rate, Random(5)), 4000))
    outcome = simulate(arrivals, Scheduled([LINE], Tunings()), Pace(times_s=TIMES_S))
    assert outcome.share_within(deadline_s) == pytest.approx(1 - missed, rel=0.05)
    assert outcome.late_share <= 0.002
