import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interpreters import ROOT, of_ranks
from learning import assert_agreed, joined
from models.frameworks import torch_network
from models.training import torch_learner
from models.training.learner import Batch, LossScale, State
from models.training.recipe import Recipe
from models.weights import Weights, random_weights
from recipes import small
from training import torchrun

FROZEN = {"norms": "frozen"}


def batch(count: int = 4, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    return Batch(
        rows=generator.integers(0, 256, (count, 32, 32, 3), np.uint8), labels=generator.integers(0, 4, count)
    )


def weights_for(recipe: Recipe) -> Weights:
    return random_weights(recipe.network.describe(), recipe.seed)


def learner(recipe: Recipe) -> torch_learner.TorchLearner:
    return torch_learner.build(recipe, weights_for(recipe), device="cpu")


def differences(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_batches_that_are_accumulated_move_the_weights_as_one_that_joins_them() -> None:
    apart, together = learner(small(**FROZEN)), learner(small(**FROZEN))
    batches = [batch(seed=seed) for seed in range(3)]
    steps = apart.step(batches, 0.1), together.step([joined(*batches)], 0.1)
    assert steps[0].loss == pytest.approx(steps[1].loss, rel=1e-5)
    moved = differences(apart.state().weights, weights_for(small()))
    assert differences(apart.state().weights, together.state().weights) < 1e-5 * max(moved, 1)


@pytest.mark.parametrize("decays_all", [False, True])
def test_norms_and_biases_decay_only_if_all_do(decays_all: bool) -> None:  # noqa: FBT001
    rate, decay = 0.1, 0.25
    with_decay, without = (
        small(optimizer__weight_decay=share, optimizer__decays_all=decays_all) for share in (decay, 0.0)
    )
    before = weights_for(with_decay)
    states = []
    for recipe in (with_decay, without):
        found = learner(recipe)
        found.step([batch()], rate)
        states.append(found.state().weights)
    for name in before:
        decays = (before[name].ndim > 1 or decays_all) and ".running_" not in name
        expected = rate * decay * before[name] if decays else 0 * before[name]
        assert states[1][name] - states[0][name] == pytest.approx(expected, abs=1e-5)


def test_momentum_is_that_of_the_references() -> None:
    recipe = small(optimizer__momentum=0.5, optimizer__weight_decay=0.0, **FROZEN)
    found = learner(recipe)
    before = found.state().weights
    found.step([batch()], 0.01)
    first = found.state()
    found.step([batch()], 0.0)
    second = found.state()
    name = "layer1.0.conv1.weight"
    assert first.weights[name] == pytest.approx(before[name] - 0.01 * first.velocities[name], abs=1e-7)
    gradient = second.velocities[name] - 0.5 * first.velocities[name]
    assert np.abs(gradient).max() > 0
    assert second.weights[name].tobytes() == first.weights[name].tobytes()


def test_smoothed_labels_leave_the_others_an_equal_share() -> None:
    share, classes = 0.3, 4
    found = learner(small(label_smoothing=share, **FROZEN))
    one = batch()
    logits = torch.from_numpy(found.logits(one.rows))
    truth = torch.full((len(one.rows), classes), share / (classes - 1))
    truth[torch.arange(len(one.rows)), torch.from_numpy(one.labels)] = 1 - share
    expected = -(truth * logits.log_softmax(1)).sum(1).mean()
    assert found.step([one], 0.0).loss == pytest.approx(float(expected), rel=1e-5)


def test_a_fixed_loss_scale_changes_nothing() -> None:
    scaled, plain = learner(small(precision__loss_scale=1024)), learner(small())
    for found in (scaled, plain):
        found.step([batch()], 0.1)
    assert differences(scaled.state().weights, plain.state().weights) < 1e-5


def test_a_step_whose_gradients_overflow_is_skipped_and_the_scale_halved() -> None:
    found = learner(small(precision__compute="bf16", precision__loss_scale="dynamic", ema=0.5))
    found.step([batch()], 0.1)
    before = replace(found.state(), loss_scale=LossScale(factor=3e38))
    found.restore(before)
    step = found.step([batch()], 0.1)
    after = found.state()
    assert step.is_skipped
    assert np.isfinite(step.loss)
    assert after.loss_scale == LossScale(factor=1.5e38)
    for kept in ("weights", "raw", "velocities"):
        assert differences(getattr(after, kept), getattr(before, kept)) == 0


def test_the_scale_doubles_after_two_thousand_steps_without_overflow() -> None:
    scale = LossScale(factor=4)
    for _ in range(1999):
        scale = scale.after(is_finite=True)
    assert scale.factor == 4
    assert scale.after(is_finite=True) == LossScale(factor=8)
    assert scale.after(is_finite=False) == LossScale(factor=2)
    assert LossScale(factor=1).after(is_finite=False).factor == 1


def test_the_average_follows_the_weights_and_the_statistics_of_norms() -> None:
    found = learner(small(ema=0.75))
    before = found.state().weights
    found.step([batch()], 0.1)
    state = found.state()
    assert differences(state.raw, before) > 0
    for name, array in state.weights.items():
        assert array == pytest.approx(0.75 * before[name] + 0.25 * state.raw[name], rel=1e-5, abs=1e-6)


def test_what_is_answered_are_the_weights_that_are_published() -> None:
    recipe = small(ema=0.75)
    found = learner(recipe)
    found.step([batch()], 0.1)
    rows = batch(5).rows
    planes = recipe.preprocessing.build().planes(rows)
    expected = torch_network.logits(recipe.network.describe(), found.state().weights, planes)
    assert found.logits(rows) == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))


def test_answering_teaches_nothing() -> None:
    found = learner(small())
    before = found.state().weights
    found.logits(batch().rows)
    assert differences(found.state().weights, before) == 0


def test_frozen_norms_keep_their_statistics() -> None:
    found = learner(small(**FROZEN))
    before = found.state().weights
    found.step([batch()], 0.1)
    after = found.state().weights
    statistics = [name for name in after if ".running_" in name]
    assert all(after[name].tobytes() == before[name].tobytes() for name in statistics)
    assert statistics


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_learner_that_takes_over_a_state_goes_on_as_the_one_that_gave_it(ema: float) -> None:
    recipe = small(ema=ema, optimizer__nesterov=True)
    first, second = learner(recipe), learner(recipe)
    first.step([batch(seed=1)], 0.1)
    taken = first.state()
    second.restore(taken)
    assert first.step([batch(seed=2)], 0.1) == second.step([batch(seed=2)], 0.1)
    for one, other in zip(_arrays(first.state()), _arrays(second.state()), strict=True):
        assert one.tobytes() == other.tobytes()


def _arrays(state: State) -> list[np.ndarray]:
    return [array for kind in (state.weights, state.raw, state.velocities) for array in kind.values()]


@pytest.mark.parametrize(
    ("device", "told"), [("npu", "torch_npu is not installed"), ("tpu", "allowed are auto")]
)
def test_a_device_that_is_not_there_is_told(device: str, told: str) -> None:
    recipe = small()
    with pytest.raises(ValueError, match=told):
        torch_learner.build(recipe, weights_for(recipe), device=device)


@pytest.fixture(scope="module")
def under_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    support = ROOT / "tests" / "support"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{support}"}
    ended = subprocess.run(
        [*torchrun(3), str(support / "torch_learning.py")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def test_three_processes_that_take_over_a_state_go_on_to_the_bit(under_three: Path) -> None:
    """Of two the sum is the same in each order, of three it is not."""
    unbroken, resumed = (of_ranks(under_three, name, 3) for name in ("onwards", "onwards again"))
    for one, other in zip(unbroken, resumed, strict=True):
        assert one.keys() == other.keys()
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_processes_agree_on_the_mean_of_their_statistics(under_three: Path) -> None:
    assert_agreed(of_ranks(under_three, "before", 3), of_ranks(under_three, "agreed", 3))
