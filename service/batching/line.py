"""The waiting requests in the order in which they are served: priority, then fair turns of callers, then deadline.

Callers of one priority take turns: in each round a caller may have up to QUANTUM_ROWS rows served (deficit round
robin), and within a round, as within a caller, the earliest deadline goes first. With one caller this is earliest
deadline first; with one that sends hundreds of rows, the single rows of others pass it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, merge
from itertools import takewhile
from operator import attrgetter

QUANTUM_ROWS = 8


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """One request in the line; it may be served by several batches."""

    rows: int
    arrived: float
    deadline: float
    caller: str = ""
    priority: int = 0  # the lower goes first
    predicted: float = field(default=0.0, init=False)  # when it would be through, as it looked when it came
    number: int = field(default=0, init=False)  # in the order of coming
    waiting: int = field(init=False)  # rows that no batch has
    has_left: bool = field(default=False, init=False)
    _spans: list[range] = field(init=False)  # of the rows that wait

    def __post_init__(self) -> None:
        self.waiting = self.rows
        self._spans = [range(self.rows)]

    @property
    def place(self) -> tuple[float, int]:
        """What the order within a caller goes by."""
        return self.deadline, self.number

    def take(self, rows: int) -> "Part":
        """Take the first waiting rows that lie together, up to so many."""
        span = self._spans.pop(0)
        taken, rest = span[:rows], span[rows:]
        if rest:
            self._spans.insert(0, rest)
        self.waiting -= len(taken)
        return Part(self, taken)

    def take_back(self, part: "Part") -> None:
        """Let rows wait again that a batch never ran."""
        self._spans.insert(0, part.span)
        self.waiting += len(part.span)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one ticket in a batch."""

    ticket: Ticket
    span: range

    @property
    def rows(self) -> int:
        """How many rows they are."""
        return len(self.span)


_place = attrgetter("place")


class Line:
    """All waiting tickets. Nothing here knows of time."""

    def __init__(self) -> None:
        self.rows = 0
        self._classes: dict[int, _Class] = {}  # by priority, ascending
        self._numbers = 0

    def __len__(self) -> int:
        return sum(len(each) for each in self._classes.values())

    def __iter__(self) -> Iterator[Ticket]:
        """All tickets by priority and deadline, turns left aside."""
        for each in self._classes.values():
            yield from each

    def __contains__(self, ticket: Ticket) -> bool:
        each = self._classes.get(ticket.priority)
        return each is not None and ticket in each

    def add(self, ticket: Ticket) -> None:
        """Let the waiting rows of a ticket stand in the line."""
        if ticket.priority not in self._classes:
            self._classes[ticket.priority] = _Class()
            self._classes = dict(sorted(self._classes.items()))
        if not ticket.number:
            self._numbers += 1
            ticket.number = self._numbers
        self._classes[ticket.priority].add(ticket)
        self.rows += ticket.waiting

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, with all its rows."""
        self._classes[ticket.priority].remove(ticket)
        self.rows -= ticket.waiting

    def head(self) -> Ticket | None:
        """Tell whose rows are next."""
        for each in self._classes.values():
            if len(each):
                return each.head()
        return None

    def take(self, rows: int) -> list[Part]:
        """Take the next rows, up to so many."""
        parts: list[Part] = []
        while rows and (ticket := self.head()) is not None:
            parts.append(self._classes[ticket.priority].take(rows))
            rows -= parts[-1].rows
            self.rows -= parts[-1].rows
        return parts

    def rows_before(self, ticket: Ticket) -> int:
        """Tell how many waiting rows would be served before the last row of a ticket that is not in the line."""
        rows = 0
        for priority, each in self._classes.items():
            if priority < ticket.priority:
                rows += each.rows
            elif priority == ticket.priority:
                rows += each.rows_before(ticket)
        return rows

    def behind(self, ticket: Ticket) -> Iterator[Ticket]:
        """All tickets of the same caller and priority that it would pass, first to last."""
        each = self._classes.get(ticket.priority)
        return each.behind(ticket) if each else iter(())


@dataclass(slots=True, eq=False)
class _Caller:
    name: str
    tickets: list[Ticket] = field(default_factory=list)  # by place
    rows: int = 0
    budget: int = QUANTUM_ROWS  # rows that it may still have in this round

    def rows_until(self, deadline: float) -> int:
        """Count the rows with deadlines up to this one."""
        if self.tickets[-1].deadline <= deadline:
            return self.rows
        return sum(
            ticket.waiting for ticket in takewhile(lambda each: each.deadline <= deadline, self.tickets)
        )


class _Class:
    """The tickets of one priority."""

    def __init__(self) -> None:
        self.rows = 0
        self._callers: dict[str, _Caller] = {}
        self._turns: list[tuple[float, int, str]] = []  # a heap of heads; some are stale
        self._tickets = 0
        self._last = float("-inf")  # no ticket here has a later deadline
        self._large = 0  # callers with more rows than a round gives them

    def __len__(self) -> int:
        return self._tickets

    def __iter__(self) -> Iterator[Ticket]:
        return merge(*(caller.tickets for caller in self._callers.values()), key=_place)

    def __contains__(self, ticket: Ticket) -> bool:
        caller = self._callers.get(ticket.caller)
        return caller is not None and _found(caller.tickets, ticket) is not None

    def add(self, ticket: Ticket) -> None:
        caller = self._callers.get(ticket.caller)
        if caller is None:
            caller = self._callers[ticket.caller] = _Caller(ticket.caller)
        insort(caller.tickets, ticket, key=_place)
        self._tickets += 1
        self._last = max(self._last, ticket.deadline)
        self._count(caller, ticket.waiting)
        self._offer(caller)

    def remove(self, ticket: Ticket) -> None:
        caller = self._callers[ticket.caller]
        index = _found(caller.tickets, ticket)
        assert index is not None  # noqa: S101 - our own mistake
        del caller.tickets[index]
        self._tickets -= 1
        self._count(caller, -ticket.waiting)
        self._leave_or_offer(caller)

    def head(self) -> Ticket:
        while True:
            while self._turns:
                _, number, name = self._turns[0]
                caller = self._callers.get(name)
                if caller and caller.budget > 0 and caller.tickets[0].number == number:
                    return caller.tickets[0]
                heappop(self._turns)
            self._next_round()

    def take(self, rows: int) -> Part:
        ticket = self.head()
        caller = self._callers[ticket.caller]
        part = ticket.take(min(rows, caller.budget))
        caller.budget -= part.rows
        self._count(caller, -part.rows)
        if not ticket.waiting:
            del caller.tickets[0]
            self._tickets -= 1
            self._leave_or_offer(caller)
        return part

    def rows_before(self, ticket: Ticket) -> int:
        if not self._large and ticket.deadline >= self._last and ticket.caller not in self._callers:
            return self.rows
        own = self._callers.get(ticket.caller)
        before = own.rows_until(ticket.deadline) if own else 0
        rounds = -(-(before + ticket.rows) // QUANTUM_ROWS)
        for caller in self._callers.values():
            if caller is not own:
                before += min(rounds * QUANTUM_ROWS, caller.rows_until(ticket.deadline))
        return before

    def behind(self, ticket: Ticket) -> Iterator[Ticket]:
        caller = self._callers.get(ticket.caller)
        if caller is None or caller.tickets[-1].deadline <= ticket.deadline:
            return iter(())
        return (each for each in caller.tickets if each.deadline > ticket.deadline)

    def _count(self, caller: _Caller, rows: int) -> None:
        was_large = caller.rows > QUANTUM_ROWS
        caller.rows += rows
        self.rows += rows
        self._large += (caller.rows > QUANTUM_ROWS) - was_large

    def _offer(self, caller: _Caller) -> None:
        head = caller.tickets[0]
        heappush(self._turns, (head.deadline, head.number, caller.name))

    def _leave_or_offer(self, caller: _Caller) -> None:
        if caller.tickets:
            self._offer(caller)
        else:
            del self._callers[caller.name]
        if not self._callers:
            self._turns.clear()
            self._last = float("-inf")

    def _next_round(self) -> None:
        for caller in self._callers.values():
            caller.budget = QUANTUM_ROWS
        heads = ((caller.tickets[0], caller) for caller in self._callers.values())
        self._turns = [(head.deadline, head.number, caller.name) for head, caller in heads]
        heapify(self._turns)


def _found(tickets: list[Ticket], ticket: Ticket) -> int | None:
    index = bisect_left(tickets, ticket.place, key=_place)
    return index if index < len(tickets) and tickets[index] is ticket else None
