"""One version of a model while it is served: bundle -> engine and queue, after its golden samples were right."""

import logging
from dataclasses import dataclass

import anyio
import numpy as np
from anyio.abc import TaskStatus
from anyio.to_thread import run_sync

from service.answers import scores_of
from service.batching import BatchQueue, QueuePolicy
from service.bell import Bell
from service.engines import Engine, EngineOrder
from service.images import decode
from service.logs import fields
from service.metrics import Metrics
from service.repository.bundle import Bundle, BundleError
from service.repository.manifest import FILE_NAME

_log = logging.getLogger("cardinal.repository")


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
        artifact = bundle.artifact_for(options.engine)
        side = bundle.manifest.input_size
        order = EngineOrder(
            model=self.name,
            version=self.version,
            engine=options.engine if options.engine != "auto" else artifact.engine,
            artifact=bundle.directory / artifact.file,
            side=side,
            classes=bundle.manifest.classes,
            max_rows=max(artifact.gears or (options.max_batch_rows,)),
            threads=options.engine_threads,
            load_timeout_s=options.load_timeout_s,
            run_timeout_s=options.engine_timeout_s,
        )
        self.engine = Engine(order, metrics, bell)
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
        """Load, verify, then serve the queue until it is closed and what it had accepted is answered.

        Raises (inside an exception group):
            EngineFault: the engine could not load the model.
            BundleError: its answers to the golden samples are off.
        """
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.engine.serve)
            await self._verify()
            task_status.started()
            await self.queue.run()
            tasks.cancel_scope.cancel()

    async def _verify(self) -> None:
        """Compare the engine's answers with the golden samples: a model that is off is not served."""
        who = {"model": self.name, "version": self.version}
        if self._options.engine == "simulated":
            _log.warning(
                "golden_samples_skipped",
                extra=fields(**who, reason="a simulated engine answers seeded scores"),
            )
            return
        worst = 0.0
        for index in range(len(self.bundle.golden_pictures)):
            worst = max(worst, await self._deviation(index))
        _log.info("golden_samples_agree", extra=fields(**who, largest_deviation=float(f"{worst:.2g}")))

    async def _deviation(self, index: int) -> float:
        """Tell how far the scores of one golden sample are off, as a share of its best score."""
        manifest, picture = self.bundle.manifest, self.bundle.golden_pictures[index]
        spec, max_pixels = manifest.preprocessing, self._options.max_image_pixels
        row = await run_sync(lambda: decode(picture, spec, max_pixels=max_pixels))
        answer = await self.engine.run([row[np.newaxis]], self._smallest_gear)
        scores = scores_of(answer.logits, manifest.temperature)[0]
        expected = np.array(manifest.golden.samples[index].scores)
        off = np.abs(scores - expected)
        off[np.isnan(off)] = np.inf
        worst, allowed = int(off.argmax()), manifest.golden.tolerance * expected.max()
        if off[worst] > allowed:
            raise BundleError(
                f"{FILE_NAME}: golden.samples[{index}].scores[{worst}] is {expected[worst]:.7g}, but "
                f"{self.engine.about} answers {scores[worst]:.7g}: off by {off[worst]:.3g}, allowed is {allowed:.3g}"
            )
        return float(off[worst] / expected.max())
