"""The check values are those of the references' own generators, run with their numbers."""

import numpy as np
import pytest

from models.training.schedules import (
    DampedCosine,
    EpochCosine,
    Linear,
    MultiStep,
    Poly,
    Schedule,
    StepCosine,
    Steps,
    rates,
)

IMAGENET_STEPS = 1251  # an epoch
CIFAR_STEPS, CIFAR_EPOCHS = 390, 90


def imagenet(schedule: Schedule, epochs: int = 150) -> np.ndarray:
    return rates(schedule, steps_per_epoch=IMAGENET_STEPS, epochs=epochs)


def cifar(schedule: Schedule) -> np.ndarray:
    return rates(schedule, steps_per_epoch=CIFAR_STEPS, epochs=CIFAR_EPOCHS)


def test_warm_up_and_cosine_by_epoch_are_those_of_the_imagenet_references() -> None:
    found = imagenet(EpochCosine(rate=0.4, warmup_epochs=1, cycle_epochs=150))
    picked = found[[0, 1250, 1251, 75 * IMAGENET_STEPS, -1]]
    assert picked == pytest.approx([3.19744e-4, 0.4, 0.399956, 0.2, 4.3863e-5], rel=1e-5, abs=1e-6)


def test_the_cosine_without_a_warm_up_is_that_of_the_pytorch_reference() -> None:
    found = imagenet(EpochCosine(rate=0.4), epochs=100).reshape(100, IMAGENET_STEPS)
    expected = 0.4 * 0.5 * (1 + np.cos(np.pi * np.arange(100) / 100))
    assert np.abs(found - expected[:, None]).max() < 1e-12


def test_poly_is_that_of_the_sknet_reference() -> None:
    found = cifar(Poly(rate=0.1, initial=0.01, warmup_epochs=5))
    picked = found[[0, 1949, 1950, 20000, -1]]
    assert picked == pytest.approx([0.01, 0.099954, 0.1, 0.020749, 9.1e-11], abs=1e-6)
    assert found[-1] == pytest.approx(9.1e-11, rel=1e-2)


def test_multi_step_drops_at_each_milestone() -> None:
    found = imagenet(MultiStep(rate=0.4, gamma=0.1, milestones=(30, 60, 90, 120), warmup_epochs=1))
    at = [30 * IMAGENET_STEPS - 1, 30 * IMAGENET_STEPS, 60 * IMAGENET_STEPS, 149 * IMAGENET_STEPS]
    assert found[at] == pytest.approx([0.4, 0.04, 0.004, 4e-5])


def test_steps_drop_at_shares_of_the_whole() -> None:
    found = cifar(Steps(rate=0.1, initial=0.01, warmup_epochs=5))
    total = CIFAR_STEPS * CIFAR_EPOCHS
    at = [0, 1950, int(0.3 * total) - 1, int(0.3 * total), int(0.6 * total), int(0.8 * total)]
    assert found[at] == pytest.approx([0.01, 0.1, 0.1, 0.01, 1e-3, 1e-4])


def test_linear_goes_down_in_a_straight_line() -> None:
    found = cifar(Linear(rate=0.1, initial=0.01, final=1e-5, warmup_epochs=5))
    rest = CIFAR_STEPS * (CIFAR_EPOCHS - 5)
    assert found[1950:] == pytest.approx(0.1 - (0.1 - 1e-5) * np.arange(rest) / rest)


def test_the_damped_cosine_follows_its_formula() -> None:
    found = cifar(DampedCosine(rate=0.1, initial=0.01, warmup_epochs=5))
    assert found[[0, 1949]] == pytest.approx([0.01 + 0.09 / 1950, 0.1])
    total, warmup, i = CIFAR_STEPS * CIFAR_EPOCHS, 1950, 20000
    share = (total - i) / (total - warmup)
    wave = 0.5 * (1 + np.cos(np.pi * 0.94 * i / (total - warmup)))
    assert found[i] == pytest.approx(0.1 * (share * wave + 1e-5))


def test_the_cosine_by_step_ends_just_above_its_final_rate() -> None:
    found = cifar(StepCosine(rate=0.1, final=0.001, warmup_epochs=5))
    assert found[0] == 0
    assert found.argmax() == 1950
    assert 0.001 < found[-1] < 0.001 + 1e-6
    assert (np.diff(found[1950:]) < 0).all()


@pytest.mark.parametrize("schedule", [EpochCosine(rate=1), Poly(rate=1), StepCosine(rate=1), Steps(rate=1)])
def test_without_a_warm_up_the_first_rate_is_the_whole_one(schedule: Schedule) -> None:
    found = rates(schedule, steps_per_epoch=3, epochs=2)
    assert len(found) == 6
    assert found[0] == pytest.approx(1, rel=1e-4)
