"""A training in MindSpore that takes minutes, so that it is asked for: by heart.

.venv/bin/pytest tests/bench/mindspore_training.py
"""

from pathlib import Path

from mindspore_recipes import NETWORK
from recipes import by_heart, noise_folder
from training import lines, train


def test_256_pictures_of_noise_are_learnt_by_heart(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 256, 4)
    learnt = by_heart(pictures, network={**NETWORK, "width": 1 / 8}, evaluate_every=16)
    train("mindspore", learnt, tmp_path / "run")
    assert lines(tmp_path / "run")[-1]["evaluation"]["top1"] == 1.0
