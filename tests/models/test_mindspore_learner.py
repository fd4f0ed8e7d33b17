"""The learner in MindSpore does what the one in PyTorch does: plans of learning.py, played by both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from interpreters import ROOT, arrays, mindspore, of_ranks, under_msrun
from learning import (
    FROZEN,
    HALF,
    PAIRS,
    PLAIN,
    RATE,
    STEPS,
    SYNCHRONISED,
    Arrays,
    assert_agreed,
    first_weights,
    joined,
    play,
    with_scale,
)
from models.training import torch_learner
from models.training.learner import Batch
from models.training.recipe import Recipe

PROGRAM = ROOT / "tests" / "support" / "mindspore_learning.py"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    mindspore("python", PROGRAM, "learn", folder=folder)
    return folder


def in_torch(recipe: Recipe, steps: Sequence[Sequence[Batch]], factor: float = 1.0) -> Arrays:
    learner = torch_learner.build(recipe, first_weights(recipe), device="cpu")
    learner.restore(with_scale(learner.state(), factor))
    return play(learner, steps, RATE)


def assert_alike(found: Arrays, expected: Arrays, tolerance: float) -> None:
    """Compare each kind of numbers by the largest of its kind."""
    assert found.keys() == expected.keys()
    for kind in {key.partition(".")[0] for key in expected}:
        of_kind = [key for key in expected if key.partition(".")[0] == kind]
        largest = max(float(np.abs(expected[key]).max()) for key in of_kind)
        for key in of_kind:
            assert expected[key] == pytest.approx(found[key], abs=tolerance * largest), key


def is_same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_steps_are_those_of_pytorch(learnt: Path) -> None:
    """Norms by batches of four let differences of rounding grow; those of frozen ones do not, below."""
    assert_alike(arrays(learnt / "plain.npz"), in_torch(PLAIN, STEPS), 3e-3)


def test_accumulated_batches_move_split_convolutions_as_joined_ones_move_whole_ones(learnt: Path) -> None:
    """With Nesterov's momentum, and decay of all weights."""
    assert_alike(arrays(learnt / "frozen.npz"), in_torch(FROZEN, [[joined(*pair)] for pair in PAIRS]), 1e-5)


def test_a_state_that_is_taken_over_is_gone_on_from_to_the_bit(learnt: Path) -> None:
    plain, taken = arrays(learnt / "plain.npz"), arrays(learnt / "taken over.npz")
    assert is_same({key: plain[key] for key in taken}, taken)
    assert is_same(arrays(learnt / "onwards.npz"), arrays(learnt / "onwards again.npz"))
    assert not is_same(plain, arrays(learnt / "onwards.npz"))


def test_a_loss_that_is_no_number_is_returned(learnt: Path) -> None:
    assert np.isnan(arrays(learnt / "broken.npz")["losses"]).all()


def test_mixed_precision_rounds_and_keeps_the_rest(learnt: Path) -> None:
    found, expected = arrays(learnt / "half.npz"), in_torch(HALF, STEPS[:1], factor=64)
    assert_alike(found, expected, 0.05)
    assert (found["scale"] == [64, 1]).all()
    assert not found["is_skipped"].any()


def test_a_step_whose_gradients_overflow_changes_nothing_but_the_loss_scale(learnt: Path) -> None:
    before, after = arrays(learnt / "before.npz"), arrays(learnt / "overflowed.npz")
    assert after["is_skipped"].all()
    assert (after["scale"] == [1.5e38, 0]).all()
    assert is_same({key: after[key] for key in before}, before)


@pytest.fixture(scope="module")
def under_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    ended = under_msrun(PROGRAM, "together", folder=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def together(under_two: Path) -> list[Arrays]:
    return of_ranks(under_two, "together", 2)


def test_processes_agree_on_the_mean_of_their_statistics(under_two: Path) -> None:
    assert_agreed(of_ranks(under_two, "before", 2), of_ranks(under_two, "agreed", 2))


def test_two_processes_with_synchronised_norms_are_one_with_whole_batches(together: list[Arrays]) -> None:
    expected = in_torch(SYNCHRONISED, STEPS)
    for found in together:
        mine = {key: array for key, array in found.items() if key not in ("logits", "sum")}
        assert_alike(mine, {key: expected[key] for key in mine}, 3e-3)


def test_processes_stay_the_same_to_the_bit(together: list[Arrays]) -> None:
    one, other = ({key: each[key] for key in each if key != "logits"} for each in together)
    assert is_same(one, other)


def test_a_sum_over_processes_is_exact(together: list[Arrays]) -> None:
    assert together[0]["sum"].tolist() == [[2.0**54, 0.1 + 1.1], [-(2.0**25) - 2, 1]]
