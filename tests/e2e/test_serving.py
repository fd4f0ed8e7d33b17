"""A running server as a stranger meets it: curl, the command line, standard probes and tools."""

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from patience import PATIENCE_S
from pictures import encoded, photo
from service.client import CardinalError, Client
from serving import ROOT, RunningServer, found, get

pytestmark = pytest.mark.e2e

MODELS = ["resnext101", "se_resnext50", "sknet50"]


def cardinal(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT)


@pytest.mark.parametrize("model", MODELS)
def test_curl_and_the_command_line_agree(server: RunningServer, tmp_path: Path, model: str) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(encoded(photo()))
    url = f"{server.rest}/v1/models/{model}/classify?top_k=1"
    curl = ["curl", "--silent", "--fail", "--data-binary", f"@{picture}", url]
    answer = httpx.Response(200, content=subprocess.run(curl, capture_output=True, check=True).stdout).json()
    best = answer["results"][0]["classes"][0]

    printed = cardinal("classify", str(picture), "--model", model, "--top-k", "1", "--address", server.grpc)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == f"{picture}\n  {best['score']:7.2%}  {best['label']}\n"


def test_the_command_line_says_what_went_wrong(server: RunningServer, tmp_path: Path) -> None:
    missing = cardinal("classify", str(tmp_path / "none.jpg"), "--model", "sknet50", "--address", server.grpc)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == f"cardinal: {tmp_path / 'none.jpg'}: No such file or directory\n"
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    refused = cardinal("classify", str(text), "--model", "sknet50", "--address", server.grpc)
    assert refused.returncode == 2
    assert "allowed are JPEG, PNG or WebP" in refused.stderr


def test_a_server_that_is_not_there_is_said_so() -> None:
    with Client("127.0.0.1:1", timeout_s=5) as client, pytest.raises(CardinalError) as caught:
        client.classify(b"", model="sknet50")
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("word", ["", "cardinal.v1.Classifier", *MODELS])
def test_grpc_health_answers_for_server_and_models(server: RunningServer, word: str) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=word), timeout=PATIENCE_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_grpc_health_knows_what_it_does_not_know(server: RunningServer) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="nope"), timeout=PATIENCE_S
        )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_grpc_reflection_lists_the_services(server: RunningServer) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        listed = next(stub.ServerReflectionInfo(asked, timeout=PATIENCE_S)).list_services_response.service
    assert {"cardinal.v1.Classifier", "grpc.health.v1.Health"} <= {service.name for service in listed}


def test_the_control_port_serves_probes_and_metrics(server: RunningServer) -> None:
    assert get(f"{server.control}/live").json() == {"live": True}
    assert get(f"{server.control}/ready").json() == {"ready": True, "reasons": []}
    metrics = get(f"{server.control}/metrics").text
    for model in MODELS:
        assert f'cardinal_model_ready{{model="{model}",version="1"}} 1.0' in metrics


def test_prometheus_own_checker_finds_nothing_wrong_with_the_metrics(server: RunningServer) -> None:
    promtool = found("promtool")
    metrics = get(f"{server.control}/metrics").content
    checked = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, check=False)
    ours = [line for line in checked.stderr.decode().splitlines() if line.startswith("cardinal")]
    assert ours == []


def test_the_api_page_needs_nothing_from_outside(server: RunningServer) -> None:
    page = get(f"{server.rest}/docs").text
    assert "swagger-ui" in page
    assert "https://" not in page
    paths = get(f"{server.rest}/openapi.json").json()["paths"]
    assert "/v1/models/{model}/classify" in paths


def test_a_body_over_the_limit_is_refused_and_the_connection_lives(http: httpx.Client) -> None:
    refused = http.post("/v1/models/sknet50/classify", content=bytes(17 * 1024 * 1024))
    assert refused.status_code == 413
    assert "allowed are 16777216" in refused.json()["error"]
    chunked = http.post("/v1/models/sknet50/classify", content=(bytes(1024 * 1024) for _ in range(17)))
    assert chunked.status_code == 413
    assert http.get("/v2/health/live").status_code == 200


def test_a_client_that_offers_http2_is_served(server: RunningServer, tmp_path: Path) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(encoded(photo()))
    url = f"{server.rest}/v1/models/sknet50/classify"
    curl = ["curl", "--silent", "--fail", "--http2", "--data-binary", f"@{picture}", url]
    assert b'"results"' in subprocess.run(curl, capture_output=True, check=True).stdout


def test_headers_without_end_are_given_up(server: RunningServer) -> None:
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as flood, suppress(ConnectionError):
        flood.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        while sent < 20_000_000:
            flood.sendall(b"a: b\r\n" * 1000)
            sent += 6000
    assert sent < 20_000_000
    assert get(f"{server.rest}/v2/health/live").status_code == 200


def test_metrics_are_given_whatever_the_accept_header_says(server: RunningServer) -> None:
    for accept in ("text/plain;version=a.b", "application/openmetrics-text;version=x", "*/*"):
        assert get(f"{server.control}/metrics", headers={"accept": accept}).status_code == 200
