from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from options import serving_options
from service.devices import parse_devices
from service.engines import OpenvinoOptions
from service.machine import Machine
from service.repository.bundle import Bundle, BundleError, load_bundle
from service.repository.lineup import EngineChoice, Lineup, ServingOptions, line_up
from service.repository.manifest import Artifact
from serving import UNTRAINED

PYTHON = Path("/lite/bin/python")
NPUS = Machine(ascend_nodes=("davinci0", "davinci1"), cpu_model="", cpu_flags=frozenset())
BUNDLE = load_bundle(UNTRAINED / "sknet50/1")


def artifact(name: str, *gears: int) -> Artifact:
    engine, target = name.split()
    file = f"{engine}-{target}-{'-'.join(map(str, gears))}"
    (first,) = BUNDLE.manifest.artifacts
    return replace(first, engine=cast("Any", engine), target=target, gears=gears or None, file=file)


OPENVINO = artifact("openvino cpu")
LITE_1, LITE_4 = artifact("mindspore_lite cpu", 1), artifact("mindspore_lite cpu", 4)
NPU = artifact("mindspore_lite ascend310p", 1, 4, 8)


def bundle(*artifacts: Artifact) -> Bundle:
    return replace(BUNDLE, manifest=replace(BUNDLE.manifest, artifacts=artifacts))


def options(engine: str = "auto", devices: str = "auto", **changes: Any) -> ServingOptions:
    named = None if devices == "auto" else parse_devices(devices)
    changed = replace(serving_options(cast("EngineChoice", engine)), devices=named, lite_python=PYTHON)
    return replace(changed, **changes)


def engines_of(lineup: Lineup) -> list[str]:
    return [f"{ways[0].engine} {ways[0].device}" for ways in lineup.engines]


def fault(of: Bundle, chosen: ServingOptions) -> str:
    with pytest.raises(BundleError) as error:
        line_up(of, chosen)
    return str(error.value)


ALL = bundle(LITE_1, LITE_4, NPU, OPENVINO)


@pytest.mark.parametrize(
    ("engine", "chosen", "gears", "files"),
    [
        ("auto", "openvino cpu:0", None, 1),
        ("openvino", "openvino cpu:0", None, 1),
        ("mindspore_lite", "mindspore_lite cpu:0", (1, 4), 2),
        ("simulated", "simulated cpu:0", (1, 4, 8, 16, 32, 64), 1),
    ],
)
def test_on_a_cpu_the_chosen_engine_gets_all_its_files(
    engine: str, chosen: str, gears: tuple[int, ...] | None, files: int
) -> None:
    lineup = line_up(ALL, options(engine))
    assert engines_of(lineup) == [chosen]
    assert lineup.gears == gears
    assert len(lineup.engines[0][0].files) == files
    assert lineup.stand_in is None


def test_a_file_of_the_order_is_where_its_bundle_is() -> None:
    ((order,),) = line_up(ALL, options("mindspore_lite")).engines
    assert order.files[1].path == BUNDLE.directory / LITE_4.file
    assert order.files[1].gears == (4,)


def test_memory_is_there_for_the_largest_gear_or_where_there_is_none_for_the_largest_batch() -> None:
    assert line_up(ALL, options()).engines[0][0].max_rows == 4
    assert line_up(ALL, options("simulated")).engines[0][0].max_rows == 64


def test_mindspore_lite_runs_in_its_own_python_and_openvino_in_ours() -> None:
    lineup = line_up(ALL, options(machine=NPUS))
    assert lineup.engines[0][0].python == str(PYTHON)
    assert lineup.stand_in is not None
    assert lineup.stand_in[0].python != str(PYTHON)


def test_where_there_are_npus_and_an_artifact_for_them_all_are_taken_and_the_cpu_stands_in() -> None:
    lineup = line_up(ALL, options(machine=NPUS))
    assert engines_of(lineup) == ["mindspore_lite ascend:0", "mindspore_lite ascend:1"]
    assert lineup.gears == (1, 4, 8)
    assert lineup.stand_in is not None
    assert lineup.stand_in[0].engine == "openvino"
    assert lineup.stand_in[0].max_rows == 8


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (bundle(OPENVINO), {}),
        (ALL, {"lite_python": None}),
        (ALL, {"engine": "openvino"}),
        (ALL, {"machine": options().machine}),
    ],
)
def test_the_cpu_is_taken_where_npus_or_what_they_need_are_missing(
    of: Bundle, changes: dict[str, Any]
) -> None:
    assert engines_of(line_up(of, replace(options(machine=NPUS), **changes))) == ["openvino cpu:0"]


def test_what_cannot_take_the_batches_of_the_npus_does_not_stand_in() -> None:
    assert line_up(bundle(NPU), options(machine=NPUS)).stand_in is None
    assert line_up(bundle(NPU, LITE_1, LITE_4), options(machine=NPUS)).stand_in is None
    small = artifact("mindspore_lite ascend310p", 1, 4)
    assert line_up(bundle(small, LITE_1, LITE_4), options(machine=NPUS)).stand_in is not None
    assert line_up(ALL, options("mindspore_lite", machine=NPUS)).stand_in is None


def test_several_instances_and_kinds_of_device_can_be_named() -> None:
    lineup = line_up(ALL, options(devices="ascend:1,cpu:0x2", machine=NPUS))
    assert engines_of(lineup) == ["mindspore_lite ascend:1", "openvino cpu:0", "openvino cpu:0#1"]
    assert lineup.gears == (1, 4, 8)
    assert lineup.stand_in is None  # the CPU is one of the chosen


def test_devices_without_a_gear_in_common_are_refused() -> None:
    chosen = options("mindspore_lite", devices="ascend:0,cpu:0", machine=NPUS)
    assert "no gear in common" in fault(bundle(artifact("mindspore_lite ascend310p", 8), LITE_1), chosen)


def test_simulated_devices_may_be_any_number() -> None:
    lineup = line_up(bundle(OPENVINO), options("simulated", devices="ascend:0-7"))
    assert len(lineup.engines) == 8
    assert lineup.stand_in is None


@pytest.mark.parametrize(
    ("flags", "precision", "ways"),
    [
        (set(), "auto", ["f32"]),
        ({"avx512_bf16"}, "auto", ["bf16", "f32"]),
        ({"amx_bf16"}, "auto", ["bf16", "f32"]),
        ({"avx512_bf16"}, "f32", ["f32"]),
        (set(), "bf16", ["bf16"]),
    ],
)
def test_bf16_is_tried_first_where_the_cpu_has_it(flags: set[str], precision: str, ways: list[str]) -> None:
    machine = replace(NPUS, ascend_nodes=(), cpu_flags=frozenset(flags))
    lineup = line_up(ALL, options(machine=machine, openvino_precision=precision))
    tried = [cast("OpenvinoOptions", order.options).precision for order in lineup.engines[0]]
    assert tried == ways


def test_an_npu_that_is_not_there_is_refused() -> None:
    assert fault(ALL, options(devices="ascend:0-2", machine=NPUS)) == (
        "ascend:2 is not there: this machine shows 2 NPUs"
    )


def test_artifacts_for_several_chips_need_a_choice() -> None:
    several = bundle(NPU, artifact("mindspore_lite ascend910b", 1))
    assert fault(several, options(machine=NPUS)) == (
        "model.json: artifacts are for ascend310p, ascend910b: set ascend_target to one"
    )
    lineup = line_up(several, options(machine=NPUS, ascend_target="ascend910b"))
    assert lineup.engines[0][0].files[0].path.name == "mindspore_lite-ascend910b-1"


@pytest.mark.parametrize(
    ("artifacts", "changes", "sentence"),
    [
        ([NPU], {}, "mindspore_lite on ascend310p; none is for engine auto on cpu"),
        (
            [OPENVINO],
            {"engine": "mindspore_lite"},
            "openvino on cpu; none is for engine mindspore_lite on cpu",
        ),
        ([LITE_1, NPU], {"engine": "openvino"}, "none is for engine openvino on cpu"),
        (
            [OPENVINO],
            {"devices": parse_devices("ascend:0"), "machine": NPUS},
            "none is for engine auto on ascend",
        ),
        (
            [LITE_1, LITE_4],
            {"lite_python": None},
            "none is for engine auto on cpu without a Python that has mindspore_lite: see mindspore_lite_python",
        ),
    ],
)
def test_a_bundle_without_an_artifact_says_what_there_is(
    artifacts: list[Artifact], changes: dict[str, Any], sentence: str
) -> None:
    assert fault(bundle(*artifacts), replace(options(), **changes)).endswith(sentence)


def test_engines_that_share_the_cpu_divide_it_and_are_not_pinned() -> None:
    machine = replace(serving_options("auto").machine, cpus=8)
    chosen = options("openvino", "cpu:0x3", machine=machine, engine_threads=0)
    lineup = line_up(ALL, chosen)
    assert [(ways[0].threads, ways[0].pins_threads) for ways in lineup.engines] == [(2, False)] * 3
    told = line_up(ALL, replace(chosen, engine_threads=5, pins_threads=True))
    assert [(ways[0].threads, ways[0].pins_threads) for ways in told.engines] == [(5, True)] * 3
    (alone,) = line_up(ALL, replace(chosen, devices=None)).engines
    assert (alone[0].threads, alone[0].pins_threads) == (0, None)


def test_where_the_time_of_cpus_is_limited_an_engine_has_no_more_threads_than_that() -> None:
    machine = replace(NPUS, cpus=3, is_limited=True)
    (alone,) = line_up(ALL, options("openvino", "cpu:0", machine=machine, engine_threads=0)).engines
    assert (alone[0].threads, alone[0].pins_threads) == (3, False)
    shared = line_up(ALL, options("openvino", "cpu:0x2", machine=machine, engine_threads=0)).engines
    assert [ways[0].threads for ways in shared] == [1, 1]
    on_npus = line_up(ALL, options("auto", "ascend:0-1", machine=machine, engine_threads=0))
    assert [ways[0].threads for ways in on_npus.engines] == [0, 0]
    assert on_npus.stand_in is not None
    assert on_npus.stand_in[0].threads == 3
