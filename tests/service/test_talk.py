import asyncio
import select
import socket
from collections.abc import Iterator

import anyio
import pytest

from service.engines.child.wire import ProtocolError
from service.engines.talk import Talk

pytestmark = pytest.mark.anyio

LONG_S = 60.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def talk(ends: tuple[socket.socket, socket.socket]) -> Talk:
    return Talk(ends[0])


@pytest.fixture
def child(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


def has_unread(talk: Talk) -> bool:
    """Tell whether something is left in the socket."""
    return bool(select.select([talk], [], [], 0)[0])


def after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_is_asked_is_answered_in_turn(talk: Talk, child: socket.socket) -> None:
    for word in (b"one", b"two", b"three"):
        talk.ask(word)
        child.send(child.recv(100) + b"!")
        assert await talk.hear(after(LONG_S)) == word + b"!"
    talk.close()


async def test_a_word_that_came_before_it_was_waited_for_is_heard(talk: Talk, child: socket.socket) -> None:
    child.send(b"hello")
    await _a_few_turns()
    assert await talk.hear(after(LONG_S)) == b"hello"
    talk.close()


async def test_who_says_more_than_was_asked_is_not_asked_again(talk: Talk, child: socket.socket) -> None:
    talk.ask(b"one")
    child.send(b"one!")
    child.send(b"one more!")
    assert await talk.hear(after(LONG_S)) == b"one!"
    await _a_few_turns()
    with pytest.raises(ProtocolError, match="nobody had asked for"):
        talk.ask(b"two")
    talk.close()


async def test_who_talks_without_end_is_not_listened_to(talk: Talk, child: socket.socket) -> None:
    for _ in range(3):
        child.send(b"x")
        await _a_few_turns()
    assert has_unread(talk)
    talk.close()


async def test_who_has_gone_is_not_asked(talk: Talk, child: socket.socket) -> None:
    child.close()
    with pytest.raises(BrokenPipeError):
        talk.ask(b"one")
    await _a_few_turns()  # the loop has seen it by then
    with pytest.raises(BrokenPipeError):
        talk.ask(b"one")
    talk.close()


async def test_who_goes_before_it_has_read_is_told_from_who_goes_while_it_works(
    talk: Talk, child: socket.socket
) -> None:
    talk.ask(b"one")
    child.close()
    with pytest.raises(ConnectionResetError):
        await talk.hear(after(LONG_S))
    talk.close()


async def test_who_goes_while_it_works_is_heard_to_end(talk: Talk, child: socket.socket) -> None:
    talk.ask(b"one")
    child.recv(100)
    child.close()
    with pytest.raises(EOFError):
        await talk.hear(after(LONG_S))
    talk.close()


@pytest.mark.parametrize("other_limit_s", [0.001, LONG_S])
async def test_each_wait_ends_at_its_own_limit(
    talk: Talk, child: socket.socket, other_limit_s: float
) -> None:
    """A timer that was set for the wait before it ends it neither early nor late."""
    talk.ask(b"one")
    child.send(b"one!")
    assert await talk.hear(after(other_limit_s)) == b"one!"
    talk.ask(b"two")
    until = after(0.05)
    with anyio.fail_after(LONG_S / 2), pytest.raises(TimeoutError):
        await talk.hear(until)
    assert asyncio.get_running_loop().time() >= until
    talk.close()


async def test_a_limit_that_passes_while_nobody_waits_ends_nothing(talk: Talk, child: socket.socket) -> None:
    child.send(b"one")
    assert await talk.hear(after(0.001)) == b"one"
    await anyio.sleep(0.01)
    child.send(b"two")
    assert await talk.hear(after(LONG_S)) == b"two"
    talk.close()


async def test_an_answer_to_a_wait_that_was_cancelled_is_no_answer_to_the_next(
    talk: Talk, child: socket.socket
) -> None:
    talk.ask(b"one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk.hear, after(LONG_S))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    child.send(b"one!")
    await _a_few_turns()
    with pytest.raises(ProtocolError):
        talk.ask(b"two")
    talk.close()


async def test_who_waits_when_the_talk_is_closed_meets_the_end(talk: Talk) -> None:
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(EOFError):
                await talk.hear(after(LONG_S))

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        talk.close()


async def _a_few_turns() -> None:
    """Let the loop take what was sent."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()
