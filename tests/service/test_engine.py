import gc
import os
import resource
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import openvino
import psutil
import pytest

from engines import (
    LogWatch,
    Serving,
    answer_of,
    fault_at,
    fault_at_start,
    logits,
    pictures,
    serving,
    simulated_answers,
)
from patience import PATIENCE_S
from service.engines import (
    ArtifactFile,
    Engine,
    EngineOrder,
    NotBegun,
    OpenvinoOptions,
    SimulatedOptions,
)
from service.engines.process import patience_s
from service.errors import EngineFault
from service.machine import Machine

pytestmark = pytest.mark.anyio

UNTRAINED_GRAPH = Path(__file__).parents[2] / "tests/untrained/sknet50/1/model.onnx"
LOADED, RAN = "while it loaded its model", "while it ran this request's batch"
KILLED, ENDED = "the engine process was killed: it answered", "the engine process ended"

SIMULATED = EngineOrder(
    model="cats",
    version="3",
    files=(),
    options=SimulatedOptions(table="test", latency_s={gear: gear / 1000 for gear in range(1, 65)}),
    side=4,
    classes=10,
    max_rows=64,
    threads=1,
    load_timeout_s=20,
    run_timeout_s=20,
)
OPENVINO = replace(
    SIMULATED,
    files=(ArtifactFile(path=UNTRAINED_GRAPH),),
    options=OpenvinoOptions(),
    side=224,
    max_rows=4,
)

BEST_PRECISION = "bf16" if Machine.look().computes_bf16 else "f32"

# A child of ours: it speaks the protocol, and behaves well at batches of 1 row. Its argv is that of a Python.
FAKE = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys, time
sys.path.insert(0, sys.argv[1])
import wire
HERE = os.path.dirname(sys.argv[0])
talk = socket.socket(fileno=int(sys.argv[2]))

def say(kind, **named):
    talk.sendall(wire.pack(wire.Packet(kind, **named)))

def hear():
    return wire.unpack(talk.recv(wire.LONGEST_PACKET))

def greet():
    say(wire.HELLO, text=json.dumps({{"protocol": wire.PROTOCOL}}))
    hear()
    say(wire.LOADED, text=json.dumps({{"about": "a fake"}}))

def serve(misdeed):
    greet()
    while data := talk.recv(wire.LONGEST_PACKET):
        rows = wire.unpack(data).rows
        if rows == 1:
            say(wire.DONE, rows=1)
        else:
            print("at", rows, "rows", flush=True)
            misdeed()

"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Write an executable that is started as if it were a Python."""

    def write(text: str) -> str:
        path = tmp_path / "python"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def fake(script: Callable[[str], str]) -> Callable[[str], EngineOrder]:
    """Order an engine whose child is FAKE and then the given lines."""
    return lambda text: replace(SIMULATED, python=script(FAKE + text))


def stop(pid: int) -> None:
    """Halt a child; when this returns it takes nothing from its socket any more."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def kill(pid: int) -> None:
    """Kill a child; when this returns it is gone, but the event loop has not heard of it yet."""
    pid_fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pid_fd], [], [])
    os.close(pid_fd)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


# What a well engine answers.


async def test_the_simulated_engine_answers_the_same_for_the_same_picture(log: LogWatch) -> None:
    rows = pictures(5)
    async with serving(SIMULATED) as served:
        assert served.engine.is_ready
        assert served.engine.about == "simulated test"
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))
        np.testing.assert_array_equal(await logits(served.engine, rows[::-1]), simulated_answers(rows)[::-1])
    assert log.of("engine_loaded")[0]["model"] == "cats"


def simulated(**changes: Any) -> EngineOrder:
    options = SimulatedOptions(table="test", latency_s={1: 0.001, 4: 0.1})
    return replace(SIMULATED, options=replace(options, **changes))


async def test_a_simulated_batch_takes_as_long_as_its_table_says() -> None:
    async with serving(simulated()) as served:
        assert (await answer_of(served.engine, pictures(4))).engine_s >= 0.1


async def test_a_simulated_batch_of_a_size_that_the_table_does_not_know_is_refused() -> None:
    async with serving(simulated()) as served:
        said = await fault_at(served.engine, rows=3)
        assert said == "the engine refused: ValueError: a batch of 3 rows; the table knows 1, 4"


async def test_a_simulated_device_jitters_upwards_only() -> None:
    async with serving(simulated(jitter=3.0)) as served:
        times = [(await answer_of(served.engine, pictures(1))).engine_s for _ in range(20)]
    assert min(times) >= 0.001
    assert max(times) > 0.002  # in all but one of a billion runs


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("crash", f"{ENDED} (signal 11, SIGSEGV) {RAN}"),
        ("hang", f"the engine process was killed: no answer for 0.5 s {RAN}"),
        ("wrong_rows", "the engine refused: ValueError: the engine answered float32 (0, 10) for 1 rows"),
        ("memory", f"{ENDED} (exit code 1) {RAN}"),
    ],
)
async def test_a_simulated_device_fails_as_it_is_told(fault: str, sentence: str) -> None:
    async with serving(replace(simulated(faults={fault: 1.0}), run_timeout_s=0.5)) as served:
        assert await fault_at(served.engine, rows=1) == sentence


async def test_a_slow_simulated_device_takes_ten_times_as_long() -> None:
    async with serving(simulated(faults={"slow": 1.0})) as served:
        assert (await answer_of(served.engine, pictures(1))).engine_s >= 0.01


async def test_the_parts_of_a_batch_are_answered_in_their_order_and_padding_is_cut_off() -> None:
    rows = pictures(5)
    async with serving(SIMULATED) as served:
        answer = await served.engine.run([rows[:2], rows[2:3], rows[3:]], 8)
    np.testing.assert_array_equal(answer.logits, simulated_answers(rows))
    assert 0.005 < answer.engine_s < PATIENCE_S


async def test_an_answer_is_not_overwritten_by_the_next_batch() -> None:
    rows = pictures(2)
    async with serving(SIMULATED) as served:
        first = await logits(served.engine, rows[:1])
        await logits(served.engine, rows[1:])
    np.testing.assert_array_equal(first, simulated_answers(rows[:1]))


async def test_openvino_answers_in_its_process_as_it_does_in_ours_at_any_gear() -> None:
    rows = pictures(3, side=224)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(UNTRAINED_GRAPH), "CPU", options)
    expected = model([rows])[0]
    async with serving(OPENVINO) as served:
        alone = np.concatenate([await logits(served.engine, row[np.newaxis]) for row in rows])
        together = await logits(served.engine, rows)
        padded = await logits(served.engine, rows, gear=4)
        assert served.engine.about.startswith("openvino ")
    for answered in (alone, together, padded):
        np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1  # else the tolerance would mean nothing


def openvino_at(*gears: int, **options: Any) -> EngineOrder:
    files = (ArtifactFile(path=UNTRAINED_GRAPH, gears=gears or None),)
    return replace(OPENVINO, files=files, options=OpenvinoOptions(**options))


async def test_openvino_compiles_for_each_gear_and_runs_no_other_size() -> None:
    rows = pictures(4, side=224)
    async with serving(openvino_at(1, 4)) as served:
        together = await logits(served.engine, rows)
        alone = np.concatenate([await logits(served.engine, row[np.newaxis]) for row in rows])
        said = await fault_at(served.engine, rows=2, side=224)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
    assert said == "the engine refused: ValueError: a batch of 2 rows; the gears are [1, 4]"


async def test_openvino_keeps_compiled_models_where_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "state/openvino"
    for _ in range(2):  # the second one is loaded from there
        async with serving(openvino_at(1, cache_folder=folder)) as served:
            await logits(served.engine, pictures(1, side=224))
        assert len(list(folder.glob("*.blob"))) == 1


async def test_a_cache_that_cannot_be_written_costs_the_cache_only(log: LogWatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with serving(openvino_at(1, cache_folder=tmp_path / "file/openvino")) as served:
        await logits(served.engine, pictures(1, side=224))
    assert log.of("engine_output")[0]["line"].startswith("models are compiled at each start: ")


@pytest.mark.parametrize("pins", [True, False])
async def test_openvino_takes_threads_and_pinning(pins: bool) -> None:  # noqa: FBT001
    async with serving(replace(openvino_at(1), threads=2, pins_threads=pins)) as served:
        await logits(served.engine, pictures(1, side=224))


async def test_openvino_says_which_precision_it_computes_in() -> None:
    async with serving(openvino_at(precision="bf16")) as served:
        assert served.engine.about.endswith(f" cpu {BEST_PRECISION}")


# Processes that are killed, or hang.


async def test_a_process_that_is_killed_while_idle_is_replaced_before_the_next_batch(log: LogWatch) -> None:
    rows = pictures(3)
    async with serving(SIMULATED) as served:
        first = log.pid
        os.kill(first, signal.SIGKILL)
        await served.lost()
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))
        assert log.pid != first
        assert served.restarts == 1
    assert log.of("engine_restart")[0]["fault"] == "signal 9, SIGKILL"


async def test_a_batch_that_meets_a_process_which_is_gone_is_run_by_the_next(log: LogWatch) -> None:
    rows = pictures(3)
    async with serving(SIMULATED) as served:
        kill(log.pid)
        assert served.engine.is_ready  # as far as anybody knows
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))


async def test_a_batch_that_no_process_took_is_given_back_at_once(
    log: LogWatch, breakable: EngineOrder, tmp_path: Path
) -> None:
    async with serving(breakable) as served:
        (tmp_path / "broken").touch()  # no other process will start
        kill(log.pid)
        for _ in range(2):  # the process is gone; then that is known
            with pytest.raises(NotBegun):
                await served.engine.run([pictures(3)], 3)
        assert not served.engine.is_ready


async def test_a_batch_that_was_sent_but_never_read_is_run_by_the_next_process(log: LogWatch) -> None:
    rows, answers = pictures(3), []

    async def run(engine: Engine) -> None:
        answers.append(await logits(engine, rows))

    async with serving(SIMULATED) as served, anyio.create_task_group() as tasks:
        stop(log.pid)
        tasks.start_soon(run, served.engine)
        await anyio.lowlevel.checkpoint()
        kill(log.pid)
    np.testing.assert_array_equal(answers[0], simulated_answers(rows))


async def test_a_process_that_is_killed_mid_batch_fails_that_batch_and_later_ones_run(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(signal.pause)")) as served, anyio.create_task_group() as tasks:

        async def murder() -> None:
            await log.printed("at 2 rows")
            os.kill(log.pid, signal.SIGKILL)

        tasks.start_soon(murder)
        said = await fault_at(served.engine, rows=2)
        assert said == f"{ENDED} (signal 9, SIGKILL) {RAN}"
        await logits(served.engine, pictures(1))
        assert served.restarts == 1


async def test_a_real_process_that_is_killed_at_a_large_batch_answers_or_says_why(log: LogWatch) -> None:
    rows, outcomes = pictures(64), []

    async def run(engine: Engine) -> None:
        try:
            outcomes.append(np.array_equal(await logits(engine, rows), simulated_answers(rows)))
        except EngineFault as fault:
            outcomes.append("signal 9, SIGKILL" in str(fault))

    async with serving(SIMULATED) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(run, served.engine)
        await anyio.lowlevel.checkpoint()
        os.kill(log.pid, signal.SIGKILL)
    assert outcomes == [True]


async def test_a_process_that_stands_still_is_killed_in_time_and_replaced(log: LogWatch) -> None:
    rows = pictures(3)
    async with serving(replace(SIMULATED, run_timeout_s=0.3)) as served:
        first = log.pid
        stop(first)
        said = await fault_at(served.engine, rows=3)
        assert said == "the engine process was killed: no answer for 0.3 s while it ran this request's batch"
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))
        assert gone(first)


async def test_a_process_that_takes_much_longer_than_expected_is_killed_but_not_before_2_seconds(
    log: LogWatch,
) -> None:
    async with serving(SIMULATED) as served:
        stop(log.pid)
        with pytest.raises(EngineFault, match="was killed: no answer for 2 s while it ran"):
            await served.engine.run([pictures(3)], 3, expected_s=0.001)


@pytest.mark.parametrize(
    ("expected_s", "limit_s"), [(None, 20), (0.0, 2), (0.05, 2), (0.5, 10), (1.0, 20), (9.0, 20)]
)
def test_a_hang_is_20_times_the_expected_time_within_2_seconds_and_the_limit(
    expected_s: float | None, limit_s: float
) -> None:
    assert patience_s(20, expected_s) == limit_s


async def test_a_process_that_is_killed_by_any_signal_is_replaced(log: LogWatch) -> None:
    async with serving(SIMULATED) as served:
        os.kill(log.pid, signal.SIGRTMIN + 5)
        await served.lost()
        await logits(served.engine, pictures(1))


async def test_a_caller_that_is_cancelled_mid_batch_costs_its_process_and_the_engine_recovers(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(signal.pause)")) as served:
        first = log.pid
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(served.engine.run, [pictures(2)], 2)
            await log.printed("at 2 rows")
            tasks.cancel_scope.cancel()
        await served.lost()
        await logits(served.engine, pictures(1))
        assert gone(first)
        assert log.of("engine_restart")[0]["fault"] == "signal 9, SIGKILL"


GRANDCHILD = """
hold = open(HERE + "/fifo")

def leave_a_grandchild():
    if os.fork() == 0:  # it has the socket, until the test is over
        os.close(1)
        os.close(2)
        hold.read()
        os._exit(0)

"""


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[None]:
    """Hold grandchildren until the test is over."""
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)  # both ends, so that neither waits for the other
    yield
    os.close(writer)


@pytest.mark.usefixtures("fifo")
async def test_the_answer_of_a_cancelled_batch_is_never_given_to_the_next_one(
    fake: Callable[[str], EngineOrder],
) -> None:
    first_life_only = """
is_second_life = os.path.exists(HERE + "/mark")
open(HERE + "/mark", "w").close()
def answer():
    if not is_second_life:
        leave_a_grandchild()  # the socket outlives the process that is killed
    say(wire.DONE, rows=2, nanoseconds=2 if is_second_life else 1)
serve(answer)
"""
    async with serving(fake(GRANDCHILD + first_life_only)) as served:
        process = served.engine._process
        assert process is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(served.engine.run, [pictures(2)], 2)
            await anyio.lowlevel.checkpoint()
            select.select([process._talk], [], [])  # the answer is there, but the loop has not seen it yet
            tasks.cancel_scope.cancel()
        answer = await answer_of(served.engine, pictures(2))
    assert round(answer.engine_s * 1e9) == 2


@pytest.mark.usefixtures("fifo")
async def test_a_process_that_dies_mid_batch_is_noticed_though_a_grandchild_holds_its_socket(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    dies = GRANDCHILD + "serve(lambda: (leave_a_grandchild(), os.kill(os.getpid(), signal.SIGKILL)))"
    faults: list[str] = []

    async def run(engine: Engine) -> None:
        faults.append(await fault_at(engine, rows=2))

    async with serving(fake(dies)) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(run, served.engine)
        await log.seen("engine_restart")
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert faults == [f"{ENDED} (signal 9, SIGKILL) {RAN}"]
        await logits(served.engine, pictures(1))


async def test_a_batch_that_runs_when_its_engine_is_ended_fails(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    served, faults = Serving.of(fake("serve(hear)")), []

    async def run() -> None:
        faults.append(await fault_at(served.engine, rows=2))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as serving_tasks:
                await serving_tasks.start(served.engine.serve)
                tasks.start_soon(run)
                await log.printed("at 2 rows")
                serving_tasks.cancel_scope.cancel()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            assert len(faults) == 1


# Processes that never get as far as serving.


async def test_a_missing_artifact_is_told_with_its_name(tmp_path: Path) -> None:
    said = await fault_at_start(replace(OPENVINO, files=(ArtifactFile(path=tmp_path / "missing.onnx"),)))
    assert said.startswith("the engine refused: ")
    assert "missing.onnx" in said


async def test_an_engine_that_does_not_exist_is_told_with_its_name() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class AbacusOptions(OpenvinoOptions):
        engine = "abacus"

    said = await fault_at_start(replace(SIMULATED, options=AbacusOptions()))
    assert said == "the engine refused: ModuleNotFoundError: No module named 'engine_abacus'"


async def test_an_interpreter_that_does_not_exist_is_told_with_its_name(tmp_path: Path) -> None:
    said = await fault_at_start(replace(SIMULATED, python=str(tmp_path / "python4")))
    assert said.startswith("the engine process could not be started: ")
    assert "python4" in said


BAD_STARTS = {
    "exits at once": ("os._exit(3)", f"{ENDED} (exit code 3) {LOADED}"),
    "prints rubbish": (
        "print('rubbish', flush=True); os._exit(0)",
        f"{ENDED} (exit code 0) {LOADED}",
    ),
    "dies by a signal": ("os.abort()", f"{ENDED} (signal 6, SIGABRT) {LOADED}"),
    "says nothing": ("signal.pause()", f"the engine process was killed: no answer for 0.5 s {LOADED}"),
    "speaks another protocol": (
        """say(wire.HELLO, text='{"protocol": 999}'); signal.pause()""",
        f"{KILLED} protocol 999, not 1 {LOADED}",
    ),
    "says hello without a protocol": (
        """say(wire.HELLO, text='{"python": "3"}'); signal.pause()""",
        f"{KILLED} 'protocol' {LOADED}",
    ),
    "says hello with a list": (
        """say(wire.HELLO, text='[1]'); signal.pause()""",
        f"{KILLED} list indices",
    ),
    "says hello without JSON": (
        """say(wire.HELLO, text='hello'); signal.pause()""",
        f"{KILLED} Expecting value",
    ),
    "sends garbage": (
        """talk.send(b'garbage'); signal.pause()""",
        f"{KILLED} a packet of 7 bytes {LOADED}",
    ),
    "is loaded before it was asked": (
        """say(wire.LOADED, text='{"about": ""}'); signal.pause()""",
        f"{KILLED} a packet of kind 3, not 1 {LOADED}",
    ),
    "refuses": ("""say(wire.FAIL, text='no NPU here')""", "the engine refused: no NPU here"),
}


@pytest.mark.parametrize(("does", "sentence"), BAD_STARTS.values(), ids=BAD_STARTS.keys())
async def test_a_child_that_does_not_get_to_serve_is_an_engine_fault(
    does: str, sentence: str, fake: Callable[[str], EngineOrder]
) -> None:
    order = fake(does)
    if "0.5 s" in sentence:
        order = replace(order, load_timeout_s=0.5)
    assert (await fault_at_start(order)).startswith(sentence)


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\nexec cat /dev/zero", "#!/bin/sh\necho rubbish; exit 5", "no script at all"]
)
async def test_an_interpreter_that_is_no_python_is_an_engine_fault(
    text: str, script: Callable[[str], str]
) -> None:
    await fault_at_start(replace(SIMULATED, python=script(text), load_timeout_s=0.3))


async def test_a_child_that_closes_its_socket_some_time_before_it_exits_is_reported_with_its_exit_code(
    fake: Callable[[str], EngineOrder],
) -> None:
    said = await fault_at_start(fake("talk.close(); time.sleep(0.1); sys.exit(3)"))
    assert "exit code 3" in said


# Children that serve, but wrongly. The parent lives, and the next batch is answered.

MISDEEDS = {
    "another kind": ("say(wire.LOADED)", f"{KILLED} a packet of kind 3, not 5 {RAN}"),
    "its own request": ("say(wire.RUN, rows=2)", f"{KILLED} a packet of kind 4, not 5 {RAN}"),
    "garbage": ("talk.send(b'garbage')", f"{KILLED} a packet of 7 bytes {RAN}"),
    "a lot of garbage": ("talk.send(b'\\5' * 9999)", f"{KILLED} a packet of kind 5 with 9979 of "),
    "more rows": ("say(wire.DONE, rows=3)", f"{KILLED} 3 rows, not 2 {RAN}"),
    "no rows": ("say(wire.DONE, rows=0)", f"{KILLED} 0 rows, not 2 {RAN}"),
    "nothing": ("talk.send(b'')", f"{ENDED} (signal 9, SIGKILL) {RAN}"),
    "a closed socket": ("talk.shutdown(socket.SHUT_RDWR)", f"{ENDED} (signal 9, SIGKILL) {RAN}"),
    "an exit": ("os._exit(4)", f"{ENDED} (exit code 4) {RAN}"),
}


@pytest.mark.parametrize(("does", "sentence"), MISDEEDS.values(), ids=MISDEEDS.keys())
async def test_a_child_that_answers_wrongly_fails_the_batch_and_is_replaced(
    does: str, sentence: str, log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake(f"serve(lambda: ({does}, signal.pause()))")) as served:
        first = log.pid
        assert (await fault_at(served.engine, rows=2)).startswith(sentence)
        assert (await logits(served.engine, pictures(1))).shape == (1, 10)
        assert gone(first)
        assert served.restarts == 1


async def test_a_batch_that_the_engine_refuses_does_not_cost_its_process(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(lambda: say(wire.FAIL, text='too dark'))")) as served:
        for _ in range(2):
            assert await fault_at(served.engine, rows=2) == "the engine refused: too dark"
            await logits(served.engine, pictures(1))
        assert len(log.of("engine_loaded")) == 1
        assert not served.restarts


async def test_a_process_that_refuses_one_batch_after_the_other_is_replaced(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(lambda: say(wire.FAIL, text='too dark'))")) as served:
        first = log.pid
        for _ in range(3):
            assert await fault_at(served.engine, rows=2) == "the engine refused: too dark"
        assert log.of("engine_useless")[0]["fault"] == "the engine refused: too dark"
        await logits(served.engine, pictures(1))
        assert gone(first)
        for _ in range(2):
            await fault_at(served.engine, rows=2)
        await logits(served.engine, pictures(1))
        assert served.restarts == 1


async def test_a_process_without_memory_for_a_batch_is_replaced(log: LogWatch) -> None:
    async with serving(replace(SIMULATED, classes=200_000)) as served:
        taken = psutil.Process(log.pid).memory_info().vms
        resource.prlimit(log.pid, resource.RLIMIT_AS, (taken, taken))
        said = await fault_at(served.engine, rows=8)
        assert said == f"{ENDED} (exit code 1) {RAN}"
        await logits(served.engine, pictures(8))
    assert any("MemoryError" in values["line"] for values in log.of("engine_output"))


MUTATIONS = """
import random, struct
def mutate():
    chance = random.Random(rows_of_batch)
    whole = wire.pack(wire.Packet(wire.DONE, rows=rows_of_batch, text="x" * chance.randrange(20)))
    if chance.random() < 0.5:
        whole = chance.randbytes(chance.randrange(1, 200))
    else:
        at = chance.choice([0, *range(4, 8), *range(16, 20)])
        whole = whole[:at] + bytes([whole[at] ^ chance.randrange(1, 256)]) + whole[at + 1:]
    talk.send(whole)
    signal.pause()

greet()
while data := talk.recv(wire.LONGEST_PACKET):
    rows_of_batch = wire.unpack(data).rows
    mutate() if rows_of_batch > 1 else say(wire.DONE, rows=1)
"""


async def test_whatever_bytes_a_child_answers_are_a_fault_of_its_batch_only(
    fake: Callable[[str], EngineOrder],
) -> None:
    order = replace(fake(MUTATIONS), run_timeout_s=5)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            served = Serving.of(order)
            await tasks.start(served.engine.serve)
            for rows in range(2, 26):
                said = await fault_at(served.engine, rows=rows)
                assert said.startswith(KILLED), said
                await logits(served.engine, pictures(1))  # the next process is well
            tasks.cancel_scope.cancel()
    assert served.restarts == 24


async def test_a_child_cannot_make_the_shared_memory_shorter(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(lambda: os.ftruncate(int(sys.argv[3]), 0))")) as served:
        assert await fault_at(served.engine, rows=2) == f"{ENDED} (exit code 1) {RAN}"
        await logits(served.engine, pictures(1))
    assert any("PermissionError" in values["line"] for values in log.of("engine_output"))


async def test_an_engine_that_answers_in_another_shape_than_the_bundle_says_does_not_cost_its_process(
    log: LogWatch,
) -> None:
    async with serving(replace(OPENVINO, classes=7)) as served:
        said = await fault_at(served.engine, rows=1, side=224)
        assert said == "the engine refused: ValueError: the engine answered float32 (1, 10) for 1 rows"
        assert len(log.of("engine_loaded")) == 1
        assert served.engine.is_ready
    assert any("Traceback" in values["line"] for values in log.of("engine_output"))


# Trouble: starts that keep failing.


@pytest.fixture
def breakable(script: Callable[[str], str], tmp_path: Path) -> EngineOrder:
    """Order a simulated engine that does not start while there is a file `broken`."""
    text = f'#!/bin/sh\ntest -e {tmp_path}/broken && exit 7\nexec {sys.executable} "$@"\n'
    return replace(SIMULATED, python=script(text))


async def test_trouble_is_set_when_starts_keep_failing_and_cleared_by_a_good_one(
    log: LogWatch, breakable: EngineOrder, tmp_path: Path
) -> None:
    async with serving(breakable) as served:
        (tmp_path / "broken").touch()
        os.kill(log.pid, signal.SIGKILL)
        await log.seen("engine_restart", 3)
        assert served.engine.trouble is None
        await log.seen("engine_restart", 4)
        assert served.engine.trouble == (
            "its engine failed 3 times in a row: "
            "the engine process ended (exit code 7) while it loaded its model"
        )
        assert not served.engine.is_ready
        (tmp_path / "broken").unlink()
        await served.engine.ready()
        assert served.engine.trouble is None
        assert served.restarts == 4
        await logits(served.engine, pictures(1))


async def test_trouble_is_set_when_process_after_process_fails_at_its_first_batch_and_pauses_grow(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(lambda: os._exit(4))")) as served:
        for failures in range(1, 4):
            assert served.engine.trouble is None
            await fault_at(served.engine, rows=2)
            await log.seen("engine_restart", failures)
        assert served.engine.trouble == "its engine failed 3 times in a row: exit code 4"
        await logits(served.engine, pictures(1))
        assert served.engine.trouble is None
        await fault_at(served.engine, rows=2)
        await log.seen("engine_restart", 4)
        assert [values["pause_s"] for values in log.of("engine_restart")] == [0.2, 0.4, 0.8, 0.2]


async def test_the_bell_rings_when_trouble_begins(
    log: LogWatch, breakable: EngineOrder, tmp_path: Path
) -> None:
    heard: list[str | None] = []
    async with serving(breakable) as served, anyio.create_task_group() as tasks:

        async def listen() -> None:
            while True:
                await served.bell.wait()
                heard.append(served.engine.trouble)

        tasks.start_soon(listen)
        (tmp_path / "broken").touch()
        os.kill(log.pid, signal.SIGKILL)
        await log.seen("engine_restart", 4)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert heard[-1] is not None


async def test_the_bell_rings_when_a_process_is_lost_and_when_the_next_is_there(log: LogWatch) -> None:
    async with serving(SIMULATED) as served:
        os.kill(log.pid, signal.SIGKILL)
        await served.bell.wait()
        assert not served.engine.is_ready
        await served.bell.wait()
        assert served.engine.is_ready


async def test_a_start_without_a_free_file_descriptor_is_an_engine_fault() -> None:
    served = Serving.of(SIMULATED)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(EngineFault, match="could not be started"):
            await served.engine.serve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# What a child prints.


async def test_what_a_child_prints_goes_to_the_log_with_the_name_of_its_model(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    prints = """
print("to standard output", flush=True)
print("to standard error", file=sys.stderr, flush=True)
os.write(1, b"\\n\\xff no UTF-8 \\n")
print("x" * 10_000, flush=True)
serve(lambda: (os.write(1, b"last words"), os._exit(1)))
"""
    async with serving(fake(prints)) as served:
        pid = log.pid
        await fault_at(served.engine, rows=2)
        await log.printed("last words")
    output = log.of("engine_output")
    lines = [values["line"] for values in output]
    assert lines[:3] == ["to standard output", "to standard error", "\N{REPLACEMENT CHARACTER} no UTF-8"]
    assert all(set(line) == {"x"} for line in lines[3:-2])
    assert lines[-2:] == ["at 2 rows", "last words"]
    assert {(values["model"], values["version"], values["pid"]) for values in output} == {("cats", "3", pid)}


@pytest.mark.usefixtures("fifo")
async def test_a_grandchild_that_holds_the_output_open_is_not_waited_for(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    dies = """
import subprocess
def die():
    subprocess.Popen(["cat"], stdin=hold)
    os._exit(9)
serve(die)
"""
    async with serving(fake(GRANDCHILD + dies)) as served:
        assert "exit code 9" in await fault_at(served.engine, rows=2)
        await logits(served.engine, pictures(1))
    assert len(log.of("engine_loaded")) == 2


# Nothing is left behind.


@dataclass(frozen=True)
class Belongings:
    """What this process holds: kinds of open files, children, maps of batch memory."""

    files: Counter[str]
    children: frozenset[int]
    batch_maps: int

    @classmethod
    def now(cls) -> "Belongings":
        files = Counter(_links(Path("/proc/self/fd").iterdir()))
        children = frozenset(child.pid for child in psutil.Process().children(recursive=True))
        return cls(files, children, Path("/proc/self/maps").read_text().count("cardinal-batch"))


def _links(paths: Iterator[Path]) -> Sequence[str]:
    links = []
    for path in paths:
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:  # the one that lists the directory
            continue
    return links


@pytest.fixture
def _nothing_is_left() -> Iterator[None]:
    gc.collect()
    before = Belongings.now()
    yield
    gc.collect()
    after = Belongings.now()
    assert after.children <= before.children
    assert after.files - before.files == Counter()
    assert after.batch_maps <= before.batch_maps


@pytest.mark.usefixtures("_nothing_is_left")
async def test_nothing_is_left_after_an_idle_engine_was_cancelled() -> None:
    before = Belongings.now()
    async with serving(SIMULATED) as served:
        await logits(served.engine, pictures(1))
        during = Belongings.now()
        assert len(during.children - before.children) == 1
        assert during.batch_maps == before.batch_maps + 1
        assert any("socket" in link for link in during.files - before.files)


@pytest.mark.usefixtures("_nothing_is_left")
async def test_nothing_is_left_after_an_engine_was_cancelled_mid_batch(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with serving(fake("serve(signal.pause)")) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.engine.run, [pictures(2)], 2)
        await log.printed("at 2 rows")
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("_nothing_is_left")
async def test_nothing_is_left_after_an_engine_was_cancelled_while_it_loads(
    log: LogWatch, fake: Callable[[str], EngineOrder]
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Serving.of(fake("print('loading', flush=True); hear()")).engine.serve)
        await log.printed("loading")
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("_nothing_is_left")
async def test_nothing_is_left_of_processes_that_failed(
    log: LogWatch, fake: Callable[[str], EngineOrder], tmp_path: Path
) -> None:
    await fault_at_start(replace(SIMULATED, python=str(tmp_path / "python4")))
    await fault_at_start(fake("os._exit(3)"))
    async with serving(fake("serve(lambda: os._exit(4))")) as served:
        await fault_at(served.engine, rows=2)
        await log.seen("engine_loaded", 2)


PARENT = """
import logging, sys
import anyio
from service.bell import Bell
from service.engines import Engine, EngineOrder, SimulatedOptions
from service.metrics import Metrics

async def unproven(_):
    pass

class Pid(logging.Handler):
    def emit(self, record):
        print(record.fields["pid"], flush=True)

async def main():
    logging.getLogger("cardinal.engine").addHandler(Pid())
    logging.getLogger("cardinal.engine").setLevel("INFO")
    options = SimulatedOptions(table="test", latency_s={1: 0.001})
    order = EngineOrder(model="cats", version="3", files=(), options=options, side=4,
                        classes=10, max_rows=4, threads=1, load_timeout_s=20, run_timeout_s=20)
    await Engine([order], Metrics(), Bell(), unproven).serve()

anyio.run(main)
"""


async def test_a_child_dies_with_its_parent() -> None:
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.open_process([sys.executable, "-c", PARENT], stderr=None) as parent:
            assert parent.stdout is not None
            child = os.pidfd_open(int(await parent.stdout.receive()))
            parent.kill()
            await parent.wait()
        await anyio.wait_readable(child)
        os.close(child)


def test_a_child_whose_parent_is_gone_before_it_can_tell_ends_by_itself() -> None:
    child = Path(__file__).parents[2] / "service/engines/child"
    ended = subprocess.run(
        [sys.executable, child, "0", "0", "1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == "the parent is gone\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_child_ignores_the_signals_that_are_meant_for_its_parent(
    number: signal.Signals, log: LogWatch
) -> None:
    async with serving(SIMULATED) as served:
        os.kill(log.pid, number)
        await logits(served.engine, pictures(64))
        assert psutil.pid_exists(log.pid)
    assert len(log.of("engine_loaded")) == 1
    assert log.of("engine_output") == []
