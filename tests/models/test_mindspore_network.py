"""The network in MindSpore is the one that is described; test_agreement.py compares what it answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from documents import example
from interpreters import arrays, mindspore, mindspore_program
from models.checkpoints import Wish, dialect_of, import_weights, read_checkpoint, write_checkpoint
from models.checkpoints.dialects import stored_tensors
from models.frameworks import torch_network
from models.networks import describe
from models.weights import Weights, random_weights
from variants import SIDE, VARIANTS, WHOLE

STEPPED = ["se_resnext50", "sknet50_paper"]  # few blocks: differences grow with the depth
PLANES = np.random.default_rng(2).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("states")
    mindspore_program("states", "states.json", *VARIANTS, folder=folder)
    return dict(json.loads((folder / "states.json").read_text()))


@pytest.mark.parametrize("is_split", [False, True], ids=["native", "split"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_parameters_have_the_names_and_shapes_of_the_grammar(
    name: str,
    is_split: bool,  # noqa: FBT001
    states: dict[str, Any],
) -> None:
    dialect = dialect_of("cardinal-split" if is_split else "cardinal", VARIANTS[name])
    stored = stored_tensors(VARIANTS[name], dialect).values()
    expected = {name: list(how.shape) for how in stored for name in how.names}
    assert states[f"{name}/{'split' if is_split else 'native'}"] == expected


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    told = mindspore_program("refuse", "sknet50", folder=tmp_path)
    assert told == "weights are not those of sknet50: 1 missing: fc.bias\n"


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    np.save(folder / "planes.npy", PLANES)
    mindspore_program("step", "planes.npy", ".", *STEPPED, *WHOLE, folder=folder)
    return folder


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_of_training_is_that_of_pytorch(name: str, stepped: Path) -> None:
    """Gradients, momenta of the norms and their statistics, group convolutions split here and not there."""
    before, expected = random_weights(VARIANTS[name], seed=1), _torch_step(name)
    found = arrays(stepped / f"{name}.npz")
    assert list(found) == list(before)
    for key, array in expected.items():
        moved = np.abs(array - before[key]).max()
        assert np.abs(found[key] - array).max() <= 1e-3 * moved + 1e-6


def _torch_step(name: str) -> Weights:
    module = torch_network.build(VARIANTS[name])
    torch_network.load(module, random_weights(VARIANTS[name], seed=1))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    logits = module.train()(torch.from_numpy(PLANES))
    torch.nn.functional.cross_entropy(logits, torch.arange(len(PLANES))).backward()
    optimizer.step()
    return torch_network.weights_of(module)


@pytest.mark.parametrize("name", WHOLE)
def test_a_training_checkpoint_of_split_convolutions_is_understood(name: str, stepped: Path) -> None:
    imported = import_weights(read_checkpoint(stepped / f"{name}.ckpt"), Wish())
    assert imported.network == WHOLE[name]
    assert "cardinal-split" in {dialect.name for dialect in imported.dialects}
    expected = arrays(stepped / f"{name}.npz")
    assert all(np.array_equal(imported.weights[key], expected[key]) for key in expected)


def test_the_example_of_the_readme_takes_a_checkpoint(tmp_path: Path) -> None:
    weights = random_weights(describe("se_resnext50", classes=7, width=1 / 16), seed=1)
    write_checkpoint(tmp_path / "se_resnext50.pth", weights)
    program = example("mindspore_network") + "print(cell.layer1[0].conv2.convs[1].weight.asnumpy().tolist())"
    told = mindspore("python", "-c", program, folder=tmp_path)
    assert json.loads(told) == weights["layer1.0.conv2.weight"][4:8].tolist()
