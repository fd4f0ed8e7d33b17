"""One version of a model while it is served: bundle -> engine and queue, after its golden samples were right."""

import logging
from dataclasses import dataclass, replace

import anyio
import numpy as np
from anyio.abc import TaskStatus
from anyio.to_thread import run_sync

from service.answers import scores_of
from service.batching import BatchQueue, QueuePolicy
from service.bell import Bell
from service.engines import (
    ArtifactFile,
    Engine,
    EngineOptions,
    EngineOrder,
    EngineProcess,
    OpenvinoOptions,
    Refused,
    SimulatedOptions,
)
from service.images import decode
from service.latency_tables import TABLES
from service.logs import fields
from service.metrics import Metrics
from service.repository.bundle import Bundle, BundleError, check_digest
from service.repository.manifest import FILE_NAME

_log = logging.getLogger("cardinal.repository")

_TABLE_NAME = "310p/se_resnext50"
_TABLE = TABLES[_TABLE_NAME]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """What of the settings concerns models: which engine, and its limits."""

    engine: str
    engine_threads: int
    load_timeout_s: float
    engine_timeout_s: float
    max_batch_rows: int
    max_queued_rows: int
    max_image_pixels: int


class ServedModel:
    """A bundle with the engine and the queue that answer for it."""

    def __init__(self, bundle: Bundle, options: ServingOptions, metrics: Metrics, bell: Bell) -> None:
        self.bundle = bundle
        self._options = options
        artifact = self._artifact = bundle.artifact_for(options.engine)
        if options.engine == "simulated":  # it has the gears that its table knows
            artifact = replace(artifact, gears=tuple(_TABLE))
        side = bundle.manifest.input_size
        order = EngineOrder(
            model=self.name,
            version=self.version,
            engine=options.engine if options.engine != "auto" else artifact.engine,
            files=(ArtifactFile(path=bundle.directory / artifact.file, gears=artifact.gears),),
            options=_options_of(options.engine),
            side=side,
            classes=bundle.manifest.classes,
            max_rows=max(artifact.gears or (options.max_batch_rows,)),
            threads=options.engine_threads,
            load_timeout_s=options.load_timeout_s,
            run_timeout_s=options.engine_timeout_s,
        )
        self.engine = Engine(order, metrics, bell, self._prove)
        policy = QueuePolicy(
            row_shape=(side, side, 3),
            gears=artifact.gears,
            max_batch_rows=order.max_rows,
            max_queued_rows=options.max_queued_rows,
        )
        self.queue = BatchQueue(self.engine, policy, metrics, (self.name, self.version))
        self._smallest_gear = min(artifact.gears or (1,))

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
            await tasks.start(self.engine.serve)
            task_status.started()
            await self.queue.run()
            tasks.cancel_scope.cancel()

    async def _prove(self, process: EngineProcess) -> None:
        """Refuse a process that runs another file than the bundle names, or answers the golden samples wrongly.

        Each one is asked, after every restart too: the disk may have changed since the last one was.
        """
        who = {"model": self.name, "version": self.version}
        if self._options.engine == "simulated":
            reason = "a simulated engine answers seeded scores"
            _log.warning("golden_samples_skipped", extra=fields(**who, reason=reason))
            return
        try:
            await run_sync(check_digest, self.bundle.directory, self._artifact)
        except BundleError as error:
            raise Refused(str(error)) from error
        worst = 0.0
        for index in range(len(self.bundle.golden_pictures)):
            worst = max(worst, await self._deviation(process, index))
        _log.info("golden_samples_agree", extra=fields(**who, largest_deviation=float(f"{worst:.2g}")))

    async def _deviation(self, process: EngineProcess, index: int) -> float:
        """Tell how far the scores of one golden sample are off, as a share of its best score."""
        manifest, picture = self.bundle.manifest, self.bundle.golden_pictures[index]
        spec, max_pixels = manifest.preprocessing, self._options.max_image_pixels
        row = await run_sync(lambda: decode(picture, spec, max_pixels=max_pixels))
        answer = await process.run([row[np.newaxis]], self._smallest_gear)
        scores = scores_of(answer.logits, manifest.temperature)[0]
        expected = np.array(manifest.golden.samples[index].scores)
        off = np.abs(scores - expected)
        off[np.isnan(off)] = np.inf
        worst, allowed = int(off.argmax()), manifest.golden.tolerance * expected.max()
        if off[worst] > allowed:
            raise Refused(
                f"{FILE_NAME}: golden.samples[{index}].scores[{worst}] is {expected[worst]:.7g}, but "
                f"{process.about} answers {scores[worst]:.7g}: off by {off[worst]:.3g}, allowed is {allowed:.3g}"
            )
        return float(off[worst] / expected.max())


def _options_of(engine: str) -> EngineOptions:
    if engine == "simulated":
        return SimulatedOptions(table=_TABLE_NAME, latency_s=_TABLE)
    return OpenvinoOptions()
