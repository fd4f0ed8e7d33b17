import hashlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import psutil
import pytest

from options import serving_options
from patience import PATIENCE_S
from service.answers import scores_of
from service.batching import Urgency
from service.bell import Bell
from service.devices import parse_devices
from service.engines import LiteOptions
from service.errors import EngineFault, ModelNotFound, ModelNotReady, ServiceError, Stopping
from service.images import decode
from service.machine import Machine
from service.metrics import Metrics
from service.repository import Repository, RepositoryError, ServedModel, ServingOptions
from serving import UNTRAINED

pytestmark = pytest.mark.anyio

UNTRAINED_BUNDLE = UNTRAINED / "sknet50" / "1"
LITE_STAND_IN = Path(__file__).parents[1] / "support/lite_stand_in"

OPENVINO = serving_options("auto")
SIMULATED = replace(OPENVINO, engine="simulated")  # loads fast, where a test is not about answers

Change = Callable[[Path], None]


def put(repository: Path, model: str, version: str = "1") -> Path:
    """Put a good bundle into a repository."""
    return Path(shutil.copytree(UNTRAINED_BUNDLE, repository / model / version))


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "model.json").read_text())
    change(manifest)
    (bundle / "model.json").write_text(json.dumps(manifest))


@dataclass
class Serving:
    repository: Repository
    metrics: Metrics
    bell: Bell
    ended: anyio.Event

    async def settled(self) -> None:
        """Wait until no model is loading any more."""
        while any(slot.is_loading for slot in self.repository.slots):
            await self.bell.wait()

    def failure(self, model: str) -> str:
        with pytest.raises(ModelNotReady) as refusal:
            self.repository.find(model)
        assert refusal.value.retry_after_s
        return str(refusal.value)

    def ready_metric(self, model: str, version: str = "1") -> float | None:
        labels = {"model": model, "version": version}
        return self.metrics.registry.get_sample_value("cardinal_model_ready", labels)

    def engines_ready(self, model: str) -> dict[str, float]:
        """Give the metric of each engine by its device."""
        (metric,) = self.metrics.engine_ready.collect()
        return {each.labels["device"]: each.value for each in metric.samples if each.labels["model"] == model}

    def engine_of_info(self, model: str) -> set[str]:
        (metric,) = self.metrics.model_info.collect()
        return {each.labels["engine"] for each in metric.samples if each.labels["model"] == model}


@asynccontextmanager
async def serving(directory: Path, options: ServingOptions = SIMULATED) -> AsyncIterator[Serving]:
    metrics, bell = Metrics(), Bell()
    served = Serving(Repository(directory, options, metrics, bell), metrics, bell, anyio.Event())
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:

            async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                await served.repository.run(task_status=task_status)
                served.ended.set()

            await tasks.start(run)
            yield served
            served.repository.close()


def rows(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture
def _info(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "cardinal"):
        yield


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [getattr(line, "fields", {}) for line in caplog.records if line.getMessage() == event]


# Loading and verifying.


@pytest.mark.usefixtures("_info")
async def test_a_good_bundle_is_verified_and_answers_as_its_golden_samples_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "cats")
    async with serving(tmp_path, OPENVINO) as served:
        slot = served.repository.slot("cats")
        assert slot.is_loading
        assert served.ready_metric("cats") == 0
        await served.settled()
        assert slot.is_ready
        assert slot.reason == ""
        assert served.ready_metric("cats") == 1
        model = served.repository.find("cats", "1")
        manifest = model.bundle.manifest
        pictures = [
            decode(picture, manifest.preprocessing, max_pixels=1_000_000)
            for picture in model.bundle.golden_pictures
        ]
        answer = await model.queue.submit(np.stack(pictures), Urgency())
        scores = scores_of(answer.logits, manifest.temperature)
        expected = np.array([sample.scores for sample in manifest.golden.samples])
        np.testing.assert_allclose(scores, expected, atol=1e-3)
    agreed = events(caplog, "golden_samples_agree")
    assert [(line["model"], line["version"]) for line in agreed] == [("cats", "1")]
    assert agreed[0]["largest_deviation"] < 1e-3
    assert [line["model"] for line in events(caplog, "model_ready")] == ["cats"]


async def test_the_metrics_tell_what_runs_a_model_and_forget_its_readiness_when_it_ends(
    tmp_path: Path,
) -> None:
    put(tmp_path, "cats", "7")
    async with serving(tmp_path) as served:
        await served.settled()
        info = {"model": "cats", "version": "7", "network": "sknet50", "untrained": "true"}
        labels = info | {"engine": "simulated 310p/se_resnext50"}
        assert served.metrics.registry.get_sample_value("cardinal_model_info", labels) == 1
        assert served.ready_metric("cats", "7") == 1
    assert served.ready_metric("cats", "7") == 0


def change_a_byte(bundle: Path) -> None:
    graph = bytearray((bundle / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(graph)


def remove_labels(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()


def change_a_golden_score(bundle: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"]["samples"][1]["scores"][3] = 0.5

    edit(bundle, change)


def misspell_a_key(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(clases=manifest.pop("classes")))


def link_out_of_the_bundle(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    (bundle / "labels.txt").symlink_to("/etc/hostname")


NPU = {"engine": "mindspore_lite", "target": "ascend310p", "gears": [1]}


def name_an_artifact_for_npus_only(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["artifacts"][0].update(NPU))


DAMAGES = {
    change_a_byte: ["model.onnx: its sha256 is ", "but model.json says 3a1f10e8f42151af"],
    remove_labels: ["labels.txt: No such file or directory, but model.json names it"],
    change_a_golden_score: [
        "model.json: golden.samples[1].scores[3] is 0.5, but openvino ",
        " answers 0.0108",
        "off by 0.489, allowed is 0.0005",
    ],
    misspell_a_key: ["model.json: classes is missing", "clases is 10: Unexpected"],
    link_out_of_the_bundle: ["labels.txt: leads out of the bundle, to /etc/hostname"],
    name_an_artifact_for_npus_only: [
        "model.json: artifacts are for mindspore_lite on ascend310p; none is for engine auto on cpu"
    ],
}


@pytest.mark.usefixtures("_info")
async def test_each_damage_fails_its_own_model_with_file_key_and_value_while_others_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "good")
    for damage in DAMAGES:
        damage(put(tmp_path, damage.__name__))
    async with serving(tmp_path, OPENVINO) as served:
        await served.settled()
        for damage, words in DAMAGES.items():
            reason = served.failure(damage.__name__)
            assert reason.startswith(f"model {damage.__name__} is not ready: ")
            for word in words:
                assert word in reason
            assert served.ready_metric(damage.__name__) == 0
        assert served.ready_metric("good") == 1
        answer = await served.repository.find("good").queue.submit(rows(1), Urgency())
        assert answer.logits.shape == (1, 10)
    failed = {line["model"]: line["error"] for line in events(caplog, "model_failed")}
    assert failed.keys() == {damage.__name__ for damage in DAMAGES}
    assert "labels.txt" in failed["remove_labels"]


BF16_OR_F32 = replace(
    OPENVINO,
    openvino_precision="auto",
    machine=Machine(ascend_nodes=(), cpu_model="", cpu_flags=frozenset({"avx512_bf16"})),
)


@pytest.mark.skipif(not Machine.look().computes_bf16, reason="this CPU computes bf16 as f32")
@pytest.mark.parametrize(("tolerance", "precision"), [(0.001, "f32"), (0.2, "bf16")])
async def test_bf16_is_served_only_where_the_golden_samples_agree(
    tmp_path: Path, tolerance: float, precision: str
) -> None:
    edit(put(tmp_path, "cats"), lambda manifest: manifest["golden"].update(tolerance=tolerance))
    async with serving(tmp_path, BF16_OR_F32) as served:
        await served.settled()
        assert served.repository.find("cats").about.endswith(f" cpu {precision}")


@pytest.mark.usefixtures("_info")
async def test_a_precision_that_was_refused_is_in_the_log_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_a_golden_score(put(tmp_path, "cats"))
    async with serving(tmp_path, BF16_OR_F32) as served:
        await served.settled()
        assert "golden.samples[1].scores[3]" in served.failure("cats")
    (line,) = events(caplog, "engine_way_refused")
    assert (line["refused"], line["taken"]) == ("openvino bf16", "openvino f32")
    assert "golden.samples" in line["reason"]


async def test_a_model_that_fails_its_verification_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    change_a_golden_score(put(tmp_path, "cats"))
    async with serving(tmp_path, OPENVINO) as served:
        await served.settled()
        assert children() == before


@pytest.mark.usefixtures("_info")
async def test_a_simulated_engine_skips_the_golden_samples_and_warns_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_a_golden_score(put(tmp_path, "cats"))
    async with serving(tmp_path) as served:
        await served.settled()
        assert served.repository.find("cats").about == "simulated 310p/se_resnext50"
    skipped = events(caplog, "golden_samples_skipped")
    assert [(line["model"], line["version"]) for line in skipped] == [("cats", "1")]
    assert [line.levelname for line in caplog.records if "skipped" in line.getMessage()] == ["WARNING"]


# What a directory holds.


def scanned(directory: Path) -> Repository:
    """Read a directory without loading anything; an event loop is needed all the same."""
    return Repository(directory, SIMULATED, Metrics(), Bell())


async def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    for version in ("2", "10", "9", "010", "0", "-11", "v12", "13.old", ".14"):
        (tmp_path / "cats" / version).mkdir(parents=True)
    slot = scanned(tmp_path).slot("cats")
    assert slot.version == "10"
    assert slot.directory == tmp_path / "cats/10"


async def test_a_file_that_is_named_like_a_version_is_none(tmp_path: Path) -> None:
    (tmp_path / "cats/2").mkdir(parents=True)
    (tmp_path / "cats/9").touch()
    assert scanned(tmp_path).slot("cats").version == "2"


async def test_hidden_directories_files_and_what_volumes_bring_along_are_no_models(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("dogs", ".publishing-cats", "lost+found", "cats", "a b"):
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "README.md").touch()
    assert [slot.model for slot in scanned(tmp_path).slots] == ["cats", "dogs"]
    ignored = events(caplog, "directory_ignored")
    assert sorted(line["path"].name for line in ignored) == ["a b", "lost+found"]


async def test_a_model_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/3").mkdir(parents=True)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/cats").symlink_to(tmp_path / "elsewhere")
    assert scanned(tmp_path / "repository").slot("cats").version == "3"


@pytest.mark.usefixtures("_info")
async def test_a_model_without_a_version_says_so_and_is_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cats/latest").mkdir(parents=True)
    async with serving(tmp_path) as served:
        await served.settled()
        assert f"{tmp_path}/cats: holds no version, a directory named by a positive" in served.failure("cats")
        assert served.ready_metric("cats", "") == 0
    assert len(events(caplog, "model_failed")) == 1


@pytest.mark.parametrize("kind", ["missing", "file"])
async def test_a_repository_that_cannot_be_read_is_an_error_with_its_path(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match=f"model repository {tmp_path / kind}: N"):
        scanned(tmp_path / kind)


# Finding a model.


async def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no model 'cats'; there is none at all"):
        scanned(tmp_path).find("cats")
    for name in ("b", "a"):
        (tmp_path / name / "1").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"there is no model 'cats'; there is a, b$"):
        scanned(tmp_path).find("cats")
    for index in range(10):
        (tmp_path / f"many{index}" / "1").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"there is a, b, many0, .*, many7, \.\.\.$"):
        scanned(tmp_path).find("cats")


async def test_a_name_that_is_long_is_cut_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        scanned(tmp_path).find("x" * 10_000)
    assert len(str(refusal.value)) < 200


async def test_a_version_that_is_not_served_is_told_with_the_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "cats/3").mkdir(parents=True)
    (tmp_path / "dogs").mkdir()
    with pytest.raises(ModelNotFound, match="model cats has no version '1'; 3 is served"):
        scanned(tmp_path).find("cats", "1")
    with pytest.raises(ModelNotFound, match="model dogs has no version '1'; none is served"):
        scanned(tmp_path).find("dogs", "1")


async def test_a_model_that_is_loading_is_not_ready_yet(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    async with serving(tmp_path) as served:
        assert served.failure("cats") == "model cats is not ready: it is being loaded"
        await served.settled()
        assert served.repository.find("cats").version == "1"


async def test_a_model_whose_engine_is_started_again_is_found_but_not_ready(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    before = children()
    async with serving(tmp_path) as served:
        await served.settled()
        slot = served.repository.slot("cats")
        (child,) = children() - before
        os.kill(child, signal.SIGKILL)
        while slot.is_ready:
            await served.bell.wait()
        assert slot.reason == "its engine is being started again"
        assert served.ready_metric("cats") == 0
        answer = await served.repository.find("cats").queue.submit(rows(1), Urgency())
        assert len(answer.logits) == 1
        assert slot.is_ready


async def test_a_simulated_device_that_is_to_fail_does_so_only_when_it_serves(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    failing = replace(SIMULATED, simulated=replace(SIMULATED.simulated, faults={"crash": 1.0}))
    async with serving(tmp_path, failing) as served:
        await served.settled()
        with pytest.raises(EngineFault, match="SIGSEGV"):
            await served.repository.find("cats").queue.submit(rows(1), Urgency())


# Several engines.


async def all_ready(served: Serving, model: ServedModel) -> None:
    while not all(engine.is_ready for engine in model.engines):
        await served.bell.wait()


async def test_a_model_with_several_engines_is_ready_while_one_of_them_is(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    before = children()
    async with serving(tmp_path, replace(SIMULATED, devices=parse_devices("ascend:0-1"))) as served:
        await served.settled()
        model = served.repository.find("cats")
        await all_ready(served, model)
        assert served.engines_ready("cats") == {"ascend:0": 1, "ascend:1": 1}
        os.kill((children() - before).pop(), signal.SIGKILL)
        while all(engine.is_ready for engine in model.engines):
            await served.bell.wait()
        assert sorted(served.engines_ready("cats").values()) == [0, 1]
        assert served.repository.slot("cats").is_ready
        assert len((await model.queue.submit(rows(1), Urgency())).logits) == 1
        await all_ready(served, model)


@pytest.fixture
def on_npus(tmp_path: Path) -> ServingOptions:
    """Serve on two NPUs of the stand-in; there are none while there is a file `broken`."""
    for node in ("davinci0", "davinci1"):
        (tmp_path / node).touch()
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\ntest -e {tmp_path}/broken && exit 7\n"
        f'PYTHONPATH={LITE_STAND_IN} exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    machine = Machine(ascend_nodes=("davinci0", "davinci1"), cpu_model="", cpu_flags=frozenset())
    lite = LiteOptions(device_folder=tmp_path)
    return replace(OPENVINO, machine=machine, lite=lite, lite_python=python)


def put_for_npus(repository: Path, model: str) -> None:
    """Put a bundle that the CPU runs as it is, and NPUs as the stand-in does: its golden samples prove nothing."""
    bundle = put(repository, model)
    graph = b"CustomAscend\n" + json.dumps({"gears": [1, 4], "side": 224, "classes": 10}).encode()
    (bundle / "npu.mindir").write_bytes(graph)
    digest = hashlib.sha256(graph).hexdigest()

    def change(manifest: dict[str, Any]) -> None:
        artifact = NPU | {"file": "npu.mindir", "sha256": digest, "gears": [1, 4], "precision": "f16"}
        manifest["artifacts"].append(artifact)
        manifest["golden"]["tolerance"] = 1.0
        del manifest["golden"]["samples"][1:]
        manifest["golden"]["samples"][0]["scores"] = [1.0, *[0.0] * 9]  # nothing is further off than 1

    edit(bundle, change)


def kill_all(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("_info")
async def test_a_model_falls_over_to_the_cpu_when_its_npus_fail_and_back_when_one_is_there_again(
    tmp_path: Path, on_npus: ServingOptions, caplog: pytest.LogCaptureFixture
) -> None:
    put_for_npus(tmp_path / "models", "cats")
    before = children()
    async with serving(tmp_path / "models", on_npus) as served:
        await served.settled()
        model, slot = served.repository.find("cats"), served.repository.slot("cats")
        while sum(served.engines_ready("cats").values()) < 2:
            await served.bell.wait()
        assert model.about == "mindspore_lite 2.7.0 ascend:0"
        assert len(children() - before) == 2

        (tmp_path / "broken").touch()
        kill_all(children() - before)
        while not model.about.startswith("openvino"):
            await served.bell.wait()
        assert slot.is_ready
        assert (await model.queue.submit(rows(1), Urgency())).logits.shape == (1, 10)
        assert served.engines_ready("cats") == {"ascend:0": 0, "ascend:1": 0, "cpu:0": 1}
        assert served.engine_of_info("cats") == {model.about}

        (tmp_path / "broken").unlink()
        while not model.about.startswith("mindspore_lite"):
            await served.bell.wait()
        assert served.engines_ready("cats")["cpu:0"] == 0
        assert (await model.queue.submit(rows(2), Urgency())).logits.shape == (2, 10)
    labels = {"model": "cats", "version": "1"}
    assert served.metrics.registry.get_sample_value("cardinal_fallovers_total", labels) == 1
    (over,) = events(caplog, "fell_over")
    assert over["device"] == "cpu:0"
    assert over["reasons"][1].startswith("ascend:1: its engine failed 3 times in a row")
    assert len(events(caplog, "fell_back")) == 1


async def test_a_model_whose_npus_never_start_is_served_by_the_cpu(
    tmp_path: Path, on_npus: ServingOptions
) -> None:
    put_for_npus(tmp_path / "models", "cats")
    (tmp_path / "broken").touch()
    async with serving(tmp_path / "models", on_npus) as served:
        await served.settled()
        assert served.repository.find("cats").about.startswith("openvino")


async def test_a_model_for_npus_only_fails_with_the_reasons_of_all(
    tmp_path: Path, on_npus: ServingOptions
) -> None:
    put_for_npus(tmp_path / "models", "cats")
    (tmp_path / "broken").touch()
    async with serving(tmp_path / "models", replace(on_npus, engine="mindspore_lite")) as served:
        await served.settled()
        assert "the engine process ended (exit code 7)" in served.failure("cats")


async def test_one_npu_that_never_starts_does_not_keep_the_others_from_serving(
    tmp_path: Path, on_npus: ServingOptions
) -> None:
    put_for_npus(tmp_path / "models", "cats")
    (tmp_path / "davinci1").unlink()  # known to the server, gone when its engine looks
    async with serving(tmp_path / "models", on_npus) as served:
        await served.settled()
        model = served.repository.find("cats")
        while not all(engine.is_ready or engine.trouble for engine in model.engines[:2]):
            await served.bell.wait()
        assert model.about == "mindspore_lite 2.7.0 ascend:0"
        assert "ascend:1 is not there" in str(model.engines[1].trouble)
        assert served.engines_ready("cats") == {"ascend:0": 1, "ascend:1": 0, "cpu:0": 0}


# Stopping.


async def test_closing_answers_what_was_accepted_and_then_ends(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    before, answered = children(), []

    async with serving(tmp_path) as served:
        await served.settled()
        model = served.repository.find("cats")

        async def ask(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            task_status.started()
            answered.append(len((await model.queue.submit(rows(6), Urgency())).logits))

        async with anyio.create_task_group() as callers:
            for _ in range(3):
                await callers.start(ask)
            served.repository.close()
            with pytest.raises(Stopping):
                await model.queue.submit(rows(1), Urgency())
        await served.ended.wait()
        assert "it has been stopped" in served.failure("cats")
    assert answered == [6, 6, 6]
    assert children() == before


async def test_closing_gives_up_a_model_that_is_loading(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    before = children()
    async with serving(tmp_path, OPENVINO) as served:
        while children() == before:
            await anyio.lowlevel.checkpoint()
        served.repository.close()
        await served.ended.wait()
        assert not served.repository.slot("cats").is_ready
    assert children() == before


async def test_a_model_that_was_given_up_is_not_loading_any_more(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    async with serving(tmp_path) as served:
        served.repository.close()
        await served.ended.wait()
        assert "it has been stopped" in served.failure("cats")


async def test_a_repository_without_models_ends_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.ended.wait()


async def test_cutting_off_answers_what_a_hanging_engine_holds_and_ends(tmp_path: Path) -> None:
    put(tmp_path, "cats")
    before, errors = children(), list[type[ServiceError]]()
    async with serving(tmp_path) as served:
        await served.settled()
        (child,) = children() - before
        os.kill(child, signal.SIGSTOP)

        async def ask() -> None:
            try:
                await served.repository.find("cats").queue.submit(rows(1), Urgency())
            except ServiceError as error:
                errors.append(type(error))

        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            callers.start_soon(ask)
            for _ in range(10):  # turns of the loop: the batch is on its way then
                await anyio.lowlevel.checkpoint()
            served.repository.cut_off()
        assert errors == [Stopping, Stopping]
        await served.ended.wait()
    assert children() == before
