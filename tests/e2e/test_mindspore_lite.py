"""Real MindSpore Lite behind a real server: it answers as OpenVINO does, by both doors, and is started again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from load import OverRest, pressed
from mindir import bundle_with_mindir, found_lite_python
from patience import PATIENCE_S
from pictures import encoded, photo
from service.client import Client
from serving import RunningServer, eventually

pytestmark = pytest.mark.e2e

MODELS = ("resnext101", "se_resnext50", "sknet50")
GEARS = (1, 4)
PHOTOS = [encoded(photo(seed=seed)) for seed in range(3)]

Scores = dict[str, list[float]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found_lite_python()
    folder = tmp_path_factory.mktemp("repository")
    for model in MODELS:
        bundle_with_mindir(model, GEARS, folder)
    return folder


def scores_of(server: RunningServer, model: str) -> list[list[tuple[int, float]]]:
    """Classify the photos one by one by REST, and see that gRPC answers the same for all at once."""
    url = f"{server.rest}/v1/models/{model}/classify?top_k=10"
    answers = [httpx.post(url, content=each, timeout=PATIENCE_S).json() for each in PHOTOS]
    by_rest = [
        [(each["index"], each["score"]) for each in answer["results"][0]["classes"]] for answer in answers
    ]
    with Client(server.grpc) as client:
        together = client.classify(*PHOTOS, model=model, top_k=10)
    assert {answer["engine"] for answer in answers} == {together.engine}
    for rest, rpc in zip(by_rest, together.results, strict=True):
        assert [index for index, _ in rest] == [each.index for each in rpc]
        assert [score for _, score in rest] == pytest.approx([each.score for each in rpc], abs=1e-5)
    return by_rest


def test_mindspore_lite_answers_as_openvino_does_by_both_doors(
    start: Callable[..., RunningServer], repository: Path
) -> None:
    by_engine = {}
    for engine in ("mindspore_lite", "openvino"):
        server = start(repository, "--engine", engine)
        assert {line["engine"].split()[0] for line in server.events("model_ready", len(MODELS))} == {engine}
        by_engine[engine] = {model: scores_of(server, model) for model in MODELS}
    for model in MODELS:
        for lite, openvino in zip(
            by_engine["mindspore_lite"][model], by_engine["openvino"][model], strict=True
        ):
            assert [index for index, _ in lite[:5]] == [index for index, _ in openvino[:5]]
            assert dict(lite) == pytest.approx(dict(openvino), abs=1e-3)


def test_a_killed_mindspore_lite_is_started_again(
    start: Callable[..., RunningServer], repository: Path
) -> None:
    server = start(repository, "--engine", "mindspore_lite")
    clients = [OverRest(server.rest, "resnext101", PHOTOS[0], keep_alive=True) for _ in range(4)]
    with pressed(clients) as load:
        eventually(lambda: len(load.outcomes) > 10, "the clients are served")
        os.kill(int(server.events("engine_loaded", 1, model="resnext101")[0]["pid"]), signal.SIGKILL)
        server.events("engine_loaded", 2, model="resnext101")
        served = len(load.outcomes)
        eventually(lambda: len(load.outcomes) > served + 20, "the clients are served again")
    assert {outcome.code for outcome in load.outcomes} <= {"OK", "ENGINE_FAULT"}
    assert load.outcomes[-1].code == "OK"
