"""The mindspore_lite engine: on an NPU against a stand-in for the library, on the CPU with the real one where it is."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import (
    LogWatch,
    answer_of,
    fault_at,
    fault_at_start,
    logits,
    pictures,
    serving,
    simulated_answers,
)
from mindir import convert, found_lite_python
from service.devices import CPU, Device
from service.engines import ArtifactFile, EngineOrder, LiteOptions
from serving import UNTRAINED

pytestmark = pytest.mark.anyio

STAND_IN = Path(__file__).parents[1] / "support/lite_stand_in"
CONTEXT = "{'thread_num': 0, 'thread_affinity_mode': 0, 'precision_mode': 'enforce_fp32'}"

Order = Callable[..., EngineOrder]


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """Order files of the stand-in, on an NPU of two unless told."""
    for node in ("davinci0", "davinci1", "davinci_manager"):
        (tmp_path / node).touch()

    def build(
        *graphs: dict[str, Any], version: str = "2.7.0", number: int = 0, **changes: Any
    ) -> EngineOrder:
        python = tmp_path / "python"
        python.write_text(
            f'#!/bin/sh\nexport PYTHONPATH={STAND_IN} STAND_IN_VERSION={version}\nexec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        files = []
        for index, graph in enumerate(graphs):
            whole = {"gears": [1, 4], "side": 4, "classes": 10, "compiled": True} | graph
            path = tmp_path / f"{index}.mindir"
            path.write_text(("CustomAscend" if whole["compiled"] else "") + "\n" + json.dumps(whole))
            files.append(ArtifactFile(path=path, gears=tuple(whole["gears"])))
        return EngineOrder(
            model="cats",
            version="3",
            files=tuple(files),
            options=changes.pop("options", LiteOptions(device_folder=tmp_path)),
            side=4,
            classes=10,
            max_rows=8,
            threads=changes.pop("threads", 0),
            load_timeout_s=20,
            run_timeout_s=20,
            device=changes.pop("device", Device(kind="ascend", number=number)),
            python=str(python),
            **changes,
        )

    return build


def lines(log: LogWatch) -> list[str]:
    return [values["line"] for values in log.of("engine_output")]


# What is the NPU's, against the stand-in.


@pytest.mark.parametrize("version", ["2.0.0", "2.7.0"])
async def test_an_npu_runs_each_gear_that_its_file_holds(log: LogWatch, order: Order, version: str) -> None:
    rows = pictures(4)
    async with serving(order({}, version=version, number=1)) as served:
        assert served.engine.about == f"mindspore_lite {version} ascend:1"
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))
        np.testing.assert_array_equal(await logits(served.engine, rows[:1]), simulated_answers(rows[:1]))
        np.testing.assert_array_equal(await logits(served.engine, rows[:3], 4), simulated_answers(rows[:3]))
        await log.seen("engine_output", 4)
    ascend = "{'device_id': 1, 'precision_mode': 'enforce_fp16'}"
    assert lines(log) == [
        f"built 0.mindir for ascend {ascend} {CONTEXT} -",
        "resized to 4",
        "resized to 1",
        "resized to 4",
    ]


async def test_an_answer_is_copied_before_the_library_overwrites_it(order: Order) -> None:
    rows = pictures(2)
    async with serving(order({"gears": [1]})) as served:
        first = await logits(served.engine, rows[:1])
        await logits(served.engine, rows[1:])
    np.testing.assert_array_equal(first, simulated_answers(rows[:1]))


@pytest.mark.parametrize(
    ("version", "shared"), [("2.0.0", []), ("2.7.0", ["SHARE_WORKSPACE of 2 models on 0"])]
)
async def test_several_files_share_their_workspace_where_the_library_can(
    log: LogWatch, order: Order, version: str, shared: list[str]
) -> None:
    rows = pictures(4)
    async with serving(order({"gears": [1]}, {"gears": [4]}, version=version)) as served:
        np.testing.assert_array_equal(await logits(served.engine, rows), simulated_answers(rows))
        np.testing.assert_array_equal(await logits(served.engine, rows[:1]), simulated_answers(rows[:1]))
    assert [line for line in lines(log) if "SHARE" in line] == shared
    assert not any("resized" in line for line in lines(log))


async def test_a_number_past_the_last_npu_is_refused_since_the_library_would_take_the_first(
    order: Order,
) -> None:
    said = await fault_at_start(order({}, number=2))
    assert said == "the engine refused: ValueError: ascend:2 is not there: this machine shows 2 NPUs"


async def test_a_graph_that_was_not_compiled_is_refused_unless_it_is_allowed(
    order: Order, tmp_path: Path
) -> None:
    said = await fault_at_start(order({}, {"gears": [8], "compiled": False}))
    assert said.startswith(
        "the engine refused: ValueError: 1.mindir was not compiled for NPUs; ascend_uncompiled"
    )
    options = LiteOptions(device_folder=tmp_path, allows_uncompiled=True)
    async with serving(order({"compiled": False}, options=options)) as served:
        await logits(served.engine, pictures(1))


async def test_an_om_is_refused_with_the_way_to_wrap_it(order: Order, tmp_path: Path) -> None:
    options = LiteOptions(device_folder=tmp_path, allows_uncompiled=True)
    bare = order({}, options=options)
    (tmp_path / "0.mindir").write_bytes(b"IMOD and so on")
    said = await fault_at_start(bare)
    assert (
        said
        == "the engine refused: ValueError: 0.mindir is an OM; converter_lite --fmk=OM wraps it into a MindIR"
    )


async def test_precision_threads_and_configuration_reach_the_library(
    log: LogWatch, order: Order, tmp_path: Path
) -> None:
    config = tmp_path / "lite.ini"
    config.touch()
    options = LiteOptions(precision="enforce_origin", config_file=config, device_folder=tmp_path)
    async with serving(order({}, options=options, threads=3, pins_threads=True)):
        await log.seen("engine_output")
    (built,) = lines(log)
    assert "'precision_mode': 'enforce_origin'" in built
    assert "'thread_num': 3, 'thread_affinity_mode': 1" in built
    assert built.endswith(str(config))


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        ({"takes": "f4"}, "ValueError: the model takes DataType.FLOAT32 of 192 bytes, not 48 bytes of uint8"),
        ({"side": 8}, "ValueError: the model takes DataType.UINT8 of 192 bytes, not 48 bytes of uint8"),
        ({"answers": "f2"}, "ValueError: the model answers DataType.FLOAT16"),
        ({"classes": 7}, "ValueError: cannot reshape array of size 7 into shape (1,10)"),
        ({"fails": True}, "RuntimeError: predict failed!"),
    ],
)
async def test_a_model_that_is_not_as_the_bundle_says_is_refused_before_it_does_harm(
    order: Order, graph: dict[str, Any], sentence: str
) -> None:
    async with serving(order({"gears": [1]} | graph)) as served:
        assert await fault_at(served.engine, rows=1) == f"the engine refused: {sentence}"


async def test_a_batch_that_is_no_gear_is_refused_with_the_gears(order: Order) -> None:
    async with serving(order({})) as served:
        said = await fault_at(served.engine, rows=2)
        assert said == "the engine refused: ValueError: a batch of 2 rows; the gears are 1, 4"


async def test_a_model_with_two_inputs_is_refused(order: Order) -> None:
    assert "the model has 2 inputs; one is needed" in await fault_at_start(order({"inputs": 2}))


async def test_a_file_that_the_library_cannot_read_is_told_with_its_name(
    order: Order, tmp_path: Path
) -> None:
    broken = order({})
    (tmp_path / "0.mindir").write_text("CustomAscend\nno graph")
    said = await fault_at_start(broken)
    assert (
        said
        == "the engine refused: RuntimeError: 0.mindir: build_from_file failed! Error is Common error code."
    )


async def test_a_python_without_the_library_is_an_engine_fault(order: Order) -> None:
    said = await fault_at_start(replace(order({}), python=sys.executable))
    assert said == "the engine refused: ModuleNotFoundError: No module named 'mindspore_lite'"


# What is the CPU's, with the real library.


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> EngineOrder:
    """Order an untrained model converted at two batch sizes."""
    python, folder = found_lite_python(), tmp_path_factory.mktemp("mindir")
    return EngineOrder(
        model="cats",
        version="3",
        files=tuple(ArtifactFile(path=convert("resnext101", gear, folder), gears=(gear,)) for gear in (1, 4)),
        options=LiteOptions(),
        side=224,
        classes=10,
        max_rows=4,
        threads=1,
        load_timeout_s=60,
        run_timeout_s=60,
        device=CPU,
        python=str(python),
    )


async def test_the_real_library_answers_as_the_golden_samples_say_at_each_gear(on_cpu: EngineOrder) -> None:
    openvino = pytest.importorskip("openvino")
    rows = pictures(4, side=224)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    expected = openvino.Core().compile_model(str(UNTRAINED / "resnext101/1/model.onnx"), "CPU", options)(
        [rows]
    )[0]
    async with serving(on_cpu) as served:
        assert served.engine.about.startswith("mindspore_lite 2.")
        assert served.engine.about.endswith(" cpu")
        together = await logits(served.engine, rows)
        alone = np.concatenate([await logits(served.engine, row[np.newaxis]) for row in rows])
        padded = await logits(served.engine, rows[:3], 4)
    for answered, wanted in ((together, expected), (alone, expected), (padded, expected[:3])):
        np.testing.assert_allclose(answered, wanted, rtol=0, atol=1e-4 * np.abs(expected).max())


async def test_the_real_library_takes_threads_and_pinning(on_cpu: EngineOrder) -> None:
    async with serving(replace(on_cpu, threads=2, pins_threads=True)) as served:
        assert (await answer_of(served.engine, pictures(1, side=224))).engine_s > 0


async def test_the_real_library_does_not_take_a_broken_file_for_a_model(
    on_cpu: EngineOrder, tmp_path: Path
) -> None:
    (tmp_path / "broken.mindir").write_bytes(on_cpu.files[0].path.read_bytes()[:5000])
    files = (ArtifactFile(path=tmp_path / "broken.mindir", gears=(1,)),)
    said = await fault_at_start(replace(on_cpu, files=files))
    assert said.startswith("the engine refused: RuntimeError: broken.mindir: build_from_file failed!")


async def test_the_real_library_without_an_npu_says_so(on_cpu: EngineOrder, tmp_path: Path) -> None:
    on_npu = replace(on_cpu, device=Device(kind="ascend"), options=LiteOptions(device_folder=tmp_path))
    assert "ascend:0 is not there: this machine shows 0 NPUs" in await fault_at_start(on_npu)
