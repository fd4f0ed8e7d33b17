"""Random schedules through the scheduler: whatever happens, every ticket ends once and nothing is forgotten."""

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pytest

from service.batching.line import Ticket
from service.batching.plan import Hold
from service.batching.scheduler import Batch, Bounds, Demanded, Scheduler
from service.batching.tuning import Tuning
from service.engines import Curve

pytestmark = pytest.mark.untraced  # others run through the same lines

CURVES = (
    Curve.exact({1: 0.001, 4: 0.002}),
    Curve.exact({1: 0.001, 4: 0.0022, 8: 0.0035}),
    Curve.exact({2: 0.003}),
)
BOUNDS = Bounds(max_rows=40, max_device_s=0.05)
SCHEDULES, PARTS = 10_000, 10
STEPS = 30
DEADLINES_S = (0.0, 0.002, 0.005, 0.02, float("inf"))


@cache
def tuned(curve: int, rate: float, deadline_s: float) -> Tuning:
    return Demanded(curve=CURVES[curve], rate=rate, deadline_s=deadline_s).tuned()


@dataclass(slots=True)
class World:
    """A scheduler, the tickets that it was given, and what became of their rows."""

    draw: random.Random
    now: float = 0.0
    is_ever_there: bool = True
    scheduler: Scheduler = field(init=False)
    batches: list[Batch] = field(default_factory=list)
    admitted: list[Ticket] = field(default_factory=list)
    served: dict[Ticket, list[int]] = field(default_factory=dict)
    ends: dict[Ticket, list[str]] = field(default_factory=dict)
    held_until: float | None = None

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(BOUNDS, devices=self.draw.choice((1, 1, 2, 3)), now=0.0)
        for device in self.scheduler.devices:
            curve = self.draw.randrange(len(CURVES))
            device.curve = CURVES[curve]
            self.retune(device.number, curve)

    def retune(self, number: int, curve: int) -> None:
        device = self.scheduler.devices[number]
        rate, deadline_s = self.draw.choice((50.0, 1500.0, 5000.0)), self.draw.choice((0.003, 0.02, 1e4))
        device.tuning = tuned(curve, rate, deadline_s)
        device.demanded = Demanded(curve=CURVES[curve], rate=rate, deadline_s=deadline_s)

    def step(self) -> None:
        self.now += self.draw.choice((0.0, 0.0002, 0.001, 0.004))
        happenings = (self.arrive, self.arrive, self.arrive, self.end, self.end, self.leave, self.come_or_go)
        self.draw.choice(happenings)()
        self.dispatch()

    def arrive(self) -> None:
        ticket = Ticket(
            rows=self.draw.choice((1, 1, 1, 2, 5, 13)),
            arrived=self.now,
            deadline=self.now + self.draw.choice(DEADLINES_S),
            caller=self.draw.choice("abc"),
            priority=self.draw.choice((0, 0, 0, 1)),
        )
        self.scheduler.count(ticket, self.now)
        refusal = self.scheduler.refusal(ticket, self.now)
        if refusal is not None:
            assert refusal.retry_after_s >= 0
            return
        assert self.scheduler.line.rows + ticket.rows <= BOUNDS.max_rows
        self.scheduler.admit(ticket)
        self.admitted.append(ticket)
        self.served[ticket], self.ends[ticket] = [], []

    def end(self) -> None:
        """Let a batch end: well, by a fault of the engine, or without having begun."""
        if not self.batches:
            return
        batch = self.batches.pop(self.draw.randrange(len(self.batches)))
        self.now = max(self.now, batch.usually_until)
        match self.draw.choice(("well", "well", "well", "fault", "not begun")):
            case "well":
                self.scheduler.finished(batch)
                self.answer(batch)
            case "fault":
                self.scheduler.finished(batch)
                for ticket in dict.fromkeys(part.ticket for part in batch.parts):
                    self.scheduler.withdraw(ticket)
                    self.finish(ticket, "failed")
            case _:
                batch.device.is_there = False
                self.scheduler.put_back(batch)

    def answer(self, batch: Batch) -> None:
        for part in batch.parts:
            self.served[part.ticket].extend(part.span)
            if len(self.served[part.ticket]) == part.ticket.rows:
                self.finish(part.ticket, "answered")

    def leave(self) -> None:
        waiting = [ticket for ticket in self.admitted if not self.ends[ticket]]
        if waiting:
            ticket = self.draw.choice(waiting)
            self.scheduler.withdraw(ticket)
            self.finish(ticket, "left")

    def come_or_go(self) -> None:
        device = self.draw.choice(self.scheduler.devices)
        device.is_there = not device.is_there
        if device.is_there:
            self.retune(device.number, CURVES.index(device.curve or CURVES[0]))

    def finish(self, ticket: Ticket, how: str) -> None:
        """Count an end; a ticket whose caller has left may still be answered, for nobody."""
        if not {"left", "failed", "expired"} & {*self.ends[ticket]}:
            self.ends[ticket].append(how)

    def dispatch(self) -> None:
        self.held_until = None
        while (decision := self.scheduler.next_batch(self.now)) is not None:
            if isinstance(decision, Hold):
                assert decision.until >= self.now
                self.held_until = decision.until
                break
            assert decision.device.is_there
            assert 0 < decision.rows <= decision.gear
            assert decision.device not in [batch.device for batch in self.batches]
            self.batches.append(decision)
        for ticket in self.scheduler.expired:
            self.finish(ticket, "expired")
        self.scheduler.expired.clear()
        self.check()

    def check(self) -> None:
        line = self.scheduler.line
        waiting = [ticket for ticket in self.admitted if ticket in line]
        assert line.rows == sum(ticket.waiting for ticket in waiting)
        assert len(line) == len(waiting)
        assert not [ticket for ticket in waiting if self.ends[ticket]], "who has ended waits no more"
        self.check_rows()
        if line.rows and self.held_until is None:
            assert not any(device.is_idle for device in self.scheduler.devices) or self.is_worth_waiting

    def check_rows(self) -> None:
        """Each row is in one place: it waits, it runs, or it was served."""
        running: dict[Ticket, list[int]] = {}
        for part in (part for batch in self.batches for part in batch.parts):
            running.setdefault(part.ticket, []).extend(part.span)
        for ticket in self.admitted:
            if not self.ends[ticket]:
                places = Counter([*self.served[ticket], *running.get(ticket, [])])
                assert max(places.values(), default=1) == 1, "no row is served twice"
                assert len(places) + ticket.waiting == ticket.rows, "no row is lost"

    @property
    def is_worth_waiting(self) -> bool:
        """Tell whether a busy device may be through sooner than an idle one."""
        return any(batch.device.is_there for batch in self.batches)

    def run_out(self) -> None:
        """Let everything end well, with all devices there."""
        for device in self.scheduler.devices:
            device.is_there = True
        for _ in range(1000):
            self.dispatch()
            if self.batches:
                batch = self.batches.pop(0)
                self.now = max(self.now, batch.usually_until)
                self.scheduler.finished(batch)
                self.answer(batch)
            elif self.held_until is not None:
                self.now = self.held_until
            else:
                return
        pytest.fail("it never ends")


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_every_ticket_ends_once(part: int) -> None:
    ends: Counter[str] = Counter()
    for seed in range(part * SCHEDULES // PARTS, (part + 1) * SCHEDULES // PARTS):
        world = World(random.Random(seed))
        for _ in range(STEPS):
            world.step()
        world.run_out()
        assert world.scheduler.line.rows == 0, seed
        assert [len(each) for each in world.ends.values()] == [1] * len(world.admitted), seed
        ends.update(end for each in world.ends.values() for end in each)
    assert {*ends} == {"answered", "failed", "expired", "left"}
