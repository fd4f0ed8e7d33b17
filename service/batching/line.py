"""The waiting requests in the order in which they are served: priority, then fair turns of callers, then deadline.

Callers of one priority take turns: in each round a caller may have up to QUANTUM_ROWS rows served (deficit round
robin), and within a round, as within a caller, the earliest deadline goes first. With one caller this is earliest
deadline first; with one that sends hundreds of rows, the single rows of others pass it.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

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
    is_joining: bool = field(default=False, init=False)  # it is promised one batch with all who wait
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
        span = self._spans[0]
        if len(span) > rows:
            self._spans[0] = span[rows:]
            span = span[:rows]
        else:
            del self._spans[0]
        self.waiting -= len(span)
        return Part(self, span)

    def take_back(self, part: "Part") -> None:
        """Let rows wait again that a batch never ran."""
        self._spans.insert(0, part.span)
        self.waiting += len(part.span)


class Part(NamedTuple):
    """Rows of one ticket in a batch."""

    ticket: Ticket
    span: range

    @property
    def rows(self) -> int:
        """How many rows they are."""
        return len(self.span)


_place = attrgetter("place")
_NEVER = (math.inf, math.inf, "")  # a place behind all others


class Line:
    """All waiting tickets. Nothing here knows of time."""

    def __init__(self) -> None:
        self.rows = 0
        self._classes: dict[int, _Class] = {}  # by priority, ascending
        self._numbers = 0

    def __len__(self) -> int:
        return sum(len(each) for each in self._classes.values())

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
        self._classes[ticket.priority].add_ticket(ticket)
        self.rows += ticket.waiting

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, with all its rows."""
        self._classes[ticket.priority].remove_ticket(ticket)
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
        for each in self._classes.values():
            before = each.rows
            parts += each.take(rows)
            rows -= before - each.rows
            self.rows -= before - each.rows
        return parts

    def rows_before(self, ticket: Ticket) -> int:
        """Tell how many waiting rows are served before the last row of a ticket that is not in the line, at most."""
        rows = 0
        for priority, each in self._classes.items():
            if priority < ticket.priority:
                rows += each.rows
            elif priority == ticket.priority:
                rows += each.rows_before(ticket)
        return rows

    def most_urgent(self, first: int, others: int) -> list[float]:
        """Tell the earliest deadline in each batch: the first of so many rows, and others. Turns are left aside."""
        lists = [each.deadlines for each in self._classes.values() if each.rows]
        if len(lists) == 1:
            return [lists[0][0], *lists[0][first::others]]
        rows = [*chain.from_iterable(lists)]
        starts = range(first, len(rows), others)
        return [min(rows[: max(1, first)]), *(min(rows[start : start + others]) for start in starts)]

    def deadlines_behind(self, ticket: Ticket) -> list[float]:
        """The deadlines of the rows that a ticket would pass, ascending, if it had to wait for no other's turn."""
        each = self._classes.get(ticket.priority)
        return each.deadlines_behind(ticket) if each else []


class _Rows:
    """Counts rows by their deadlines."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []  # ascending, one for each row

    @property
    def rows(self) -> int:
        return len(self.deadlines)

    def add(self, rows: int, deadline: float) -> None:
        if rows == 1:
            insort(self.deadlines, deadline)
            return
        at = bisect_right(self.deadlines, deadline)
        self.deadlines[at:at] = [deadline] * rows

    def remove(self, rows: int, deadline: float) -> None:
        at = bisect_left(self.deadlines, deadline)
        del self.deadlines[at : at + rows]

    def remove_parts(self, parts: Iterable[Part]) -> None:
        deadlines = [part.ticket.deadline for part in parts for _ in part.span]
        if deadlines == self.deadlines[: len(deadlines)]:
            del self.deadlines[: len(deadlines)]
            return
        for deadline in deadlines:
            del self.deadlines[bisect_left(self.deadlines, deadline)]

    def rows_until(self, deadline: float) -> int:
        return bisect_right(self.deadlines, deadline)


class _Caller(_Rows):
    """The tickets of one caller, and its turn."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.tickets: list[Ticket] = []  # by place
        self.budget = QUANTUM_ROWS  # rows that it may still have in this round

    @property
    def is_large(self) -> bool:
        """Tell whether a round may not be enough for it."""
        return self.rows > QUANTUM_ROWS

    def take(self, rows: int, until: tuple[object, ...]) -> list[Part]:
        """Take its next rows, up to so many: its first ticket's, and others' that come before a place."""
        parts: list[Part] = []
        left = rows = min(rows, self.budget)
        served = 0
        for ticket in self.tickets:
            if not left or (parts and ticket.place > until):
                break
            while left and ticket.waiting:
                part = ticket.take(left)
                parts.append(part)
                left -= len(part.span)
            if not ticket.waiting:
                served += 1
        self.budget -= rows - left
        del self.deadlines[: rows - left]
        del self.tickets[:served]
        return parts

    def rounds(self, ticket: Ticket) -> int:
        """Tell how many rounds have to begin before the last row of a ticket is served."""
        surplus = self.rows_until(ticket.deadline) + ticket.rows - self.budget
        return max(0, -(-surplus // QUANTUM_ROWS))

    def most_rows(self, rounds: int, deadline: float) -> int:
        """Tell how many rows are served before one with a deadline that another caller has after so many rounds."""
        urgent = self.rows_until(deadline)
        if not rounds:
            return min(urgent, self.budget)
        surely = min(self.rows, self.budget + (rounds - 1) * QUANTUM_ROWS)
        return surely + min(QUANTUM_ROWS, max(0, urgent - surely))


class _Class(_Rows):
    """The tickets of one priority."""

    def __init__(self) -> None:
        super().__init__()
        self._callers: dict[str, _Caller] = {}
        self._turns: list[tuple[float, int, str]] = []  # a heap of heads; some are stale
        self._tickets = 0
        self._large: dict[str, _Caller] = {}

    def __len__(self) -> int:
        return self._tickets

    def __contains__(self, ticket: Ticket) -> bool:
        caller = self._callers.get(ticket.caller)
        return caller is not None and _found(caller.tickets, ticket) is not None

    def add_ticket(self, ticket: Ticket) -> None:
        caller = self._callers.get(ticket.caller)
        if caller is None:
            caller = self._callers[ticket.caller] = _Caller(ticket.caller)
        insort(caller.tickets, ticket, key=_place)
        self._tickets += 1
        self.add(ticket.waiting, ticket.deadline)
        caller.add(ticket.waiting, ticket.deadline)
        self._see_size(caller)
        if caller.tickets[0] is ticket:
            self._offer(caller)

    def remove_ticket(self, ticket: Ticket) -> None:
        caller = self._callers[ticket.caller]
        index = _found(caller.tickets, ticket)
        assert index is not None  # noqa: S101 - our own mistake
        del caller.tickets[index]
        self._tickets -= 1
        self.remove(ticket.waiting, ticket.deadline)
        caller.remove(ticket.waiting, ticket.deadline)
        self._settle(caller)

    def head(self) -> Ticket:
        return self._next_caller().tickets[0]

    def take(self, rows: int) -> list[Part]:
        parts: list[Part] = []
        while rows and self._callers:
            caller = self._next_caller()
            heappop(self._turns)
            had, tickets = caller.rows, len(caller.tickets)
            parts += caller.take(rows, self._turns[0] if self._turns else _NEVER)
            rows -= had - caller.rows
            self._tickets -= tickets - len(caller.tickets)
            self._settle(caller)
        self.remove_parts(parts)
        return parts

    def rows_before(self, ticket: Ticket) -> int:
        own = self._callers.get(ticket.caller) or _Caller(ticket.caller)
        rounds = own.rounds(ticket)
        if rounds:
            return own.rows_until(ticket.deadline) + self._others_rows(own, rounds, ticket.deadline)
        larges = (caller for caller in self._large.values() if caller is not own)
        spared = (
            caller.rows_until(ticket.deadline) - caller.most_rows(0, ticket.deadline) for caller in larges
        )
        return self.rows_until(ticket.deadline) - sum(spared)

    def deadlines_behind(self, ticket: Ticket) -> list[float]:
        rows = self._callers.get(ticket.caller) if self._large else self
        return rows.deadlines[rows.rows_until(ticket.deadline) :] if rows else []

    def _others_rows(self, own: _Caller, rounds: int, deadline: float) -> int:
        larges = [caller for caller in self._large.values() if caller is not own]
        small = self.rows - own.rows - sum(caller.rows for caller in larges)
        return small + sum(caller.most_rows(rounds, deadline) for caller in larges)

    def _see_size(self, caller: _Caller) -> None:
        if caller.is_large:
            self._large[caller.name] = caller
        else:
            self._large.pop(caller.name, None)

    def _next_caller(self) -> _Caller:
        """Tell whose turn it is; the turn is then the first."""
        while True:
            while self._turns:
                _, number, name = self._turns[0]
                caller = self._callers.get(name)
                if caller and caller.budget > 0 and caller.tickets[0].number == number:
                    return caller
                heappop(self._turns)
            self._next_round()

    def _settle(self, caller: _Caller) -> None:
        """See what became of a caller whose head may have gone."""
        if self._large:
            self._see_size(caller)
        if caller.tickets:
            self._offer(caller)
            return
        del self._callers[caller.name]
        if not self._callers:
            self._turns.clear()

    def _offer(self, caller: _Caller) -> None:
        head = caller.tickets[0]
        heappush(self._turns, (head.deadline, head.number, caller.name))

    def _next_round(self) -> None:
        for caller in self._callers.values():
            caller.budget = QUANTUM_ROWS
        heads = ((caller.tickets[0], caller) for caller in self._callers.values())
        self._turns = [(head.deadline, head.number, caller.name) for head, caller in heads]
        heapify(self._turns)


def _found(tickets: list[Ticket], ticket: Ticket) -> int | None:
    index = bisect_left(tickets, ticket.place, key=_place)
    return index if index < len(tickets) and tickets[index] is ticket else None
