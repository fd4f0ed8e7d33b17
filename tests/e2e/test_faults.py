"""What happens to clients when an engine process dies under load."""

import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from load import OverRest, pressed
from patience import PATIENCE_S
from pictures import encoded, photo
from service.client import CardinalError, Client
from serving import UNTRAINED, RunningServer, eventually, get, post

pytestmark = pytest.mark.e2e

IMAGE = encoded(photo(64, 64))


def engine_pid(server: RunningServer, model: str) -> int:
    return int(server.events("engine_loaded", 1, model=model)[-1]["pid"])


def test_a_killed_engine_fails_its_batch_only_and_is_started_again_at_once(
    start: Callable[..., RunningServer],
) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "0")
    clients = [OverRest(server.rest, "sknet50", IMAGE, keep_alive=True) for _ in range(8)]
    with pressed(clients) as load:
        for life in range(1, 4):
            eventually(lambda wanted=50 * life: len(load.since(0)) > wanted, "the clients are served")
            os.kill(engine_pid(server, "sknet50"), signal.SIGKILL)
            server.events("engine_loaded", life + 1, model="sknet50")
        back = time.monotonic()
        eventually(lambda: len(load.since(back)) > 100, "the clients are served again")

    codes = Counter(outcome.code for outcome in load.outcomes)
    assert codes.keys() <= {"OK", "ENGINE_FAULT"}
    assert codes["ENGINE_FAULT"] <= 3 * 8  # a batch holds at most one request of each client
    for outcome in load.outcomes:
        if outcome.code == "ENGINE_FAULT":
            assert "signal 9, SIGKILL" in outcome.says
    assert {outcome.code for outcome in load.since(back)} == {"OK"}
    assert max(line["pause_s"] for line in server.events("engine_restart", 3)) < 1
    restarts = get(f"{server.control}/metrics").text
    assert 'cardinal_engine_restarts_total{device="cpu:0",model="sknet50",version="1"} 3.0' in restarts


def test_a_hung_engine_is_killed_and_replaced(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--engine-timeout-s", "1")
    with closing(OverRest(server.rest, "sknet50", IMAGE, keep_alive=True)) as classify:
        assert classify() == ("OK", "")
        os.kill(engine_pid(server, "sknet50"), signal.SIGSTOP)
        code, says = classify()
        assert code == "ENGINE_FAULT"
        assert "no answer for 1 s" in says
        assert classify() == ("OK", "")


def test_an_engine_dies_with_a_server_that_is_killed(start: Callable[..., RunningServer]) -> None:
    server = start()
    engines = psutil.Process(server.process.pid).children()
    assert len(engines) == 3
    server.stop(signal.SIGKILL)
    eventually(lambda: not any(engine.is_running() for engine in engines), "no engine is left")


def test_readiness_follows_the_engine(start: Callable[..., RunningServer]) -> None:
    server = start()
    url = f"{server.rest}/v2/models/sknet50/ready"
    assert get(url).status_code == 200
    os.kill(engine_pid(server, "sknet50"), signal.SIGKILL)
    server.event("not_ready")
    server.events("engine_loaded", 2, model="sknet50")
    eventually(lambda: get(url).status_code == 200, "the model is ready again")


def in_progress(server: RunningServer, door: str) -> float:
    metrics = get(f"{server.control}/metrics").text
    line = f'cardinal_requests_in_progress{{door="{door}"}} '
    return float(metrics.partition(line)[2].partition("\n")[0] or 0)


@contextmanager
def calling(server: RunningServer, body: bytes, *, declared_bytes: int) -> Iterator[socket.socket]:
    """Send a request, or its beginning, and hang up when the block ends."""
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    head = f"POST /v1/models/sknet50/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {declared_bytes}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def test_a_caller_that_leaves_is_let_go_by_both_doors(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--engine-timeout-s", "600")
    os.kill(engine_pid(server, "sknet50"), signal.SIGSTOP)

    with calling(server, IMAGE, declared_bytes=len(IMAGE)):
        eventually(lambda: in_progress(server, "rest") == 1, "the request is in the server")
    with Client(server.grpc, timeout_s=0.5) as client, pytest.raises(CardinalError) as caught:
        client.classify(IMAGE, model="sknet50")
    assert caught.value.code == "DEADLINE_EXCEEDED"

    for door in ("rest", "grpc"):
        eventually(lambda door=door: in_progress(server, door) == 0, f"{door} has let its caller go")
    server.event("request", door="rest", code="CANCELLED")
    os.kill(engine_pid(server, "sknet50"), signal.SIGCONT)
    assert post(f"{server.rest}/v1/models/sknet50/classify", content=IMAGE).status_code == 200


def test_a_body_that_comes_too_slowly_is_given_up(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--request-timeout-s", "1")
    with calling(server, b"abc", declared_bytes=1000) as slow:
        answer = b""
        while b"}" not in answer:
            answer += slow.recv(65536)
    assert answer.startswith(b"HTTP/1.1 504")
    assert b"the time ran out while its body was read" in answer


def test_more_requests_than_allowed_are_refused_at_once(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--max-requests", "2", "--engine-timeout-s", "600", "--drain-timeout-s", "0")
    os.kill(engine_pid(server, "sknet50"), signal.SIGSTOP)
    clients = [OverRest(server.rest, "sknet50", IMAGE, keep_alive=True) for _ in range(2)]
    with pressed(clients) as load:
        eventually(lambda: in_progress(server, "rest") == 2, "both are in progress")
        refused = post(f"{server.rest}/v1/models/resnext101/classify", content=IMAGE)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["code"] == "OVERLOADED"
        load.ended.set()
        os.kill(engine_pid(server, "sknet50"), signal.SIGCONT)
    assert post(f"{server.rest}/v1/models/resnext101/classify", content=IMAGE).status_code == 200


def test_an_engine_that_is_killed_while_it_loads_is_started_again(
    start: Callable[..., RunningServer],
) -> None:
    server = start(UNTRAINED, wait="listening")
    process = psutil.Process(server.process.pid)
    eventually(lambda: len(process.children()) > 0, "an engine has been started")
    process.children()[0].kill()
    server.event("ready")
    server.event("engine_restart")


def test_a_graph_that_changed_on_disk_is_not_served_after_a_restart(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    shutil.copytree(UNTRAINED / "sknet50", tmp_path / "sknet50")
    server = start(tmp_path)
    shutil.copy(UNTRAINED / "resnext101" / "1" / "model.onnx", tmp_path / "sknet50" / "1" / "model.onnx")
    os.kill(engine_pid(server, "sknet50"), signal.SIGKILL)
    restarts = server.events("engine_restart", 4)  # the fall, and three failed starts
    assert "model.onnx: its sha256 is" in restarts[-1]["fault"]
    eventually(
        lambda: post(f"{server.rest}/v1/models/sknet50/classify", content=IMAGE).status_code == 503,
        "the model is not ready",
    )
    assert "model.onnx: its sha256 is" in get(f"{server.rest}/v1/models/sknet50").json()["reason"]
    shutil.copy(UNTRAINED / "sknet50" / "1" / "model.onnx", tmp_path / "sknet50" / "1" / "model.onnx")
    url = f"{server.rest}/v2/models/sknet50/ready"
    eventually(lambda: get(url).status_code == 200, "the mended model is served again")
