"""What an engine process is to load, and how: EngineOrder -> the text of a LOAD packet."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from service.devices import CPU, Device

AscendPrecision = Literal[
    "enforce_fp16", "preferred_fp32", "enforce_fp32", "enforce_origin", "preferred_optimal"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file that the engine loads, and the batch sizes that it runs; None is any."""

    path: Path
    gears: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenvinoOptions:
    """What only OpenVINO is told."""

    engine: ClassVar[str] = "openvino"

    precision: Literal["f32", "bf16"] = "f32"
    cache_folder: Path | None = None  # compiled models, for a faster second start

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteOptions:
    """What only MindSpore Lite is told."""

    engine: ClassVar[str] = "mindspore_lite"

    precision: AscendPrecision = (
        "enforce_fp16"  # where a graph is compiled at load; else it is decided already
    )
    config_file: Path | None = None  # in the library's own form
    allows_uncompiled: bool = False
    device_folder: Path = Path("/dev")

    def __str__(self) -> str:
        return self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOptions:
    """What a pretended device does; faults are probabilities per batch."""

    engine: ClassVar[str] = "simulated"

    table: str
    latency_s: Mapping[int, float]
    jitter: float = 0.0  # the largest share that a batch takes longer
    faults: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.engine} {self.table}"


EngineOptions: TypeAlias = OpenvinoOptions | LiteOptions | SimulatedOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOrder:
    """What an engine process is to load, and how."""

    model: str  # for log lines
    version: str
    files: tuple[ArtifactFile, ...]
    side: int  # rows are (side, side, 3)
    classes: int
    max_rows: int = 1
    threads: int
    load_timeout_s: float
    run_timeout_s: float
    options: EngineOptions
    device: Device = CPU
    pins_threads: bool | None = None  # None leaves the choice to the engine
    python: str = field(default=sys.executable)

    @property
    def engine(self) -> str:
        """The engine whose options these are."""
        return self.options.engine

    @property
    def gears(self) -> tuple[int, ...] | None:
        """The batch sizes that some file runs; None is any."""
        gears: list[int] = []
        for file in self.files:
            if file.gears is None:
                return None
            gears += file.gears
        return tuple(sorted(gears))

    @property
    def gears_to_measure(self) -> tuple[int, ...]:
        """The batch sizes that are tried: all gears, or where any size will do, the powers of two."""
        return self.gears or tuple(2**power for power in range(self.max_rows.bit_length()))

    def packed(self) -> str:
        """Write it as JSON for the process."""
        return json.dumps(asdict(self) | {"engine": self.engine}, default=str)
