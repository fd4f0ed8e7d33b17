import numpy as np
import pytest

from models.errors import InvalidValueError
from models.networks import NETWORKS, describe
from models.sizes import measure
from models.weights import check_weights, parameter_shapes, random_weights

SMALL = describe("sknet50", width=1 / 16)


def test_the_names_are_torchvisions_for_what_all_resnets_share() -> None:
    shapes = parameter_shapes(describe("resnext101"))
    assert len(shapes) == 522
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["bn1.running_mean"] == (64,)
    assert shapes["layer3.22.conv2.weight"] == (1024, 16, 3, 3)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.running_var"] == (256,)
    assert shapes["fc.weight"] == (1000, 2048)


def test_the_gates_have_names_of_their_own() -> None:
    se, sk = parameter_shapes(describe("se_resnext50")), parameter_shapes(describe("sknet50"))
    assert (len(se), len(sk)) == (331, 507)
    assert se["layer4.2.se.fc1.weight"] == (128, 2048)
    assert se["layer4.2.se.fc2.bias"] == (2048,)
    assert sk["layer4.2.branches.1.conv.weight"] == (1024, 32, 3, 3)
    assert sk["layer4.2.branches.1.bn.weight"] == (1024,)
    assert sk["layer4.2.sk.fuse.weight"] == (64, 1024)
    assert sk["layer4.2.sk.select.1.weight"] == (1024, 64)
    assert sk["layer4.2.bn2.running_mean"] == (1024,)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_are_the_whole_network(name: str) -> None:
    network = describe(name, classes=10, width=1 / 16)
    weights = random_weights(network, seed=3)
    check_weights(network, weights)
    size = measure(network)
    assert sum(array.size for array in weights.values()) == size.parameters + size.statistics


def test_one_seed_makes_the_same_bits_and_another_seed_others() -> None:
    first, again, other = (random_weights(SMALL, seed) for seed in (1, 1, 2))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert all(first[name].tobytes() != other[name].tobytes() for name in first)


def test_the_norm_statistics_are_not_trivial() -> None:
    weights = random_weights(SMALL, seed=1)
    for suffix, trivial in (("running_mean", 0), ("running_var", 1)):
        arrays = [array for name, array in weights.items() if name.endswith(suffix)]
        assert all(np.ptp(array) > 0.1 and not np.any(array == trivial) for array in arrays)
    assert all(array.min() > 0 for name, array in weights.items() if name.endswith("running_var"))


def test_weights_that_are_not_the_networks_are_refused_with_all_that_is_wrong() -> None:
    weights = random_weights(SMALL, seed=1)
    wrong = {name: array for name, array in weights.items() if not name.startswith("layer1.0.bn1.")}
    wrong |= {"fc.scale": weights["fc.bias"], "fc.bias": weights["fc.bias"][1:]}
    wrong["fc.weight"] = weights["fc.weight"].astype(np.float64)
    with pytest.raises(InvalidValueError) as caught:
        check_weights(SMALL, wrong)
    assert str(caught.value) == (
        "weights are not those of sknet50: 4 missing: layer1.0.bn1.weight, layer1.0.bn1.bias,"
        " layer1.0.bn1.running_mean, layer1.0.bn1.running_var; 1 surplus: fc.scale;"
        " 2 misshapen: fc.weight is float64 (10, 128) and not float (10, 128),"
        " fc.bias is float32 (9,) and not float (10,)"
    )


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="seed is -1; allowed is at least 0"):
        random_weights(SMALL, seed=-1)
