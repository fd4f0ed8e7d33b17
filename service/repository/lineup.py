"""Decides what runs a bundle: Bundle + ServingOptions -> Lineup. A pure function of what the machine has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from service.batching import Bounds
from service.devices import CPU, Device
from service.engines import (
    ArtifactFile,
    EngineOptions,
    EngineOrder,
    LiteOptions,
    OpenvinoOptions,
    SimulatedOptions,
)
from service.machine import Machine
from service.repository.bundle import Bundle, BundleError
from service.repository.manifest import FILE_NAME, Artifact

EngineChoice = Literal["auto", "openvino", "mindspore_lite", "simulated"]
Ways: TypeAlias = tuple[
    EngineOrder, ...
]  # to run a model on one device; the next is for where one is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """What of the settings concerns models: which engines, on which devices, and their limits."""

    engine: EngineChoice
    devices: tuple[Device, ...] | None  # None takes the NPUs that there are, else the CPU
    machine: Machine
    engine_threads: int
    pins_threads: bool | None
    load_timeout_s: float
    engine_timeout_s: float
    max_batch_rows: int
    bounds: Bounds  # of each model's queue
    profile_s: float  # the longest that a version is measured
    state_folder: Path | None  # where curves are kept
    max_image_pixels: int
    openvino_precision: Literal["auto", "f32", "bf16"]
    openvino_cache: Path | None
    lite: LiteOptions
    lite_python: Path | None  # an interpreter that has mindspore_lite
    ascend_target: str | None  # which of a bundle's NPU artifacts; None takes the only one
    simulated: SimulatedOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """The engines of one model: one for each device, and one that stands in when all of them fail."""

    engines: tuple[Ways, ...]
    stand_in: Ways | None
    gears: tuple[int, ...] | None  # batch sizes that each engine runs; None is any


def line_up(bundle: Bundle, options: ServingOptions) -> Lineup:
    """Choose engines for the devices that are set, or for those that there are.

    Raises:
        BundleError: the bundle has no artifact for a device, or the machine no such device.
    """
    choice = _Choice(bundle=bundle, options=options)
    devices = options.devices or choice.devices_there()
    engines = tuple(choice.ways(device) for device in devices)
    on_cpu = sum(device.kind == "cpu" for device in devices)
    machine = options.machine
    if on_cpu > 1 or machine.is_limited:
        engines = tuple(_with_share(ways, machine.cpus // max(1, on_cpu)) for ways in engines)
    gears = _common_gears([ways[0] for ways in engines])
    is_on_npus = all(device.kind == "ascend" for device in devices)
    stand_in = choice.stand_in(gears) if is_on_npus else None
    if stand_in and machine.is_limited:
        stand_in = _with_share(stand_in, machine.cpus)
    max_rows = max(gears or (options.max_batch_rows,))
    return Lineup(
        engines=tuple(_with_room(ways, max_rows) for ways in engines),
        stand_in=stand_in and _with_room(stand_in, max_rows),
        gears=gears,
    )


def _with_share(ways: Ways, threads: int) -> Ways:
    """Give each engine threads of its own, free to move: pinned, those of all engines would sit on the same CPUs."""
    return tuple(
        replace(order, threads=order.threads or max(1, threads), pins_threads=bool(order.pins_threads))
        if order.device.kind == "cpu"
        else order
        for order in ways
    )


def _with_room(ways: Ways, max_rows: int) -> Ways:
    return tuple(replace(order, max_rows=max_rows) for order in ways)


def _common_gears(orders: Sequence[EngineOrder]) -> tuple[int, ...] | None:
    fixed = [set(order.gears) for order in orders if order.gears is not None]
    if not fixed:
        return None
    common = set.intersection(*fixed)
    if not common:
        raise BundleError(f"{FILE_NAME}: its artifacts for the chosen devices have no gear in common")
    return tuple(sorted(common))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What one bundle allows under the options."""

    bundle: Bundle
    options: ServingOptions

    def devices_there(self) -> tuple[Device, ...]:
        """List the NPUs where an engine could use them, else the CPU."""
        npus = range(len(self.options.machine.ascend_nodes))
        artifacts = self.bundle.manifest.artifacts
        devices = tuple(Device(kind="ascend", number=number) for number in npus)
        if devices and any(self._fits(artifact, devices[0]) for artifact in artifacts):
            return devices
        return (CPU,)

    def stand_in(self, gears: tuple[int, ...] | None) -> Ways | None:
        """Find a way on the CPU that takes the same batches."""
        if self.options.engine == "simulated":
            return None
        try:
            ways = self.ways(CPU)
        except BundleError:
            return None
        known = ways[0].gears
        return ways if known is None or set(gears or ()) <= set(known) else None

    def ways(self, device: Device) -> Ways:
        """Order engines for one device, the best one first."""
        options = self.options
        if options.engine == "simulated":
            gears = tuple(options.simulated.latency_s)
            return (self._order(device, (ArtifactFile(path=Path(), gears=gears),), options.simulated),)
        artifacts = self._artifacts(device)
        files = tuple(
            ArtifactFile(path=self.bundle.directory / artifact.file, gears=artifact.gears)
            for artifact in artifacts
        )
        if artifacts[0].engine == "openvino":
            return tuple(self._order(device, files, each) for each in self._openvino_options())
        return (replace(self._order(device, files, options.lite), python=str(options.lite_python)),)

    def _openvino_options(self) -> list[OpenvinoOptions]:
        """Give the precisions to try; the golden samples decide."""
        chosen, cache = self.options.openvino_precision, self.options.openvino_cache
        f32 = OpenvinoOptions(precision="f32", cache_folder=cache)
        bf16 = OpenvinoOptions(precision="bf16", cache_folder=cache)
        if chosen == "auto":
            return [bf16, f32] if self.options.machine.computes_bf16 else [f32]
        return [bf16 if chosen == "bf16" else f32]

    def _artifacts(self, device: Device) -> list[Artifact]:
        """Choose the files of one engine for one target, or raise BundleError."""
        self._check_there(device)
        artifacts = self.bundle.manifest.artifacts
        fitting = [artifact for artifact in artifacts if self._fits(artifact, device)]
        if not fitting:
            raise BundleError(self._without_artifact(device))
        is_openvino = any(artifact.engine == "openvino" for artifact in fitting)  # the faster one
        chosen = [artifact for artifact in fitting if (artifact.engine == "openvino") == is_openvino]
        targets = sorted({artifact.target for artifact in chosen})
        if len(targets) > 1:
            raise BundleError(
                f"{FILE_NAME}: artifacts are for {', '.join(targets)}: set ascend_target to one"
            )
        return chosen

    def _check_there(self, device: Device) -> None:
        """Refuse an NPU past the last: MindSpore Lite would take the first one instead, with a warning."""
        there = len(self.options.machine.ascend_nodes)
        if device.kind == "ascend" and device.number >= there:
            raise BundleError(f"{device} is not there: this machine shows {there} NPUs")

    def _fits(self, artifact: Artifact, device: Device) -> bool:
        has_python = artifact.engine != "mindspore_lite" or self.options.lite_python is not None
        return has_python and self._suits(artifact, device)

    def _suits(self, artifact: Artifact, device: Device) -> bool:
        options = self.options
        if options.engine not in {"auto", artifact.engine}:
            return False
        if device.kind == "cpu":
            return artifact.target == "cpu"
        return artifact.target != "cpu" and options.ascend_target in {None, artifact.target}

    def _without_artifact(self, device: Device) -> str:
        artifacts = self.bundle.manifest.artifacts
        there = ", ".join(dict.fromkeys(f"{artifact.engine} on {artifact.target}" for artifact in artifacts))
        sentence = f"artifacts are for {there}; none is for engine {self.options.engine} on {device.kind}"
        lacks_python = any(self._suits(artifact, device) for artifact in artifacts)
        hint = " without a Python that has mindspore_lite: see mindspore_lite_python" if lacks_python else ""
        return f"{FILE_NAME}: {sentence}{hint}"

    def _order(self, device: Device, files: tuple[ArtifactFile, ...], special: EngineOptions) -> EngineOrder:
        options, manifest = self.options, self.bundle.manifest
        return EngineOrder(
            model=self.bundle.model,
            version=str(self.bundle.version),
            files=files,
            side=manifest.input_size,
            classes=manifest.classes,
            threads=options.engine_threads,
            load_timeout_s=options.load_timeout_s,
            run_timeout_s=options.engine_timeout_s,
            options=special,
            device=device,
            pins_threads=options.pins_threads,
        )
