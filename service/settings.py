"""The settings of a server: declared once, read from flags, environment and a TOML file.

flags, CARDINAL_* variables, TOML file -> load() -> one frozen Settings. A flag wins over a variable,
a variable over the file, the file over the default.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.devices import Device, parse_devices
from service.latency_tables import TABLES
from service.machine import usable_cpus

PREFIX = "CARDINAL_"
MIB = 1024 * 1024
_FAULTS = ("crash", "hang", "wrong_rows", "slow", "garbage", "memory")
_SHARE = re.compile(r"0(\.[0-9]+)?|1(\.0+)?")
_MOST_THREADS_UNASKED = 8  # each may hold a whole decoded picture

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class SettingsError(Exception):
    """The settings cannot be used; the message lists every fault, one a line."""


class Settings(BaseModel):
    """Everything that can be set. The field descriptions are the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_repository: Path = Field(description="Directory of bundles, `<model>/<version>/`. Required.")
    required_models: str = Field(
        "all",
        description="Models that must be ready before the server is: `all`, `none`, or names parted by commas.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    rest_port: Port = Field(8000, description="Port of the REST door and the playground; 0 takes a free one.")
    grpc_port: Port = Field(8001, description="Port of the gRPC door; 0 takes a free one.")
    control_port: Port = Field(8002, description="Port of metrics and health; 0 takes a free one.")
    engine: Literal["auto", "openvino", "mindspore_lite", "simulated"] = Field(
        "auto",
        description="Engine to run models with; `auto` takes what the bundle has an artifact for, "
        "`simulated` answers seeded scores at the pace of a real accelerator.",
    )
    devices: str = Field(
        "auto",
        description="Devices of each model, one engine process on each: `ascend:0-7`, `cpu:0x2` for two on one, "
        "parted by commas; `auto` takes all NPUs where the bundle has an artifact for them, else the CPU.",
    )
    engine_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of each engine process; 0 leaves the choice to the engine, or divides the CPUs by "
        "the engines of a model that share them, and counts no more CPUs than the cgroup allows the time of.",
    )
    engine_pinning: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether those threads stay on their CPUs; `auto` leaves the choice to the engine, "
        "and is `off` where several engines of a model share the CPUs or the cgroup limits their time.",
    )
    openvino_precision: Literal["auto", "f32", "bf16"] = Field(
        "auto",
        description="What OpenVINO computes in; `auto` is bf16 where the CPU has it and the golden samples agree, "
        "else f32.",
    )
    mindspore_lite_python: str = Field(
        "auto",
        description="Python that has the package mindspore_lite; `auto` is the server's own, or the one in "
        "`.venv-mslite` beside its environment.",
    )
    mindspore_lite_config: str = Field(
        "none", description="Configuration file that MindSpore Lite reads when it loads a model."
    )
    ascend_target: str = Field(
        "auto",
        pattern="^(auto|ascend[0-9][0-9a-z]*)$",
        description="Chip whose artifacts NPUs run, such as `ascend310p`; `auto` is the only one that a bundle has.",
    )
    ascend_precision: Literal[
        "enforce_fp16", "preferred_fp32", "enforce_fp32", "enforce_origin", "preferred_optimal"
    ] = Field(
        "enforce_fp16", description="Precision of NPUs, for models that are compiled only when they load."
    )
    ascend_uncompiled: Literal["refuse", "allow"] = Field(
        "refuse",
        description="Whether an NPU may load a model that was not compiled before, which takes minutes.",
    )
    simulated_table: str = Field(
        "310p/se_resnext50",
        description=f"Device and network whose pace the simulated engine keeps: {', '.join(TABLES)}.",
    )
    simulated_jitter: float = Field(
        0.0, ge=0, le=100, description="Largest share by which a simulated batch takes longer."
    )
    simulated_faults: str = Field(
        "none",
        description="Faults of the simulated engine with their probability at each batch, such as "
        "`crash:0.01,hang:0.001`; there are crash, hang, wrong_rows, slow, garbage and memory.",
    )
    state_folder: str = Field(
        "auto",
        description="Directory for what makes the next start faster, compiled models and measured curves; `auto` is "
        "`cardinal` in the user's cache, `none` keeps nothing.",
    )
    engine_timeout_s: Seconds = Field(
        30.0, gt=0, description="A batch without an answer for this long fails, and its engine is restarted."
    )
    load_timeout_s: Seconds = Field(
        120.0, gt=0, description="An engine that has not loaded its model by then has failed."
    )
    max_batch_rows: int = Field(
        16,
        ge=1,
        le=1024,
        description="Most rows in one engine call, where the artifact does not fix its gears.",
    )
    max_queued_rows: int = Field(
        256, ge=1, le=65536, description="Rows that may wait for one model; more are refused with 429."
    )
    max_queued_s: Seconds = Field(
        60.0, gt=0, description="Device time that may wait for one model; more is refused with 429."
    )
    profile_s: Seconds = Field(
        10.0,
        gt=0,
        description="Longest time to measure how long the batches of a version take, at its first start.",
    )
    max_requests: int = Field(
        256, ge=1, le=65536, description="Requests in progress on each door; more are refused with 429."
    )
    max_body_bytes: int = Field(
        16 * MIB,
        ge=1024,
        le=1024 * MIB,
        description="Largest request body; a larger one is refused with 413.",
    )
    max_upload_bytes: int = Field(
        256 * MIB,
        ge=1024,
        le=64 * 1024 * MIB,
        description="Bytes of requests held at once, on both doors; what would be more is refused with 429.",
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=1_000_000_000,
        description="Largest picture in pixels, read from its header before it is decoded.",
    )
    max_images: int = Field(64, ge=1, le=1024, description="Most pictures in one request.")
    cache_mib: int = Field(
        0,
        ge=0,
        le=65536,
        description="MiB of memory for the answers to the images asked for last; 0 remembers none.",
    )
    decode_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads that decode pictures; 0 means one for each CPU that the process may use, 8 at most.",
    )
    request_timeout_s: Seconds = Field(
        30.0,
        gt=0,
        description="Longest time that a request may take, and its deadline if it brings none of its own.",
    )
    lame_duck_s: Seconds = Field(
        2.0, description="After SIGTERM, how long requests are still taken while readiness is already false."
    )
    drain_timeout_s: Seconds = Field(
        25.0, description="After that, how long accepted requests may take before they are cut off."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Form of log lines; `auto` is text on a terminal and JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines to write."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_filled(cls, value: object) -> object:
        if value == "" or isinstance(value, bool):
            raise ValueError("a value is needed, and no setting is true or false")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        faults = []
        if self.max_batch_rows > self.max_queued_rows:
            faults.append(
                f"max_batch_rows is {self.max_batch_rows}; "
                f"at most max_queued_rows ({self.max_queued_rows}) is allowed"
            )
        if self.max_body_bytes > self.max_upload_bytes:
            faults.append(
                f"max_body_bytes is {self.max_body_bytes}; "
                f"at most max_upload_bytes ({self.max_upload_bytes}) is allowed"
            )
        chosen = [port for port in (self.rest_port, self.grpc_port, self.control_port) if port]
        if len(set(chosen)) < len(chosen):
            faults.append(
                f"rest_port, grpc_port and control_port are {self.rest_port}, {self.grpc_port}, "
                f"{self.control_port}; they must differ"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, value: str) -> str:
        if value != "auto":
            parse_devices(value)
        return value

    @field_validator("simulated_table")
    @classmethod
    def _check_table(cls, value: str) -> str:
        if value not in TABLES:
            raise ValueError(f"one of {', '.join(TABLES)} is needed")
        return value

    @field_validator("simulated_faults")
    @classmethod
    def _check_faults(cls, value: str) -> str:
        parse_faults(value)
        return value

    @property
    def chosen_devices(self) -> tuple[Device, ...] | None:
        """The devices that are named; None means those that there are."""
        return None if self.devices == "auto" else parse_devices(self.devices)

    @property
    def state_directory(self) -> Path | None:
        """The state folder, with `auto` resolved; None where nothing is kept."""
        if self.state_folder == "none":
            return None
        if self.state_folder != "auto":
            return Path(self.state_folder)
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cardinal"
        except RuntimeError:  # a user without a home, as in some containers
            return None

    @property
    def threads_to_decode(self) -> int:
        """The number of decode threads, with 0 resolved."""
        return self.decode_threads or min(usable_cpus(), _MOST_THREADS_UNASKED)

    @property
    def required_names(self) -> frozenset[str] | None:
        """The models that readiness depends on; None means all that there are."""
        if self.required_models == "all":
            return None
        if self.required_models == "none":
            return frozenset()
        return frozenset(name.strip() for name in self.required_models.split(",") if name.strip())


def parse_faults(text: str) -> dict[str, float]:
    """Read faults of the simulated engine with their probabilities; raises ValueError."""
    faults: dict[str, float] = {}
    for part in [] if text == "none" else text.split(","):
        name, _, share = part.strip().partition(":")
        if name not in _FAULTS or not _SHARE.fullmatch(share):
            raise ValueError(
                f"{part.strip()!r} is none of {', '.join(_FAULTS)} with a probability, as crash:0.01"
            )
        faults[name] = float(share)
    return faults


def flag_of(name: str) -> str:
    """Spell a setting as a command-line flag."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """Spell a setting as an environment variable."""
    return PREFIX + name.upper()


def load(flags: Mapping[str, str], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read and check all settings.

    Raises:
        SettingsError: listing every fault with the place that it came from.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in _read_file(file).items():
        values[name], origin[name] = value, f"{file}: {name}"
    for name in Settings.model_fields:
        if (variable := variable_of(name)) in environment:
            values[name], origin[name] = environment[variable], variable
    for name, text in flags.items():
        values[name], origin[name] = text, flag_of(name)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_faults(error, origin))) from None


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Name the CARDINAL_ variables that are no setting but nearly one.

    Others are left alone: Kubernetes itself sets CARDINAL_SERVICE_HOST and its like for a Service called cardinal.
    """
    known = [variable_of(name) for name in Settings.model_fields]
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                yield f"{name} is not a setting; did you mean {near}?"


def table() -> str:
    """Render the settings as the Markdown table of the README."""
    lines = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() else f"`{field.default}`"
        lines.append(f"| `{variable_of(name)}` | `{flag_of(name)}` | {default} | {field.description} |")
    return "\n".join(lines)


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: cannot be read as TOML: {error}") from error


def _faults(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "missing":
            yield f"{name} is missing: give {flag_of(name)} or {variable_of(name)}"
        elif fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            yield f"{origin[name]} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
        elif name:
            yield f"{origin.get(name, name)} is {fault['input']!r}: {fault['msg']}"
        else:
            yield fault["msg"].removeprefix("Value error, ")
