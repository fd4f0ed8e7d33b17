"""The end of a server: nobody who was let in goes without an answer, and nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from load import OverGrpc, OverRest, pressed
from patience import PATIENCE_S
from pictures import encoded, photo
from serving import UNTRAINED, RunningServer, eventually, get, post

pytestmark = pytest.mark.e2e

IMAGE = encoded(photo(64, 64))


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept connections", "new connections"])
def test_sigterm_under_load_answers_every_accepted_request(
    start: Callable[..., RunningServer], *, keep_alive: bool
) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "1")
    engines = psutil.Process(server.process.pid).children()
    clients = [OverRest(server.rest, "sknet50", IMAGE, keep_alive=keep_alive) for _ in range(6)]
    clients += [OverGrpc(server.grpc, "sknet50", IMAGE) for _ in range(2)]
    with pressed(clients) as load:
        eventually(lambda: len(load.since(0)) > 100, "the clients are served")
        asked = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: len(load.since(asked)) > 20, "requests are still taken for a moment")
        assert server.process.wait(PATIENCE_S) == 0

    codes = Counter(outcome.code for outcome in load.outcomes)
    assert codes.keys() == {"OK", "refused"}, [o for o in load.outcomes if o.code not in ("OK", "refused")]
    assert codes["refused"] == 8
    assert not any(engine.is_running() for engine in engines)
    leftovers = [file for file in Path("/dev/shm").iterdir() if "cardinal" in file.name]
    assert leftovers == []
    with pytest.raises(httpx.ConnectError):
        get(f"{server.control}/live")


def test_while_it_drains_the_server_is_live_but_not_ready(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "2")
    server.process.send_signal(signal.SIGTERM)
    server.event("stopping")
    assert get(f"{server.control}/live").status_code == 200
    ready = get(f"{server.control}/ready")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["the server is stopping"]
    late = post(f"{server.rest}/v1/models/sknet50/classify", content=IMAGE)
    assert late.status_code == 200
    assert late.headers["connection"] == "close"
    assert server.process.wait(PATIENCE_S) == 0


def test_requests_beyond_the_drain_limit_are_cut_off_with_an_answer(
    start: Callable[..., RunningServer],
) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "0", "--drain-timeout-s", "1", "--engine-timeout-s", "600")
    os.kill(int(server.events("engine_loaded", 1, model="sknet50")[0]["pid"]), signal.SIGSTOP)
    stuck = OverRest(server.rest, "sknet50", IMAGE, keep_alive=True)
    with pressed([stuck]) as load:
        metrics = f"{server.control}/metrics"
        busy = 'cardinal_requests_in_progress{door="rest"} 1.0'
        eventually(lambda: busy in get(metrics).text, "the request is in the server")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: len(load.outcomes) > 0, "the request is answered")
        load.ended.set()
        assert load.outcomes[0].code == "STOPPING"
        assert server.process.wait(PATIENCE_S) == 0


def test_an_upload_that_does_not_end_is_cut_off_with_an_answer(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "0", "--drain-timeout-s", "1")
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as upload:
        upload.sendall(
            b"POST /v1/models/sknet50/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nabc"
        )
        busy = 'cardinal_requests_in_progress{door="rest"} 1.0'
        eventually(lambda: busy in get(f"{server.control}/metrics").text, "the upload has begun")
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while b"}" not in answer:
            answer += upload.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"STOPPING" in answer
    assert server.process.wait(PATIENCE_S) == 0
    assert not [line for line in server.log if line["event"] in ("not_json", "unforeseen_error")]


def test_whoever_watches_the_health_is_told_of_the_end(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "0")
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert list(watch) == []
    assert server.process.wait(PATIENCE_S) == 0


def test_ctrl_c_ends_at_once_and_cleanly(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "60")
    assert server.stop(signal.SIGINT) == 0


def test_a_second_signal_does_not_wait(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, "--lame-duck-s", "600")
    server.process.send_signal(signal.SIGTERM)
    server.event("stopping")
    server.process.send_signal(signal.SIGTERM)
    server.event("forced")
    for _ in range(20):
        server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_S) == 0
    assert not [line for line in server.log if line["event"] == "not_json"]


def test_sigterm_while_models_load_ends_the_server(start: Callable[..., RunningServer]) -> None:
    server = start(UNTRAINED, wait="listening")
    assert server.stop(signal.SIGTERM) == 0


def test_a_port_in_use_is_said_before_anything_is_loaded(start: Callable[..., RunningServer]) -> None:
    server = start()
    port = server.rest.rpartition(":")[2]
    for flag in ("--rest-port", "--grpc-port", "--control-port"):
        ports = {"--rest-port": "0", "--grpc-port": "0", "--control-port": "0"} | {flag: port}
        words = [word for pair in ports.items() for word in pair]
        second = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--model-repository", str(UNTRAINED), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=UNTRAINED.parents[1],
        )
        assert second.returncode == 2
        assert f"{flag[2:].replace('-', '_')} is {port}: cannot listen on 127.0.0.1" in second.stderr
        assert "Traceback" not in second.stderr
