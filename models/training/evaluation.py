"""Count how often a network is right: answers and classes -> accuracy, loss and confusion, of every picture once."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.preprocessing import Preprocessing
from models.training.datasets import Dataset
from models.training.learner import Labels, Logits, Rows, World

MANY = 5  # answers, among which the right one may be
_BATCHES_AHEAD = 2  # whose rows are made while the network answers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What was counted over `n` pictures: shares that were right first, or among five; the mean cross-entropy.

    Of classes with equal logits the first one is answered first, as numpy's argmax does; an answer that is not a
    number is wrong. `confusion` has a row for each true class, and a column for each that was answered.
    """

    n: int
    top1: float
    top5: float
    loss: float
    confusion: NDArray[np.int64]  # (classes, classes)

    @property
    def right(self) -> int:
        """Return how many pictures were right."""
        return round(self.top1 * self.n)

    def by_class(self) -> NDArray[np.float64]:
        """Return the share of each class's pictures that were right; NaN for a class without any."""
        pictures = self.confusion.sum(axis=1)
        shares = np.full(len(pictures), np.nan)
        np.divide(self.confusion.diagonal(), pictures, where=pictures > 0, out=shares)
        return shares


def evaluate(  # noqa: PLR0913 - the last two say how fast, not what
    answer: Callable[[Rows], Logits],
    dataset: Dataset,
    preprocessing: Preprocessing,
    world: World,
    *,
    batch: int,
    workers: int,
) -> Evaluation:
    """Have a network answer every picture once, each process its share of them, and add up over all processes.

    `answer` is always called with `batch` rows: what the last pictures leave empty repeats one of them, uncounted.
    Raises InvalidValueError where there is no picture, or one cannot be read.
    """
    if not len(dataset):
        raise InvalidValueError("evaluation has 0 pictures; allowed is at least 1")
    indices = range(world.rank, len(dataset), world.size)
    tally = Tally(len(dataset.names))
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluation") as pool:
        try:
            for chosen, rows in _batches(pool, dataset, preprocessing, indices, batch):
                padding = np.repeat(rows[-1:], batch - len(rows), axis=0)
                logits = answer(np.concatenate([rows, padding]))[: len(rows)]
                tally.add(logits, dataset.labels[chosen])
        finally:
            pool.shutdown(cancel_futures=True)
    return tally.result(world)


class Tally:
    """Counts of one process, that are added up over all in the end."""

    def __init__(self, classes: int) -> None:
        self._top1 = self._top5 = self._loss = 0.0
        self._confusion = np.zeros((classes, classes), np.float64)

    def add(self, logits: Logits, labels: Labels) -> None:
        """Count the answers to some pictures, (n, classes)."""
        places = places_of(logits, labels)
        self._top1 += float((places < 1).sum())
        self._top5 += float((places < MANY).sum())
        self._loss += float(cross_entropies(logits, labels).sum())
        np.add.at(self._confusion, (labels, logits.argmax(axis=1)), 1)

    def result(self, world: World) -> Evaluation:
        """Return the sums over all processes; each has to ask for it."""
        counted = np.concatenate([[self._top1, self._top5, self._loss], self._confusion.ravel()])
        top1, top5, loss, *_ = total = world.sum(counted)
        confusion = np.rint(total[3:]).astype(np.int64).reshape(self._confusion.shape)
        n = int(confusion.sum())
        return Evaluation(
            n=n, top1=float(top1) / n, top5=float(top5) / n, loss=float(loss) / n, confusion=confusion
        )


def cross_entropies(logits: Logits, labels: Labels) -> NDArray[np.float64]:
    """Return minus the logarithm of the probability that the logits give to each right class, (n,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses: NDArray[np.float64] = (
        np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    )
    return losses


def places_of(logits: NDArray[np.floating], labels: Labels) -> NDArray[np.int64]:
    """Return how many classes are answered before the right one, (n,); what is not a number is before any."""
    right = logits[np.arange(len(labels)), labels][:, np.newaxis]
    is_equal_before = (logits == right) & (np.arange(logits.shape[1]) < labels[:, np.newaxis])
    places: NDArray[np.int64] = (~(logits <= right) | is_equal_before).sum(axis=1)
    return places


def _batches(
    pool: ThreadPoolExecutor,
    dataset: Dataset,
    preprocessing: Preprocessing,
    indices: Sequence[int],
    batch: int,
) -> Iterator[tuple[NDArray[np.int64], Rows]]:
    """Yield the indices and the rows of batches, some of which are made ahead."""

    def row(index: int) -> Rows:
        return preprocessing.rows(dataset.picture(index))

    ahead: deque[tuple[Sequence[int], list[Future[Rows]]]] = deque()
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        ahead.append((chosen, [pool.submit(row, index) for index in chosen]))
        if len(ahead) > _BATCHES_AHEAD:
            yield _made(*ahead.popleft())
    while ahead:
        yield _made(*ahead.popleft())


def _made(chosen: Sequence[int], rows: Sequence[Future[Rows]]) -> tuple[NDArray[np.int64], Rows]:
    return np.array(chosen, np.int64), np.stack([row.result() for row in rows])
