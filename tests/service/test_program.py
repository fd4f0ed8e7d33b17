import anyio
import pytest

from patience import PATIENCE_S
from service.engines.program import Program

pytestmark = pytest.mark.anyio


class Undying(Program):
    """A program that a driver holds in the kernel: it does not die of SIGKILL."""

    def _strike(self) -> None:
        pass


async def test_a_program_that_does_not_die_is_given_up_by_all_who_wait_for_it() -> None:
    program = Undying(["sleep", "600"], (), time_to_die_s=0.05)
    told: list[str] = []

    async def wait() -> None:
        told.append(await program.ended())

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await program.close()
    assert told == ["it was killed, but does not end"] * 2
    program._process.kill()
    program._process.communicate()


async def test_a_program_that_was_killed_is_waited_for() -> None:
    program = Program(["sleep", "600"], (), time_to_die_s=PATIENCE_S)
    program.kill()
    assert await program.ended() == "signal 9, SIGKILL"
    async for _ in program.lines():
        pass
    await program.close()
