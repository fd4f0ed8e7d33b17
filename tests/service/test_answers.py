from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.answers import ScoredClass, best_classes, scores_of

LABELS = ("ant", "bee", "cat", "dog")


def test_scores_are_the_softmax_of_the_logits() -> None:
    logits = np.array([[0, np.log(3), np.log(4)]], np.float32)
    np.testing.assert_allclose(scores_of(logits, 1.0), [[1 / 8, 3 / 8, 4 / 8]], rtol=1e-6)


def test_a_temperature_above_1_softens_and_one_below_sharpens() -> None:
    logits = np.array([[1, 2]], np.float32)
    soft, plain, sharp = (float(scores_of(logits, temperature)[0, 1]) for temperature in (2.0, 1.0, 0.5))
    assert soft < plain < sharp
    assert soft == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert sharp == pytest.approx(1 / (1 + np.exp(-2)))


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38, 0], [-3e38, -3e38, -3e38]], np.float32)
    np.testing.assert_allclose(scores_of(logits, 0.01), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


@given(
    logits=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-1e4, 1e4, width=32)
    ),
    temperature=st.floats(0.01, 100),
)
@settings(max_examples=100, deadline=None, database=None)
def test_the_scores_of_each_row_sum_to_1_and_keep_the_order_of_its_logits(
    logits: np.ndarray, temperature: float
) -> None:
    scores = scores_of(logits, temperature)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    by_logit = np.take_along_axis(scores, np.argsort(logits, axis=1), axis=1)
    assert (np.diff(by_logit, axis=1) >= 0).all()


def test_the_scores_of_a_row_do_not_depend_on_its_neighbours() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    together = scores_of(logits, 1.3)
    for row in range(5):
        np.testing.assert_array_equal(scores_of(logits[row : row + 1], 1.3), together[row : row + 1])


def test_the_best_classes_come_first_with_index_label_and_score() -> None:
    scores = np.array([[0.1, 0.2, 0.4, 0.3], [0.7, 0.0, 0.1, 0.2]])
    assert best_classes(scores, LABELS, 2) == [
        [ScoredClass(index=2, label="cat", score=0.4), ScoredClass(index=3, label="dog", score=0.3)],
        [ScoredClass(index=0, label="ant", score=0.7), ScoredClass(index=3, label="dog", score=0.2)],
    ]


def test_equal_scores_keep_the_order_of_their_index() -> None:
    (best,) = best_classes(np.array([[0.2, 0.3, 0.2, 0.3]]), LABELS, 4)
    assert [found.index for found in best] == [1, 3, 0, 2]


@pytest.mark.parametrize("top_k", [4, 5, 1000])
def test_no_more_classes_are_named_than_there_are(top_k: int) -> None:
    (best,) = best_classes(np.full((1, 4), 0.25), LABELS, top_k)
    assert [found.label for found in best] == list(LABELS)


def test_the_values_are_pythons_own_so_that_they_can_be_written_as_json() -> None:
    ((best,),) = best_classes(np.array([[0.5, 0.5]]), LABELS, 1)
    assert (type(best.index), type(best.score)) == (int, float)


def test_a_scored_class_cannot_be_changed() -> None:
    ((best,),) = best_classes(np.array([[1.0]]), LABELS, 1)
    with pytest.raises(FrozenInstanceError):
        best.score = 0.0  # type: ignore[misc]
