"""Files go between us and PyTorch itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import read_checkpoint, write_checkpoint
from models.networks import NETWORKS, describe
from models.weights import random_weights

WIDTHS = {"se_resnext50": 1 / 16, "resnext101": 1 / 32, "sknet50": 1 / 16}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("is_mapped", [False, True], ids=["read", "mapped"])
def test_torch_reads_what_we_write(name: str, is_mapped: bool, tmp_path: Path) -> None:  # noqa: FBT001
    weights = random_weights(describe(name, width=WIDTHS[name]), seed=1)
    write_checkpoint(tmp_path / "weights.pth", weights)
    state = torch.load(tmp_path / "weights.pth", weights_only=True, mmap=is_mapped)
    assert list(state) == list(weights)
    for parameter, array in weights.items():
        assert state[parameter].dtype == torch.float32
        assert tuple(state[parameter].shape) == array.shape
        assert state[parameter].numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_we_read_what_torch_writes(is_zip: bool, tmp_path: Path) -> None:  # noqa: FBT001
    weights = random_weights(describe("sknet50", width=1 / 16), seed=1)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    tensors = read_checkpoint(tmp_path / "a.pth").tensors
    assert list(tensors) == list(weights)
    assert all(np.array_equal(tensors[name], weights[name]) for name in weights)
