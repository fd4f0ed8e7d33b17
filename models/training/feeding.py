"""Feed a learner: dataset, augmentation, epoch -> the batches of each step, made by threads ahead of their time.

The order is a function of seed and epoch, and what is random in a row of seed, epoch and picture. So any step can
be made again, and processes that share the pictures of a step make those that one alone would.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.training.augmentation import Augmenter
from models.training.datasets import Dataset
from models.training.learner import Batch, World
from models.training.recipe import Recipe

_AHEAD = 2  # batches, beside those that are being made


class Feed:
    """The training pictures of one process."""

    def __init__(self, recipe: Recipe, dataset: Dataset, world: World) -> None:
        self._recipe, self._dataset, self._world = recipe, dataset, world
        rows = recipe.batch * recipe.accumulate * world.size
        self.rows_per_step, self.pictures = rows, len(dataset)
        self.steps = len(dataset) // rows
        if not self.steps:
            raise InvalidValueError(
                f"a step takes {rows} pictures (batch, accumulate and {world.size} devices),"
                f" and the training set has {len(dataset)}; allowed is at most as many"
            )

    def epoch(self, epoch: int, first_step: int) -> Iterator[list[Batch]]:
        """Yield the batches of each step of an epoch, from this step on; what no step would fill is left out."""
        batches = self._batches(epoch, first_step)
        augmenter = Augmenter(self._recipe.augmentation, self._recipe.preprocessing_of(epoch))
        with ThreadPoolExecutor(self._recipe.data.workers, thread_name_prefix="feed") as threads:
            begun: deque[Future[Batch]] = deque()
            try:
                for indices in batches:
                    begun.append(threads.submit(self._batch, augmenter, epoch, indices))
                    if len(begun) == self._recipe.data.workers + _AHEAD + self._recipe.accumulate:
                        yield self._step(begun)
                while begun:
                    yield self._step(begun)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _step(self, begun: deque[Future[Batch]]) -> list[Batch]:
        return [begun.popleft().result() for _ in range(self._recipe.accumulate)]

    def _batches(self, epoch: int, first_step: int) -> Iterator[NDArray[np.integer]]:
        """Yield the pictures of each batch of this process; those of a step lie side by side in the order."""
        recipe = self._recipe
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(self._dataset))
        steps = order[: self.steps * self.rows_per_step].reshape(self.steps, recipe.accumulate, -1)
        mine = slice(self._world.rank * recipe.batch, (self._world.rank + 1) * recipe.batch)
        for step in islice(steps, first_step, None):
            yield from step[:, mine]

    def _batch(self, augmenter: Augmenter, epoch: int, indices: Sequence[int] | NDArray[np.integer]) -> Batch:
        rows = [
            augmenter.row(self._dataset.picture(int(index)), self._chance(epoch, int(index)))
            for index in indices
        ]
        return Batch(rows=np.stack(rows), labels=self._dataset.labels[indices])

    def _chance(self, epoch: int, index: int) -> np.random.Generator:
        key = np.array([self._recipe.seed << 32 | epoch, index], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))
