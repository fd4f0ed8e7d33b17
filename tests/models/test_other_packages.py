"""Networks of other packages, imported by their names, answer in OpenVINO as in those packages."""

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from models.checkpoints import Wish, dialect_of, export_weights
from models.checkpoints.source import trained
from models.graph import deployment_graph, graph_bytes
from models.networks import describe
from models.preprocessing import standard_preprocessing
from models.weights import random_weights
from pictures import photo
from zoo import NAMES, network_of

PREPROCESSING = standard_preprocessing(224)


@pytest.mark.parametrize(("dialect", "name"), NAMES)
def test_a_checkpoint_of_another_package_answers_as_its_own_class(
    dialect: str, name: str, tmp_path: Path
) -> None:
    module = network_of(dialect, name)
    _randomise(module, dialect, name)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    rows = np.stack([PREPROCESSING.rows(photo(seed=seed)) for seed in range(2)])
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(PREPROCESSING.planes(rows))).numpy()
    del module
    # The names of torchvision and timm for ResNeXt101 are ours too, which leaves the stem's pool open.
    is_open = name == "resnext101" and dialect != "cadene"
    found = trained(tmp_path / "a.pth", Wish(), stem_pool="padded" if is_open else None)
    model = deployment_graph(found.network, found.source.weights, PREPROCESSING)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(graph_bytes(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answers = compiled(rows)["logits"]
    assert np.abs(answers - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(np.argsort(-answers)[:, :5], np.argsort(-expected)[:, :5])


def _randomise(module: torch.nn.Module, dialect: str, name: str) -> None:
    """Give a module weights whose signal stays alive through all blocks, and norms that are not trivial."""
    network = describe(name)
    weights = export_weights(network, random_weights(network, seed=3), dialect_of(dialect, network))
    state = {key: torch.from_numpy(array) for key, array in weights.items()}
    state |= {key: torch.tensor(1) for key in module.state_dict() if key.endswith("num_batches_tracked")}
    module.load_state_dict(state, strict=True, assign=True)
