import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidValueError
from models.preprocessing import Preprocessing
from models.training.evaluation import Evaluation, evaluate
from models.training.learner import Alone, Logits, Rows
from patience import PATIENCE_S

PREPROCESSING = Preprocessing(size=32, crop=32)


@dataclass
class Numbered:
    """A dataset whose pictures tell their own index, by their colour."""

    labels: NDArray[np.int64]
    names: tuple[str, ...]
    seen: list[int] = field(default_factory=list)

    def picture(self, index: int) -> Image.Image:
        self.seen.append(index)
        return Image.new("RGB", (32, 32), (index % 256, index // 256, 0))

    def __len__(self) -> int:
        return len(self.labels)


def numbers(rows: Rows) -> NDArray[np.int64]:
    """Read the indices back from the rows."""
    red, green = rows[:, 0, 0, :2].astype(np.int64).T
    return red + 256 * green


class Together:
    """The world of several threads that wait for each other at each sum."""

    def __init__(
        self, rank: int, all_values: dict[int, NDArray[np.float64]], barrier: threading.Barrier
    ) -> None:
        self.rank, self.size = rank, barrier.parties
        self._all, self._barrier = all_values, barrier

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        self._all[self.rank] = values
        self._barrier.wait(PATIENCE_S)
        return np.sum([self._all[rank] for rank in range(self.size)], axis=0)

    def close(self) -> None:
        pass


def _network(classes: int, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).normal(size=(1000, classes)).astype(np.float32)


def _random(n: int, classes: int) -> tuple[Numbered, Logits]:
    labels = np.random.default_rng(1).integers(0, classes, n)
    return Numbered(labels, tuple(map(str, range(classes)))), _network(classes)


def _evaluate(dataset: Numbered, logits: Logits, batch: int = 32) -> Evaluation:
    return evaluate(
        lambda rows: logits[numbers(rows)], dataset, PREPROCESSING, Alone(), batch=batch, workers=4
    )


def test_every_picture_is_counted_once_and_no_remainder_is_dropped() -> None:
    dataset, logits = _random(301, 7)
    counted = _evaluate(dataset, logits, batch=64)
    assert sorted(dataset.seen) == list(range(301))
    assert counted.n == 301
    answers = logits[:301].argmax(axis=1)
    assert counted.top1 == (answers == dataset.labels).sum() / 301
    best_five = np.argsort(-logits[:301], axis=1)[:, :5]
    assert counted.top5 == (best_five == dataset.labels[:, np.newaxis]).any(axis=1).sum() / 301
    for true in range(7):
        for answered in range(7):
            expected = ((dataset.labels == true) & (answers == answered)).sum()
            assert counted.confusion[true, answered] == expected


def test_the_loss_is_the_mean_cross_entropy() -> None:
    dataset, logits = _random(100, 4)
    shares = np.exp(logits[:100].astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(100), dataset.labels]).mean()
    assert _evaluate(dataset, logits).loss == pytest.approx(expected, rel=1e-12)


def test_a_network_is_always_asked_for_as_many_rows() -> None:
    dataset, logits = _random(70, 3)
    sizes: list[int] = []

    def answer(rows: Rows) -> Logits:
        sizes.append(len(rows))
        return logits[numbers(rows)]

    evaluate(answer, dataset, PREPROCESSING, Alone(), batch=32, workers=2)
    assert sizes == [32, 32, 32]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_several_processes_come_to_what_one_comes_to(size: int) -> None:
    dataset, logits = _random(7, 6)
    alone = _evaluate(dataset, logits)
    dataset.seen.clear()
    values: dict[int, NDArray[np.float64]] = {}
    barrier = threading.Barrier(size)
    found: dict[int, Evaluation] = {}

    def run(rank: int) -> None:
        world = Together(rank, values, barrier)
        found[rank] = evaluate(
            lambda rows: logits[numbers(rows)], dataset, PREPROCESSING, world, batch=2, workers=1
        )

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(dataset.seen) == list(range(7))
    assert len(found) == size
    for each in found.values():
        assert (each.n, each.top1, each.top5) == (7, alone.top1, alone.top5)
        assert each.loss == pytest.approx(alone.loss, rel=1e-12)
        assert np.array_equal(each.confusion, alone.confusion)


def test_of_equal_answers_the_first_class_counts() -> None:
    dataset = Numbered(np.array([0, 1, 4, 5, 6]), tuple("abcdefg"))
    counted = _evaluate(dataset, np.zeros((5, 7), np.float32))
    assert (counted.top1, counted.top5) == (1 / 5, 3 / 5)
    assert counted.confusion[:, 0].tolist() == [1, 1, 0, 0, 1, 1, 1]


def test_of_fewer_than_five_classes_all_are_among_the_first_five() -> None:
    dataset, logits = _random(50, 3)
    assert _evaluate(dataset, logits).top5 == 1.0


def test_answers_that_are_no_numbers_are_wrong() -> None:
    dataset = Numbered(np.array([0, 1]), ("a", "b", "c", "d", "e", "f"))
    counted = _evaluate(dataset, np.full((2, 6), np.nan, np.float32))
    assert (counted.top1, counted.top5) == (0, 0)


def test_classes_are_judged_apart() -> None:
    dataset = Numbered(np.array([0, 0, 2, 2]), ("a", "b", "c"))
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert _evaluate(dataset, logits).by_class().tolist() == pytest.approx([0.5, np.nan, 1.0], nan_ok=True)


def test_a_picture_that_cannot_be_read_ends_the_evaluation() -> None:
    class Damaged(Numbered):
        def picture(self, index: int) -> Image.Image:
            if index == 40:
                raise InvalidValueError("40.jpg is damaged")
            return super().picture(index)

    dataset = Damaged(np.zeros(1000, np.int64), ("a", "b"))
    with pytest.raises(InvalidValueError, match=r"40\.jpg is damaged"):
        _evaluate(dataset, _network(2), batch=16)
    assert len(dataset.seen) < 200


def test_nothing_cannot_be_evaluated() -> None:
    with pytest.raises(InvalidValueError, match="0 pictures"):
        _evaluate(Numbered(np.zeros(0, np.int64), ("a", "b")), _network(2))
