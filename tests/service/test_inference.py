from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
from anyio.abc import TaskGroup

from gated import LABELS, GatedEngine, becomes_true, picture_of
from patience import PATIENCE_S
from service.cache import AnswerCache
from service.decoding import Decoder
from service.engines import Curve
from service.inference import Classification, ClassifyRequest, Inference
from service.journal import Entry, Journal
from service.metrics import Metrics
from service.sharing import Sharing
from shelf import Shelf

pytestmark = pytest.mark.anyio


@dataclass
class Site:
    """The story of a request over engines that the test holds."""

    inference: Inference
    journal: Journal
    engines: Sequence[GatedEngine]
    tasks: TaskGroup

    async def classify(self, *numbers: int) -> Classification:
        request = ClassifyRequest(
            model=LABELS[0],
            version=None,
            images=[picture_of(number) for number in numbers],
            top_k=None,
            deadline=self.inference.deadline(None),
            caller="",
            priority="normal",
        )
        return await self.inference.classify(request, Entry(self.journal, "rest", "1"))


@asynccontextmanager
async def site(*names: str) -> AsyncIterator[Site]:
    """Open a site with an engine of each name, which runs one row at a time."""
    engines = [GatedEngine(Curve.exact({1: 1e-4})) for _ in names]
    for engine, name in zip(engines, names, strict=True):
        engine.about = name
    metrics = Metrics()
    shelf, cache = Shelf(engines, metrics), AnswerCache(max_bytes=10_000, metrics=metrics)
    decoder = Decoder(threads=1, max_pixels=1_000_000)
    inference = Inference(shelf, decoder, Sharing(cache, metrics), max_images=4, longest_s=PATIENCE_S)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shelf.queue.run)
            await becomes_true(lambda: len(shelf.queue.tunings) == len(engines))
            yield Site(inference, Journal(metrics, max_requests=4), engines, tasks)
            shelf.queue.close()


async def test_a_reply_names_the_engine_that_ran_its_rows_not_the_first_that_could() -> None:
    async with site("left", "right") as open_site:
        left, right = open_site.engines
        open_site.tasks.start_soon(open_site.classify, 1)
        await left.begun(1)
        right.let_through()
        assert (await open_site.classify(2)).engine == "right"
        left.let_through()


async def test_a_reply_names_all_engines_that_ran_its_rows() -> None:
    async with site("left", "right") as open_site:
        for engine in open_site.engines:
            engine.let_through()
        assert (await open_site.classify(1, 2)).engine == "left, right"


async def test_a_remembered_answer_names_the_engine_that_had_computed_it() -> None:
    async with site("left", "right") as open_site:
        left, right = open_site.engines
        left.let_through()
        await open_site.classify(1)
        open_site.tasks.start_soon(open_site.classify, 2)
        await left.begun(2)
        right.let_through()
        assert (await open_site.classify(3, 1)).engine == "right, left"
        left.let_through()
