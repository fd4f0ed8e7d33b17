"""A repository with good and broken bundles: the good are served, the log says what is wrong with the others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from patience import PATIENCE_S
from pictures import encoded, photo
from serving import UNTRAINED, RunningServer, checked, get

pytestmark = pytest.mark.e2e


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One good model and three broken ones."""
    for name in ("good", "changed_byte", "missing_labels", "wrong_score"):
        shutil.copytree(UNTRAINED / "sknet50" / "1", tmp_path / name / "1")
    graph = tmp_path / "changed_byte" / "1" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    (tmp_path / "missing_labels" / "1" / "labels.txt").unlink()
    manifest = tmp_path / "wrong_score" / "1" / "model.json"
    document = json.loads(manifest.read_text())
    document["golden"]["samples"][1]["scores"][3] = 0.75
    manifest.write_text(json.dumps(document))
    return tmp_path


def test_broken_bundles_are_named_and_the_good_one_is_served(
    start: Callable[..., RunningServer], repository: Path
) -> None:
    server = start(repository, wait="model_ready")
    failed = {line["model"]: line["error"] for line in server.events("model_failed", 3)}
    assert failed.keys() == {"changed_byte", "missing_labels", "wrong_score"}
    assert failed["changed_byte"].startswith("model.onnx: its sha256 is ")
    assert "but model.json says" in failed["changed_byte"]
    assert failed["missing_labels"] == "labels.txt: No such file or directory, but model.json names it"
    assert "model.json: golden.samples[1].scores[3] is 0.75, but openvino" in failed["wrong_score"]
    assert "off by 0.7" in failed["wrong_score"]

    with httpx.Client(base_url=server.rest, timeout=PATIENCE_S) as client:
        image = encoded(photo())
        assert client.post("/v1/models/good/classify", content=image).status_code == 200
        assert client.get("/v2/models/good/ready").status_code == 200
        for name, reason in failed.items():
            refused = client.post(f"/v1/models/{name}/classify", content=image)
            assert refused.status_code == 503
            assert reason in refused.json()["error"]
            assert client.get(f"/v2/models/{name}/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        described = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
        assert described["missing_labels"]["reason"] == failed["missing_labels"]


def test_readiness_can_be_limited_to_some_models(
    start: Callable[..., RunningServer], repository: Path
) -> None:
    server = start(repository, "--required-models", "good")
    assert get(f"{server.control}/ready").status_code == 200


def test_check_loads_everything_and_tells_by_its_exit_code(repository: Path) -> None:
    assert checked(UNTRAINED).returncode == 0
    broken = checked(repository)
    assert broken.returncode == 1
    assert "model missing_labels: labels.txt: No such file or directory" in broken.stderr
    nowhere = checked(repository / "nowhere")
    assert nowhere.returncode == 2
    assert (
        nowhere.stderr == f"cardinal: model repository {repository / 'nowhere'}: No such file or directory\n"
    )


def test_a_check_takes_no_port(start: Callable[..., RunningServer]) -> None:
    server = start()
    ports = ("--rest-port", server.rest.rpartition(":")[2], "--grpc-port", server.grpc.rpartition(":")[2])
    check = checked(UNTRAINED, *ports)
    assert (check.returncode, check.stdout) == (0, "")
