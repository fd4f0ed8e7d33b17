from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.line import QUANTUM_ROWS, Line, Part, Ticket

unhurried = settings(deadline=None)  # the machine may be busy with other tests


def ticket(rows: int = 1, *, caller: str = "anna", deadline: float = 1.0, priority: int = 0) -> Ticket:
    return Ticket(rows=rows, arrived=0.0, deadline=deadline, caller=caller, priority=priority)


def line_of(*tickets: Ticket) -> Line:
    line = Line()
    for each in tickets:
        line.add(each)
    return line


def served(line: Line, rows: int = 10_000) -> list[Ticket]:
    return [part.ticket for part in line.take(rows) for _ in part.span]


tickets = st.builds(
    ticket,
    rows=st.integers(1, 30),
    caller=st.sampled_from("abcd"),
    deadline=st.sampled_from([1.0, 2.0, 3.0, float("inf")]),
    priority=st.sampled_from([0, 0, 1]),
)
lines = st.lists(tickets, min_size=1, max_size=12)


# The order


def test_the_earliest_deadline_goes_first_within_a_caller() -> None:
    late, soon = ticket(deadline=2.0), ticket(deadline=1.0)
    assert served(line_of(late, soon)) == [soon, late]


def test_of_equal_deadlines_the_first_to_come_goes_first() -> None:
    first, second = ticket(), ticket()
    assert served(line_of(first, second)) == [first, second]


def test_priority_goes_before_deadline() -> None:
    low, high = ticket(deadline=1.0, priority=1), ticket(deadline=9.0, priority=0)
    assert served(line_of(low, high)) == [high, low]


def test_the_many_rows_of_one_caller_do_not_starve_the_single_rows_of_others() -> None:
    crowd = ticket(500, caller="crowd", deadline=1.0)
    singles = [ticket(caller=f"single {number}", deadline=2.0) for number in range(3)]
    assert served(line_of(crowd, *singles), QUANTUM_ROWS + 3) == [crowd] * QUANTUM_ROWS + singles


def test_callers_with_many_rows_share_evenly() -> None:
    one, other = ticket(100, caller="one"), ticket(100, caller="other")
    batch = served(line_of(one, other), 10 * QUANTUM_ROWS)
    assert batch.count(one) == batch.count(other) == 5 * QUANTUM_ROWS


def test_a_caller_that_sends_more_tickets_gets_no_more_turns() -> None:
    crowd = [ticket(caller="crowd", deadline=1.0) for _ in range(300)]
    single = ticket(caller="single", deadline=5.0)
    assert single in served(line_of(*crowd, single), QUANTUM_ROWS + 1)


# What is counted


@unhurried
@given(waiting=lines, rows=st.integers(0, 200))
def test_rows_are_taken_once_and_in_order_and_the_others_wait(waiting: list[Ticket], rows: int) -> None:
    line = line_of(*waiting)
    total = line.rows
    parts = line.take(rows)
    taken = [(part.ticket.number, row) for part in parts for row in part.span]
    assert len(taken) == len({*taken}) == min(rows, total)
    assert line.rows == total - len(taken) == sum(each.waiting for each in waiting)
    assert [each in line for each in waiting] == [each.waiting > 0 for each in waiting]
    for each in waiting:
        assert [row for part in parts if part.ticket is each for row in part.span] == [
            *range(each.rows - each.waiting)
        ]


@unhurried
@given(waiting=lines, rows=st.integers(0, 100), newcomer=tickets)
def test_no_more_rows_go_before_a_newcomer_than_it_was_told(
    waiting: list[Ticket], rows: int, newcomer: Ticket
) -> None:
    line = line_of(*waiting)
    line.take(rows)  # somewhere in a round
    told = line.rows_before(newcomer)
    line.add(newcomer)
    order = served(line)
    last = len(order) - order[::-1].index(newcomer)
    assert last - newcomer.rows <= told


@unhurried
@given(waiting=st.lists(tickets, max_size=12), newcomer=tickets)
def test_it_is_told_exactly_if_nobody_has_more_rows_than_a_round_gives(
    waiting: list[Ticket], newcomer: Ticket
) -> None:
    line = line_of(
        *(
            Ticket(rows=1, arrived=0.0, deadline=each.deadline, caller=str(number))
            for number, each in enumerate(waiting)
        )
    )
    single = Ticket(rows=1, arrived=0.0, deadline=newcomer.deadline, caller="newcomer")
    told = line.rows_before(single)
    line.add(single)
    assert served(line).index(single) == told


@unhurried
@given(waiting=lines, first=st.integers(0, 40), others=st.integers(1, 40))
def test_the_most_urgent_of_each_batch_is_known(waiting: list[Ticket], first: int, others: int) -> None:
    line = line_of(*waiting)
    deadlines = [
        each.deadline
        for each in sorted(waiting, key=lambda each: (each.priority, each.deadline))
        for _ in range(each.rows)
    ]
    batches = [deadlines[: max(1, first)]]
    batches += [deadlines[at : at + others] for at in range(first, len(deadlines), others)]
    assert line.most_urgent(first, others) == [min(batch) for batch in batches]


def test_those_that_a_newcomer_passes_are_known() -> None:
    line = line_of(ticket(2, deadline=1.0), ticket(2, caller="other", deadline=3.0), ticket(deadline=4.0))
    assert line.deadlines_behind(ticket(deadline=2.0)) == [3.0, 3.0, 4.0]
    assert line.deadlines_behind(ticket(deadline=2.0, priority=1)) == []


def test_nobody_else_is_passed_by_who_waits_for_turns() -> None:
    line = line_of(ticket(2, deadline=3.0), ticket(50, caller="crowd", deadline=3.0))
    assert line.deadlines_behind(ticket(deadline=2.0)) == [3.0, 3.0]
    assert line.deadlines_behind(ticket(deadline=2.0, caller="new")) == []


# Who leaves, and what comes back


def test_who_leaves_takes_along_what_waits() -> None:
    stays, leaves = ticket(3), ticket(5)
    line = line_of(stays, leaves)
    line.take(4)
    line.remove(leaves)
    assert (line.rows, len(line), leaves in line) == (0, 0, False)


def test_rows_that_come_back_are_served_first_and_once() -> None:
    one = ticket(10, caller="one")
    line = line_of(one, ticket(caller="other", deadline=2.0))
    (part,) = line.take(4)
    line.remove(one)
    one.take_back(part)
    line.add(one)
    assert sorted(row for each in line.take(100) if each.ticket is one for row in each.span) == [*range(10)]


@unhurried
@given(rows=st.integers(1, 20), sizes=st.lists(st.integers(1, 6), max_size=6), data=st.data())
def test_the_rows_of_a_ticket_are_whole_after_any_returns(
    rows: int, sizes: list[int], data: st.DataObject
) -> None:
    each = ticket(rows)
    out: list[Part] = []
    for size in sizes:
        if out and data.draw(st.booleans()):
            each.take_back(out.pop(data.draw(st.integers(0, len(out) - 1))))
        if each.waiting:
            out.append(each.take(size))
    rest = []
    while each.waiting:
        rest.append(each.take(100))
    assert sorted(row for part in (*out, *rest) for row in part.span) == [*range(rows)]


def test_an_empty_line_has_no_head() -> None:
    line = line_of(ticket(), ticket(priority=1))
    line.take(2)
    assert (line.head(), line.take(1), len(line)) == (None, [], 0)
