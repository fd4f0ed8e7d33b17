"""One version of a model while it is served: bundle -> engines and queue, after its golden samples were right."""

import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np
from anyio.abc import TaskGroup, TaskStatus
from anyio.to_thread import run_sync

from service.answers import scores_of
from service.batching import BatchQueue, QueuePolicy
from service.bell import Bell
from service.engines import Curve, Engine, EngineProcess, Refused, SimulatedOptions
from service.errors import EngineFault
from service.images import decode
from service.logs import fields
from service.metrics import Metrics
from service.repository.bundle import Bundle, BundleError, check_digest
from service.repository.lineup import ServingOptions, line_up
from service.repository.manifest import FILE_NAME, Artifact
from service.repository.profiler import Profiler

_log = logging.getLogger("cardinal.repository")


class ServedModel:
    """A bundle with the engines and the queue that answer for it.

    There is an engine for each device. Where all of them are NPUs and all have failed, one on the CPU stands in
    until one of them is back.
    """

    def __init__(
        self, bundle: Bundle, options: ServingOptions, profiler: Profiler, metrics: Metrics, bell: Bell
    ) -> None:
        lineup = line_up(bundle, options)
        self.bundle = bundle
        self._options, self._profiler, self._metrics, self._bell = options, profiler, metrics, bell
        self._chosen = [Engine(ways, metrics, bell, self._prove) for ways in lineup.engines]
        self._stand_in: Engine | None = None
        if lineup.stand_in:
            self._stand_in = Engine(lineup.stand_in, metrics, bell, self._prove, self._lacks_others)
        self.engines = [*self._chosen, *([self._stand_in] if self._stand_in else [])]
        first = lineup.engines[0][0]
        policy = QueuePolicy(row_shape=(first.side, first.side, 3), bounds=options.bounds)
        self.queue = BatchQueue(self.engines, policy, metrics, (self.name, self.version))

    @property
    def is_ready(self) -> bool:
        """Tell whether some engine can take a batch."""
        return any(engine.is_ready for engine in self.engines)

    @property
    def trouble(self) -> str | None:
        """Say why none can, where that may last."""
        reasons = [engine.trouble for engine in self.engines]
        return "; ".join(dict.fromkeys(filter(None, reasons))) if all(reasons) else None

    @property
    def about(self) -> str:
        """What runs the model now, or ran it last."""
        told = [engine.about for engine in self.engines if engine.is_ready]
        return (told or [engine.about for engine in self.engines if engine.about] or [""])[0]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.model

    @property
    def version(self) -> str:
        """The version, as the APIs spell it."""
        return str(self.bundle.version)

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Load and prove, then serve the queue until it is closed and what it had accepted is answered.

        Raises (inside an exception group):
            EngineFault: the engine could not load the model, or its answers to the golden samples are off.
        """
        async with anyio.create_task_group() as tasks:
            for engine in self._chosen:
                tasks.start_soon(self._keep, engine)
            if self._stand_in:
                tasks.start_soon(self._watch, self._stand_in, tasks)
            await self._until(lambda: self.is_ready or self.trouble is not None)
            if not self.is_ready:
                raise EngineFault(self.trouble or "")
            tasks.start_soon(self._show_engine)
            task_status.started()
            await self.queue.run()
            tasks.cancel_scope.cancel()

    def _lacks_others(self) -> bool:
        return not any(engine.is_ready for engine in self._chosen)

    async def _keep(self, engine: Engine) -> None:
        """Serve an engine; the model lives on without one that never started."""
        try:
            await engine.serve()
        except EngineFault as error:
            if len(self.engines) > 1:  # else the whole model fails, and that is told
                _log.error("engine_failed", extra=self._fields(device=engine.device, error=str(error)))

    async def _watch(self, stand_in: Engine, tasks: TaskGroup) -> None:
        """Have the stand-in started when all others have failed, and tell of each change."""
        is_started = False
        while True:
            await self._until(lambda: all(engine.trouble for engine in self._chosen))
            reasons = [f"{engine.device}: {engine.trouble}" for engine in self._chosen]
            _log.error("fell_over", extra=self._fields(device=stand_in.device, reasons=reasons))
            self._metrics.fallovers.labels(self.name, self.version).inc()
            if not is_started:
                tasks.start_soon(self._keep, stand_in)
                is_started = True
            await self._until(lambda: not self._lacks_others())
            _log.warning("fell_back", extra=self._fields(engine=self.about))

    async def _show_engine(self) -> None:
        """Keep the metric true of what runs the model."""
        manifest, info = self.bundle.manifest, self._metrics.model_info
        untrained = str(manifest.provenance.untrained).lower()
        shown = ""

        def is_outdated() -> bool:
            return self.about != shown

        while True:
            shown = self.about
            labels = (self.name, self.version, manifest.network.name, shown, untrained)
            info.labels(*labels).set(1)
            try:
                await self._until(is_outdated)
            finally:
                info.remove(*labels)

    async def _until(self, truth: Callable[[], bool]) -> None:
        while not truth():
            await self._bell.wait()

    def _fields(self, **values: object) -> dict[str, object]:
        return fields(model=self.name, version=self.version, **values)

    async def _prove(self, process: EngineProcess) -> Curve:
        """Refuse a process that runs another file than the bundle names, or answers the golden samples wrongly.

        Each one is asked, after every restart too: the disk may have changed since the last one was. How long the
        batches of one that is right take is measured then, once.
        """
        await self._check_answers(process)
        order = process.order
        if isinstance(order.options, SimulatedOptions) and order.options.faults:
            return Curve.exact(order.options.latency_s)  # measuring would only meet the faults
        gears = order.gears_to_measure
        files = {file.path for file in order.files}
        digests = [each.sha256 for each in self.bundle.manifest.artifacts if self._path_of(each) in files]
        depends_on = {
            "artifacts": " ".join(digests),
            "engine": process.about,
            "device": str(order.device),
            "cpu": self._options.machine.cpu_model,
            "threads": str(order.threads),
            "gears": " ".join(map(str, gears)),
        }
        return await self._profiler.curve(process, gears, depends_on)

    async def _check_answers(self, process: EngineProcess) -> None:
        if self._options.engine == "simulated":
            reason = "a simulated engine answers seeded scores"
            _log.warning("golden_samples_skipped", extra=self._fields(reason=reason))
            return
        worst = 0.0
        for file in process.order.files:
            artifact = self._artifact_of(file.path)
            await self._check_digest(artifact)
            tolerance, gear = self.bundle.manifest.tolerance_for(artifact), min(file.gears or (1,))
            for index in range(len(self.bundle.golden_pictures)):
                worst = max(worst, await self._deviation(process, index, gear, tolerance))
        _log.info("golden_samples_agree", extra=self._fields(largest_deviation=float(f"{worst:.2g}")))

    def _path_of(self, artifact: Artifact) -> Path:
        return self.bundle.directory / artifact.file

    def _artifact_of(self, path: Path) -> Artifact:
        (artifact,) = (
            artifact for artifact in self.bundle.manifest.artifacts if self._path_of(artifact) == path
        )
        return artifact

    async def _check_digest(self, artifact: Artifact) -> None:
        try:
            await run_sync(check_digest, self.bundle.directory, artifact)
        except BundleError as error:
            raise Refused(str(error)) from error

    async def _deviation(self, process: EngineProcess, index: int, gear: int, tolerance: float) -> float:
        """Tell how far the scores of one golden sample are off, as a share of its best score."""
        manifest, picture = self.bundle.manifest, self.bundle.golden_pictures[index]
        spec, max_pixels = manifest.preprocessing, self._options.max_image_pixels
        row = await run_sync(lambda: decode(picture, spec, max_pixels=max_pixels))
        answer = await process.run([row[np.newaxis]], gear)
        scores = scores_of(answer.logits, manifest.temperature)[0]
        expected = np.array(manifest.golden.samples[index].scores)
        off = np.abs(scores - expected)
        off[np.isnan(off)] = np.inf
        worst, allowed = int(off.argmax()), tolerance * expected.max()
        if off[worst] > allowed:
            raise Refused(
                f"{FILE_NAME}: golden.samples[{index}].scores[{worst}] is {expected[worst]:.7g}, but "
                f"{process.about} answers {scores[worst]:.7g}: off by {off[worst]:.3g}, allowed is {allowed:.3g}"
            )
        return float(off[worst] / expected.max())
