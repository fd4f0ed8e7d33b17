from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.machine import usable_cpus
from service.settings import (
    Settings,
    SettingsError,
    flag_of,
    load,
    misspelt,
    parse_faults,
    table,
    variable_of,
)

REQUIRED = {"model_repository": "/models"}


def _file(folder: Path, text: str) -> Path:
    file = folder / "cardinal.toml"
    file.write_text(text, encoding="utf-8")
    return file


def _faults(
    flags: Mapping[str, str], environment: Mapping[str, str] | None = None, file: Path | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as fault:
        load(flags, environment or {}, file)
    return str(fault.value).splitlines()


# Sources


def test_only_the_model_repository_is_required() -> None:
    assert load(REQUIRED, {}) == Settings(model_repository=Path("/models"))
    assert [name for name, field in Settings.model_fields.items() if field.is_required()] == [
        "model_repository"
    ]


@pytest.mark.parametrize(
    ("flags", "environment", "text", "max_images"),
    [
        ({}, {}, "", 64),
        ({}, {}, "max_images = 3", 3),
        ({}, {"CARDINAL_MAX_IMAGES": "2"}, "max_images = 3", 2),
        ({"max_images": "1"}, {"CARDINAL_MAX_IMAGES": "2"}, "max_images = 3", 1),
        ({"max_images": "1"}, {}, "max_images = 3", 1),
        ({"max_images": "1"}, {"CARDINAL_MAX_IMAGES": "2"}, "", 1),
        ({}, {"CARDINAL_MAX_IMAGES": "2"}, "", 2),
    ],
)
def test_a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default(
    tmp_path: Path, flags: dict[str, str], environment: dict[str, str], text: str, max_images: int
) -> None:
    settings = load(REQUIRED | flags, environment, _file(tmp_path, text))
    assert settings.max_images == max_images


OTHER_VALUES = {
    "model_repository": "/else",
    "required_models": "cats,dogs",
    "host": "0.0.0.0",
    "rest_port": "1000",
    "grpc_port": "1001",
    "control_port": "1002",
    "engine": "simulated",
    "devices": "cpu:0x2",
    "engine_pinning": "on",
    "openvino_precision": "bf16",
    "mindspore_lite_python": "/python",
    "mindspore_lite_config": "/config",
    "ascend_target": "ascend310p",
    "ascend_precision": "enforce_origin",
    "ascend_uncompiled": "allow",
    "simulated_table": "t4/se_resnext50",
    "simulated_jitter": "0.5",
    "simulated_faults": "crash:0.5",
    "state_folder": "none",
    "engine_threads": "3",
    "engine_timeout_s": "1.5",
    "load_timeout_s": "2.5",
    "max_batch_rows": "8",
    "max_queued_rows": "9",
    "max_requests": "10",
    "max_body_bytes": "2048",
    "max_upload_bytes": "4096",
    "max_image_pixels": "1234",
    "max_images": "5",
    "max_queued_s": "7",
    "profile_s": "0.5",
    "cache_mib": "64",
    "decode_threads": "6",
    "request_timeout_s": "3.5",
    "lame_duck_s": "0",
    "drain_timeout_s": "0.5",
    "log_format": "json",
    "log_level": "debug",
}


def _as_text(settings: Settings) -> dict[str, str]:
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in settings}


@pytest.mark.parametrize("source", ["flags", "environment", "file"])
def test_each_setting_can_be_given_by_each_source(tmp_path: Path, source: str) -> None:
    assert OTHER_VALUES.keys() == Settings.model_fields.keys()
    if source == "flags":
        settings = load(OTHER_VALUES, {})
    elif source == "environment":
        settings = load({}, {variable_of(name): value for name, value in OTHER_VALUES.items()})
    else:
        lines = [f'{name} = "{value}"' for name, value in OTHER_VALUES.items()]
        settings = load({}, {}, _file(tmp_path, "\n".join(lines)))
    assert _as_text(settings) == OTHER_VALUES


def test_the_file_may_use_toml_types_and_any_alphabet(tmp_path: Path) -> None:
    file = _file(tmp_path, 'model_repository = "/модели"\nmax_images = 3\nlame_duck_s = 0.5\n')
    settings = load({}, {}, file)
    assert (settings.model_repository, settings.max_images, settings.lame_duck_s) == (Path("/модели"), 3, 0.5)


def test_variables_of_other_programs_are_not_read() -> None:
    assert (
        load(REQUIRED, {"MAX_IMAGES": "x", "cardinal_max_images": "x", "CARDINAL_UNKNOWN": "x"}).max_images
        == 64
    )


def test_settings_cannot_be_changed() -> None:
    settings = load(REQUIRED, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.max_images = 1  # type: ignore[misc]


# Faults


def test_all_faults_are_told_at_once_each_with_its_source_and_value(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_images = 0\nhost = 5\nmax_imges = 3\n")
    environment = {"CARDINAL_GRPC_PORT": "70000", "CARDINAL_DRAIN_TIMEOUT_S": "nan"}
    faults = _faults({"rest_port": "x", "engine": "tpu", "log_level": "INFO"}, environment, file)
    starts = [
        "model_repository is missing: give --model-repository or CARDINAL_MODEL_REPOSITORY",
        f"{file}: max_images is 0: ",
        f"{file}: host is 5: ",
        f"{file}: max_imges is not a setting; did you mean max_images?",
        "CARDINAL_GRPC_PORT is '70000': ",
        "CARDINAL_DRAIN_TIMEOUT_S is 'nan': ",
        "--rest-port is 'x': ",
        "--engine is 'tpu': Input should be 'auto', 'openvino', 'mindspore_lite' or 'simulated'",
        "--log-level is 'INFO': ",
    ]
    assert len(faults) == len(starts)
    for start in starts:
        assert [fault for fault in faults if fault.startswith(start)], (start, faults)


def test_the_fault_names_the_source_that_won(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_images = 0")
    environment = {"CARDINAL_MAX_IMAGES": "-1"}
    assert _faults(REQUIRED, {}, file)[0].startswith(f"{file}: max_images is 0: ")
    assert _faults(REQUIRED, environment, file)[0].startswith("CARDINAL_MAX_IMAGES is '-1': ")
    assert _faults(REQUIRED | {"max_images": "-2"}, environment, file)[0].startswith("--max-images is '-2': ")


def test_an_unknown_key_that_is_like_no_setting_is_named_without_a_suggestion(tmp_path: Path) -> None:
    file = _file(tmp_path, "[server]\nrest_port = 1\n")
    assert _faults(REQUIRED, {}, file) == [f"{file}: server is not a setting"]


@pytest.mark.parametrize("text", ["rest_port =", "rest_port = 1\nrest_port = 2", "= 3"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    file = _file(tmp_path, text)
    assert _faults(REQUIRED, {}, file)[0].startswith(f"{file}: cannot be read as TOML: ")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = _file(tmp_path, "")
    file.write_bytes(b'host = "\xff"')
    assert _faults(REQUIRED, {}, file)[0].startswith(f"{file}: cannot be read as TOML: ")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "none.toml", tmp_path):
        assert _faults(REQUIRED, {}, file)[0].startswith(f"{file}: cannot be read as TOML: ")


@pytest.mark.parametrize(
    ("name", "lowest", "highest", "beyond"),
    [
        ("rest_port", "0", "65535", ["-1", "65536", "1.5", ""]),
        ("grpc_port", "0", "65535", ["-1", "65536"]),
        ("control_port", "0", "65535", ["-1", "65536"]),
        ("engine_threads", "0", "1024", ["-1", "1025"]),
        ("engine_timeout_s", "0.001", "3600", ["0", "-1", "3600.1", "nan", "inf"]),
        ("load_timeout_s", "0.001", "3600", ["0", "3601"]),
        ("max_batch_rows", "1", "256", ["0", "1025"]),
        ("max_queued_rows", "16", "65536", ["0", "65537"]),
        ("max_requests", "1", "65536", ["0", "65537"]),
        ("max_body_bytes", "1024", "268435456", ["1023", "1073741825"]),
        ("max_upload_bytes", "16777216", "68719476736", ["1023", "68719476737"]),
        ("max_image_pixels", "1", "1000000000", ["0", "1000000001"]),
        ("max_images", "1", "1024", ["0", "1025"]),
        ("cache_mib", "0", "65536", ["-1", "65537"]),
        ("decode_threads", "0", "256", ["-1", "257"]),
        ("request_timeout_s", "0.001", "3600", ["0", "3601"]),
        ("lame_duck_s", "0", "3600", ["-0.1", "3601"]),
        ("drain_timeout_s", "0", "3600", ["-0.1", "inf"]),
    ],
)
def test_each_number_has_bounds(name: str, lowest: str, highest: str, beyond: list[str]) -> None:
    for allowed in (lowest, highest):
        assert getattr(load(REQUIRED | {name: allowed}, {}), name) == float(allowed)
    for value in beyond:
        (fault,) = _faults(REQUIRED | {name: value})
        assert fault.startswith(f"{flag_of(name)} is {value!r}: ")


def test_a_batch_cannot_be_larger_than_the_queue() -> None:
    flags = REQUIRED | {"max_batch_rows": "257"}
    assert _faults(flags) == ["max_batch_rows is 257; at most max_queued_rows (256) is allowed"]
    assert load(flags | {"max_queued_rows": "257"}, {}).max_batch_rows == 257


@pytest.mark.parametrize(
    ("ports", "told"),
    [
        ({"rest_port": "8001"}, "8001, 8001, 8002"),
        ({"rest_port": "8002"}, "8002, 8001, 8002"),
        ({"grpc_port": "8002"}, "8000, 8002, 8002"),
        ({"rest_port": "5", "grpc_port": "5", "control_port": "5"}, "5, 5, 5"),
    ],
)
def test_two_doors_cannot_share_a_port(ports: dict[str, str], told: str) -> None:
    sentence = f"rest_port, grpc_port and control_port are {told}; they must differ"
    assert _faults(REQUIRED | ports) == [sentence]


def test_each_port_may_be_a_free_one() -> None:
    settings = load(REQUIRED | {"rest_port": "0", "grpc_port": "0", "control_port": "0"}, {})
    assert settings.rest_port == settings.grpc_port == settings.control_port == 0


def test_faults_of_several_settings_together_are_told_at_once() -> None:
    assert len(_faults(REQUIRED | {"max_batch_rows": "257", "rest_port": "8001"})) == 2


def test_true_is_not_a_number(tmp_path: Path) -> None:
    assert _faults(REQUIRED, {}, _file(tmp_path, "rest_port = true"))


@pytest.mark.parametrize("name", ["model_repository", "host"])
def test_an_empty_value_is_a_fault(name: str) -> None:
    assert _faults(REQUIRED | {name: ""})


# What follows from the values


@pytest.mark.parametrize(
    ("text", "names"),
    [("all", None), ("none", frozenset()), ("cats", {"cats"}), ("cats, dogs", {"cats", "dogs"})],
)
def test_required_models_are_all_none_or_named(text: str, names: Any) -> None:
    assert load(REQUIRED | {"required_models": text}, {}).required_names == names


@pytest.mark.parametrize("text", ["cats,", ",cats", "cats, ,"])
def test_a_comma_too_many_names_no_model(text: str) -> None:
    assert load(REQUIRED | {"required_models": text}, {}).required_names == {"cats"}


def test_a_thread_for_each_cpu_decodes_up_to_8_unless_it_is_set() -> None:
    assert load(REQUIRED, {}).threads_to_decode == min(usable_cpus(), 8)
    assert load(REQUIRED | {"decode_threads": "30"}, {}).threads_to_decode == 30


# Misspelt variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CARDINAL_REST_PRT", "CARDINAL_REST_PORT"),
        ("CARDINAL_MODEL_REPO", "CARDINAL_MODEL_REPOSITORY"),
        ("CARDINAL_MODELREPOSITORY", "CARDINAL_MODEL_REPOSITORY"),
        ("CARDINAL_LOGLEVEL", "CARDINAL_LOG_LEVEL"),
        ("CARDINAL_MAX_IMAGE", "CARDINAL_MAX_IMAGES"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_named_with_the_one_that_was_meant(
    name: str, meant: str
) -> None:
    assert list(misspelt({name: "1"})) == [f"{name} is not a setting; did you mean {meant}?"]


def test_no_setting_is_taken_for_a_misspelt_one() -> None:
    assert list(misspelt({variable_of(name): "" for name in Settings.model_fields})) == []


def test_variables_that_kubernetes_sets_are_left_alone() -> None:
    names = [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "PORT",
        "SERVICE_PORT_REST",
        "SERVICE_PORT_GRPC",
        "SERVICE_PORT_CONTROL",
    ]
    names += [
        f"PORT_{port}_TCP{end}" for port in (8000, 8001, 8002) for end in ("", "_PORT", "_PROTO", "_ADDR")
    ]
    assert list(misspelt({f"CARDINAL_{name}": "1" for name in names})) == []


def test_variables_of_other_programs_are_not_misspelt() -> None:
    assert list(misspelt({"REST_PRT": "1", "XCARDINAL_REST_PRT": "1", "cardinal_rest_prt": "1"})) == []


# The table


def test_the_table_has_a_line_for_each_setting() -> None:
    head, rule, *lines = table().splitlines()
    assert (head, rule) == ("| variable | flag | default | meaning |", "|---|---|---|---|")
    assert len(lines) == len(Settings.model_fields)
    for (name, field), line in zip(Settings.model_fields.items(), lines, strict=True):
        default = "" if field.is_required() else f"`{field.default}`"
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells == [f"`{variable_of(name)}`", f"`{flag_of(name)}`", default, field.description]


def test_each_setting_is_explained_in_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_name_is_spelt_as_flag_and_as_variable() -> None:
    assert flag_of("engine_timeout_s") == "--engine-timeout-s"
    assert variable_of("engine_timeout_s") == "CARDINAL_ENGINE_TIMEOUT_S"


def test_a_body_may_not_be_larger_than_what_all_bodies_may_take() -> None:
    with pytest.raises(SettingsError, match=r"max_body_bytes is 2048; at most max_upload_bytes \(1024\)"):
        load({"model_repository": "/m", "max_body_bytes": "2048", "max_upload_bytes": "1024"}, {})


# Settings that are small languages


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("none", {}),
        ("crash:1", {"crash": 1.0}),
        ("hang:0.25, slow:0", {"hang": 0.25, "slow": 0.0}),
        ("wrong_rows:0.5,crash:0.001", {"wrong_rows": 0.5, "crash": 0.001}),
    ],
)
def test_simulated_faults_are_read_as_documented(text: str, faults: dict[str, float]) -> None:
    assert load(REQUIRED | {"simulated_faults": text}, {}).simulated_faults == text
    assert parse_faults(text) == faults


@pytest.mark.parametrize(
    "text", ["crash", "crash:2", "crash:-0.1", "melt:0.1", "crash:0.1;hang:0.1", "crash:nan", ","]
)
def test_a_simulated_fault_that_is_none_is_told_with_what_there_is(text: str) -> None:
    (fault,) = _faults(REQUIRED | {"simulated_faults": text})
    assert fault.startswith(f"--simulated-faults is {text!r}: ")
    assert (
        "is none of crash, hang, wrong_rows, slow, garbage, memory with a probability, as crash:0.01" in fault
    )


def test_devices_and_tables_are_checked_at_once() -> None:
    faults = _faults(REQUIRED | {"devices": "gpu:0", "simulated_table": "tpu"})
    assert faults[0].startswith("--devices is 'gpu:0': Value error, 'gpu:0' is no device")
    assert faults[1].startswith("--simulated-table is 'tpu': Value error, one of 310/se_resnext50, ")


def test_unless_devices_are_named_they_are_those_that_there_are() -> None:
    assert load(REQUIRED, {}).chosen_devices is None
    assert [str(device) for device in load(REQUIRED | {"devices": "ascend:1"}, {}).chosen_devices or ()] == [
        "ascend:1"
    ]


@pytest.mark.parametrize(("text", "directory"), [("none", None), ("/state", Path("/state"))])
def test_the_state_folder_may_be_anywhere_or_nowhere(text: str, directory: Path | None) -> None:
    assert load(REQUIRED | {"state_folder": text}, {}).state_directory == directory


def test_unless_told_state_is_kept_in_the_cache_of_the_user() -> None:
    directory = load(REQUIRED, {}).state_directory
    assert directory is not None
    assert directory.name == "cardinal"
