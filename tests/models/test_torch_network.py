"""The network in PyTorch is the one that is described; test_agreement.py compares what it answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from documents import example
from models.checkpoints import write_checkpoint
from models.errors import InvalidValueError
from models.frameworks import torch_network
from models.networks import DESCRIPTIONS, Network, describe
from models.sizes import measure
from models.weights import parameter_shapes, random_weights
from variants import SIDE, VARIANTS

SMALL = VARIANTS["sknet50_paper"]


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


@pytest.mark.parametrize("network", VARIANTS.values(), ids=VARIANTS)
def test_the_state_has_the_names_and_shapes_of_the_grammar(network: Network) -> None:
    state = torch_network.build(network).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if not _is_counter(name)}
    assert shapes == parameter_shapes(network)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_full_network_has_the_parameters_that_are_counted_from_its_description(name: str) -> None:
    with torch.device("meta"):
        module = torch_network.build(describe(name))
    assert sum(parameter.numel() for parameter in module.parameters()) == measure(describe(name)).parameters


def test_a_file_that_we_write_is_the_modules_own_state(tmp_path: Path) -> None:
    weights = random_weights(SMALL, seed=1)
    write_checkpoint(tmp_path / "weights.pth", weights)
    module = torch_network.build(SMALL)
    module.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    found = torch_network.weights_of(module)
    assert list(found) == list(weights)
    assert all(found[name].tobytes() == weights[name].tobytes() for name in weights)


def test_weights_that_do_not_fit_change_nothing() -> None:
    module = torch_network.build(SMALL)
    before = torch_network.weights_of(module)
    weights = random_weights(SMALL, seed=1)
    del weights["fc.bias"]
    with pytest.raises(
        InvalidValueError, match=r"weights are not those of sknet50_paper: 1 missing: fc.bias"
    ):
        torch_network.load(module, weights)
    after = torch_network.weights_of(module)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


def test_the_weights_are_a_copy_and_float32() -> None:
    module = torch_network.build(SMALL)
    torch_network.load(module, random_weights(SMALL, seed=1))
    copy = torch_network.weights_of(module.to(torch.bfloat16))
    assert {array.dtype for array in copy.values()} == {np.dtype(np.float32)}
    copy["fc.bias"][:] = 7
    assert not np.any(torch_network.weights_of(module)["fc.bias"] == 7)


@pytest.mark.parametrize(
    ("name", "outer", "branch"),
    [("se_resnext50", 0.1, 0.1), ("sknet50", 0.01, 0.05), ("sknet50_paper", 0.1, 0.1)],
)
def test_norms_have_the_momenta_and_the_epsilon_of_the_references(
    name: str, outer: float, branch: float
) -> None:
    for path, module in torch_network.build(VARIANTS[name]).named_modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert (module.momentum, module.eps) == (branch if ".branches." in path else outer, 1e-5)


@pytest.mark.parametrize("network", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_learns_and_every_statistic_follows(network: Network) -> None:
    module = torch_network.build(network)
    weights = random_weights(network, seed=1)
    torch_network.load(module, weights)
    planes = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32))
    loss = torch.nn.functional.cross_entropy(module.train()(planes), torch.tensor([1, 2]))
    loss.backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []
    found = torch_network.weights_of(module)
    statistics = [name for name in weights if ".running_" in name]
    assert [name for name in statistics if np.array_equal(found[name], weights[name])] == []


def test_the_example_of_the_readme_begins_as_the_reference() -> None:
    names: dict[str, object] = {}
    exec(example("torch_network"), names)
    module = names["module"]
    assert isinstance(module, torch_network.ResNeXt)
    assert module.network == describe("se_resnext50", classes=37)
    assert module.conv1.weight.abs().max() <= (3 * 49) ** -0.5
