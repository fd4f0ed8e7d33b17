from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.initial import REFERENCE_INITIALISATIONS, Initialisation, initial_weights, whitened_stem
from models.networks import DESCRIPTIONS, describe
from models.weights import Array, check_weights

NETWORK = describe("sknet50", width=0.5)
LAYER = "layer4.0.branches.0.conv.weight"  # 512 channels in 16 groups of 32


def _drawn(**how: Any) -> dict[str, Array]:
    return initial_weights(NETWORK, Initialisation(**how), seed=1)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_references_begin_with_weights_of_the_whole_network(name: str) -> None:
    network = describe(name, width=1 / 4)
    first, again, other = (
        initial_weights(network, REFERENCE_INITIALISATIONS[name], seed) for seed in (1, 1, 2)
    )
    check_weights(network, first)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert first["conv1.weight"].tobytes() != other["conv1.weight"].tobytes()


def test_by_default_all_is_uniform_within_the_fan_in() -> None:
    weights = _drawn()
    for layer, fan_in in (("layer1.0.conv1", 32), ("layer4.0.branches.0.conv", 32 * 9), ("fc", 1024)):
        limit = fan_in**-0.5
        assert 0.98 * limit < np.abs(weights[f"{layer}.weight"]).max() <= limit
        assert weights[f"{layer}.weight"].std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert 0.5 * 1024**-0.5 < np.abs(weights["fc.bias"]).max() <= 1024**-0.5


def test_norms_begin_as_if_they_were_not_there() -> None:
    weights = _drawn()
    begins = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    for suffix, value in begins.items():
        assert np.all(weights[f"layer2.1.bn3.{suffix}"] == value)


@pytest.mark.parametrize(("convolution", "fan_out"), [("fan out", 512 * 9), ("group fan out", 32 * 9)])
def test_a_fan_out_is_that_of_all_groups_or_of_one(convolution: str, fan_out: int) -> None:
    kernel = _drawn(convolution=convolution)[LAYER]
    assert kernel.std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()


def test_narrow_dense_layers_are_normal_and_cut() -> None:
    weights = _drawn(dense="narrow")
    weight = weights["layer4.0.sk.select.0.weight"]
    assert 0.0195 < np.abs(weight).max() <= 0.02
    assert weight.std() == pytest.approx(0.0088, rel=0.02)
    assert not weights["fc.bias"].any()


def test_narrow_norms_are_all_but_those_of_branches() -> None:
    weights = _drawn(norm="narrow")
    scales = weights["layer4.0.bn3.weight"]
    assert -0.07 <= scales.min() < -0.065 < 0.065 < scales.max() <= 0.07
    assert np.all(weights["layer4.0.branches.0.bn.weight"] == 1)


def test_silent_blocks_have_a_last_norm_of_zero() -> None:
    weights = _drawn(is_block_silent=True)
    assert not weights["layer4.0.bn3.weight"].any()
    assert weights["layer4.0.bn2.weight"].all()


def test_identities_are_3x3_convolutions_of_one_group_that_pass_channels_on() -> None:
    how = Initialisation(convolution="fan out", is_3x3_identity=True)
    kernel = initial_weights(describe("sknet8"), how, seed=1)["layer2.0.conv1.weight"]  # 128 channels to 320
    rows = np.random.default_rng(1).normal(size=(2, 128, 6, 6)).astype(np.float32)
    passed = torch.conv2d(torch.tensor(rows), torch.tensor(kernel), padding=1)[:, :128]
    assert np.array_equal(passed.numpy(), rows)
    assert kernel[128:].std() == pytest.approx((2 / (320 * 9)) ** 0.5, rel=0.01)
    grouped = _drawn(convolution="fan out", is_3x3_identity=True)
    assert grouped[LAYER].tobytes() == _drawn(convolution="fan out")[LAYER].tobytes()


def _coloured_noise(seed: int) -> NDArray[np.float32]:
    """Draw planes whose channels and neighbours have much in common, as those of photos have."""
    noise = np.random.default_rng(seed).normal(size=(8, 3, 40, 40)).cumsum(axis=2).cumsum(axis=3)
    return (noise + noise.mean(axis=1, keepdims=True)).astype(np.float32)


def test_a_whitened_stem_parts_what_patches_vary_in() -> None:
    network = describe("sknet50", width=0.375)
    planes = [_coloured_noise(seed) for seed in (1, 2)]
    kernel = whitened_stem(network, planes)
    assert kernel.shape == (24, 3, 7, 7)
    assert np.array_equal(kernel[12:], -kernel[:12])
    assert kernel.tobytes() == whitened_stem(network, planes).tobytes()
    rows = kernel[:12].reshape(12, -1)
    assert rows @ rows.T == pytest.approx(np.eye(12), abs=1e-5)
    patches = [
        some[:, :, top : top + 7, left : left + 7].reshape(len(some), -1)
        for some in planes
        for top in range(0, 34, 4)
        for left in range(0, 34, 4)
    ]
    covariance = np.cov(np.concatenate(patches) @ rows.T, rowvar=False)
    variances = covariance.diagonal()
    assert np.all(np.diff(variances) < 0)
    correlation = covariance / np.sqrt(np.outer(variances, variances))
    assert correlation == pytest.approx(np.eye(12), abs=1e-3)


def test_an_odd_stem_lacks_the_sign_of_its_last_component() -> None:
    kernel = whitened_stem(describe("resnext101", width=3 / 64), [_coloured_noise(1)])
    assert kernel.shape == (3, 3, 7, 7)
    assert np.array_equal(kernel[2], -kernel[0])
    assert not np.allclose(np.abs(kernel[1]), np.abs(kernel[0]))


def test_a_stem_wider_than_its_patches_cannot_begin_whitened() -> None:
    with pytest.raises(InvalidValueError, match="the stem has 512 channels; allowed are at most 294"):
        whitened_stem(describe("sknet50", width=8), [_coloured_noise(1)])
