import functools
import json
import operator
import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from service.images import Preprocessing
from service.repository.manifest import BundleFile, Manifest, ManifestError
from serving import UNTRAINED

TEXT = (Path(__file__).parents[2] / "tests/untrained/sknet50/1/model.json").read_text(encoding="utf-8")
DELETED = object()


def _steps(path: str) -> list[str | int]:
    return [int(step) if step.isdecimal() else step for step in path.split(".")]


def _present(path: str) -> Any:
    """Return the value at a path like `golden.samples.0.file`."""
    return functools.reduce(operator.getitem, _steps(path), json.loads(TEXT))


def _changed(path: str, value: object) -> bytes:
    """Set the value at a path, or delete it."""
    document = json.loads(TEXT)
    *parents, last = _steps(path)
    place: Any = functools.reduce(operator.getitem, parents, document)
    if value is DELETED:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


def _fault(data: bytes) -> str:
    with pytest.raises(ManifestError) as fault:
        Manifest.parse(data)
    return str(fault.value)


def _spelt(path: str) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", path)


def _paths(value: object, above: str = "") -> list[str]:
    """Name every key of a document."""
    if isinstance(value, dict):
        inner = [(f"{above}.{key}".lstrip("."), item) for key, item in value.items()]
        return [path for key, item in inner for path in (key, *_paths(item, key))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _paths(value[0], f"{above}.0")
    return []


KEYS = _paths(json.loads(TEXT))
SECTIONS = [
    "",
    "network.",
    "preprocessing.",
    "labels.",
    "artifacts.0.",
    "golden.",
    "golden.samples.0.",
    "provenance.",
]


def test_a_good_manifest_is_read_whole() -> None:
    manifest = Manifest.parse(TEXT.encode())
    document = json.loads(TEXT)
    assert (manifest.format, manifest.classes, manifest.input_size, manifest.temperature) == (1, 10, 224, 1.0)
    assert (manifest.network.name, manifest.network.width) == ("sknet50", 0.0625)
    assert isinstance(manifest.preprocessing, Preprocessing)
    assert manifest.preprocessing.size == 256
    assert manifest.artifacts[0].gears is None
    assert [list(sample.scores) for sample in manifest.golden.samples] == [
        sample["scores"] for sample in document["golden"]["samples"]
    ]
    assert manifest.accuracy is None
    assert manifest.provenance.untrained


def test_all_files_are_listed_with_their_digests() -> None:
    document = json.loads(TEXT)
    sections = [document["labels"], *document["artifacts"], *document["golden"]["samples"]]
    files = Manifest.parse(TEXT.encode()).files
    assert [(file.file, file.sha256) for file in files] == [
        (item["file"], item["sha256"]) for item in sections
    ]
    assert all(isinstance(file, BundleFile) for file in files)


def test_a_manifest_cannot_be_changed() -> None:
    manifest = Manifest.parse(TEXT.encode())
    with pytest.raises(FrozenInstanceError):
        manifest.classes = 3  # type: ignore[misc]


@pytest.mark.parametrize("path", KEYS)
def test_a_missing_key_is_named(path: str) -> None:
    assert f"{_spelt(path)} is missing" in _fault(_changed(path, DELETED)).split("; ")


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_named_with_its_value(section: str) -> None:
    assert f"{_spelt(section)}surprise is 'x': " in _fault(_changed(f"{section}surprise", "x"))


@pytest.mark.parametrize("path", KEYS)
def test_a_value_of_another_type_is_named_with_its_key(path: str) -> None:
    value: object = ["x"] if isinstance(_present(path), dict | None) else {"x": 1}
    assert f"{_spelt(path)} is {value!r}: " in _fault(_changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("network.width", 0),
        ("network.width", -1.0),
        ("network.name", 50),
        ("input_size", 0),
        ("input_size", 4097),
        ("input_size", "224"),
        ("input_size", 224.0),
        ("input_size", True),
        ("preprocessing.mode", "longest"),
        ("preprocessing.size", 0),
        ("preprocessing.crop", 224.5),
        ("preprocessing.interpolation", "nearest"),
        ("preprocessing.antialias", 1),
        ("preprocessing.antialias", "true"),
        ("classes", 0),
        ("classes", 1_000_001),
        ("classes", None),
        ("labels.sha256", "0" * 63),
        ("labels.sha256", "G" + "0" * 63),
        ("labels.sha256", "A" * 64),
        ("labels.sha256", "0" * 64 + "\n"),
        ("artifacts", []),
        ("artifacts.0.engine", "torch"),
        ("artifacts.0.target", "gpu"),
        ("artifacts.0.target", "ascend"),
        ("artifacts.0.target", "ascend310P"),
        ("artifacts.0.precision", "fp32"),
        ("artifacts.0.gears", []),
        ("artifacts.0.gears", [4, 1]),
        ("artifacts.0.gears", [1, 1]),
        ("golden.tolerance", -0.1),
        ("golden.tolerance", 1.1),
        ("golden.samples", []),
        ("golden.samples.1.scores.3", 1.5),
        ("golden.samples.1.scores.3", "0.1"),
        ("golden.samples.1.scores.3", None),
        ("accuracy", 0.9),
        ("provenance.untrained", "yes"),
        ("provenance.checkpoint_sha256", "abc"),
        ("provenance.seed", 1.5),
        ("temperature", 0),
        ("temperature", -1),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_key(path: str, value: object) -> None:
    assert f"{_spelt(path)} is {value!r}: " in _fault(_changed(path, value))


@pytest.mark.parametrize("gear", [0, -1, 2049, 1.5, "8", None])
def test_a_gear_that_is_not_allowed_is_named(gear: object) -> None:
    assert f"artifacts[0].gears[1] is {gear!r}: " in _fault(_changed("artifacts.0.gears", [4, gear]))


@pytest.mark.parametrize("value", [True, 1.0])
def test_a_format_of_another_type_is_named(value: object) -> None:
    assert f"format is {value!r}: " in _fault(_changed("format", value))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "path", ["temperature", "network.width", "golden.tolerance", "golden.samples.0.scores.3"]
)
def test_a_number_that_is_not_finite_is_named(path: str, word: str) -> None:
    data = _changed(path, "HERE").replace(b'"HERE"', word.encode())
    assert f"{_spelt(path)} is {float(word)}: " in _fault(data)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/etc/passwd",
        "..",
        "../labels.txt",
        "golden/../../x",
        "a/..",
        "golden\\0.png",
        "..\\x",
        "a\0b",
    ],
)
@pytest.mark.parametrize("key", ["labels.file", "artifacts.0.file", "golden.samples.2.file"])
def test_a_path_that_leads_out_of_the_bundle_is_named(key: str, path: str) -> None:
    fault = _fault(_changed(key, path))
    assert f"{_spelt(key)} is {path!r}: " in fault
    assert "a path inside the bundle is needed" in fault


@pytest.mark.parametrize("path", ["..hidden", "a..b", "golden/...", "tête à tête.txt"])
def test_a_path_with_two_dots_in_a_name_is_inside(path: str) -> None:
    assert Manifest.parse(_changed("labels.file", path)).labels.file == path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nope",
        b"{",
        TEXT.encode()[:-10],
        TEXT.encode() + b"}",
        TEXT.replace('"format"', "'format'").encode(),
        TEXT.encode("utf-16"),
        TEXT.replace("sknet50", "\xff").encode("latin-1"),
    ],
)
def test_bytes_that_are_not_json_are_said_to_be_none(data: bytes) -> None:
    assert _fault(data).startswith("is not JSON: Invalid JSON: ")


@pytest.mark.parametrize("opening", [b"[", b'{"format":', b'{"golden":{"samples":['])
def test_deep_json_is_refused(opening: bytes) -> None:
    assert _fault(opening * 100_000).startswith("is not JSON: Invalid JSON: recursion limit exceeded")


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"text"'])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    assert _fault(data).startswith(f"the document is {json.loads(data)!r}: ")


def test_a_long_value_is_cut_in_the_sentence() -> None:
    fault = _fault(_changed("labels.sha256", "z" * 100_000))
    assert fault.startswith("labels.sha256 is 'zzz")
    assert len(fault) < 200


def test_several_faults_are_told_at_once() -> None:
    document = json.loads(TEXT)
    document |= {"classes": 0, "surprise": 1}
    del document["temperature"]
    fault = _fault(json.dumps(document).encode())
    assert "classes is 0: " in fault
    assert "surprise is 1: " in fault
    assert "temperature is missing" in fault


@pytest.mark.parametrize("count", [9, 11, 0])
def test_scores_that_are_not_as_many_as_classes_are_named(count: int) -> None:
    scores = [*json.loads(TEXT)["golden"]["samples"][1]["scores"], 0.0]
    fault = _fault(_changed("golden.samples.1.scores", scores[:count]))
    assert fault == f"golden.samples[1].scores has {count} values; 10 are needed"


@pytest.mark.parametrize(("crop", "size", "input_size"), [(223, 256, 224), (224, 256, 223), (224, 223, 224)])
def test_crop_size_and_input_size_must_fit_each_other(crop: int, size: int, input_size: int) -> None:
    document = json.loads(TEXT)
    document["preprocessing"] |= {"crop": crop, "size": size}
    document["input_size"] = input_size
    fault = _fault(json.dumps(document).encode())
    assert fault == (
        f"preprocessing.crop is {crop}; input_size, {input_size}, is needed, "
        f"and at most preprocessing.size, {size}"
    )


def test_what_was_measured_may_be_given() -> None:
    measured = {"dataset": "cifar10", "top1": 0.9, "top5": 1, "n": 10_000}
    accuracy = Manifest.parse(_changed("accuracy", measured)).accuracy
    assert accuracy is not None
    assert (accuracy.dataset, accuracy.top1, accuracy.top5, accuracy.n) == ("cifar10", 0.9, 1, 10_000)
    assert "accuracy.top1 is 90: " in _fault(_changed("accuracy", measured | {"top1": 90}))
    assert "accuracy.n is 0: " in _fault(_changed("accuracy", measured | {"n": 0}))


def test_an_artifact_may_have_gears() -> None:
    artifacts = Manifest.parse(_changed("artifacts.0.gears", [1, 4, 2048])).artifacts
    assert artifacts[0].gears == (1, 4, 2048)


def _with_artifacts(*changes: dict[str, object]) -> bytes:
    artifact = _present("artifacts.0")
    return _changed("artifacts", [artifact | change for change in changes])


def test_an_engine_may_have_a_file_for_each_gear_and_for_each_target() -> None:
    lite = {"engine": "mindspore_lite"}
    data = _with_artifacts(
        {},
        lite | {"gears": [1]},
        lite | {"gears": [4]},
        lite | {"gears": [1, 4, 32], "target": "ascend310p", "precision": "f16"},
        lite | {"gears": [1], "target": "ascend910b4", "precision": "mixed"},
    )
    targets = [artifact.target for artifact in Manifest.parse(data).artifacts]
    assert targets == ["cpu", "cpu", "cpu", "ascend310p", "ascend910b4"]


def test_two_files_for_one_gear_are_refused() -> None:
    lite = {"engine": "mindspore_lite"}
    assert _fault(_with_artifacts(lite | {"gears": [1, 4]}, lite | {"gears": [4, 8]})) == (
        "artifacts[1].gears has 4, as another artifact for mindspore_lite on cpu;"
        " only one file for each gear is allowed"
    )
    assert "artifacts[1].gears has 2" in _fault(_with_artifacts({}, {"gears": [2]}))


def test_half_precision_may_be_off_by_ten_times_as_much() -> None:
    lite = {"engine": "mindspore_lite", "target": "ascend310p"}
    changes = [{}, lite | {"gears": [1], "precision": "f16"}, lite | {"gears": [2], "precision": "mixed"}]
    manifest = Manifest.parse(_with_artifacts(*changes))
    tolerances = [manifest.tolerance_for(artifact) for artifact in manifest.artifacts]
    assert tolerances == pytest.approx([0.001, 0.01, 0.01])


def test_an_artifact_that_its_engine_could_not_run_is_refused() -> None:
    fault = _fault(_with_artifacts({"engine": "mindspore_lite"}))
    assert fault == "artifacts[0].gears is null; for mindspore_lite the gears are needed"
    fault = _fault(_with_artifacts({"target": "ascend310"}))
    assert fault == "artifacts[0].target is 'ascend310'; for openvino only 'cpu' is allowed"


def test_bicubic_without_antialias_is_refused_since_no_trainer_has_it() -> None:
    document = json.loads((UNTRAINED / "sknet50" / "1" / "model.json").read_text())
    document["preprocessing"] |= {"interpolation": "bicubic", "antialias": False}
    with pytest.raises(
        ManifestError, match="antialias is false; with interpolation bicubic only true is allowed"
    ):
        Manifest.parse(json.dumps(document).encode())
