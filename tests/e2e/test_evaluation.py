"""One checkpoint, counted in PyTorch and as the bundle that was published from it, through a running server."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.cli import main
from models.training.recipe import DataChoice
from pictures import encoded, photo
from serving import RunningServer
from trained import small_recipe, write_trained

pytestmark = pytest.mark.e2e

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
FORMS = ("JPEG", "PNG", "WEBP")


def _folder(folder: Path) -> Path:
    """Make pictures of many sizes and formats."""
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for index in range(9):
            form = FORMS[index % 3]
            picture = photo(30 + 17 * index, 110 - 7 * number, seed=100 * number + index)
            (folder / name / f"{index}.{form.lower()}").write_bytes(encoded(picture, form))
    return folder


@pytest.mark.parametrize("kind", ["files", "drawn"])
def test_a_checkpoint_and_what_is_served_of_it_are_right_at_the_same_pictures(
    kind: str,
    tmp_path: Path,
    start: Callable[..., RunningServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = small_recipe()
    if kind == "files":
        where = str(_folder(tmp_path / "pictures"))
        recipe = replace(recipe, data=DataChoice(format="folder", train=where, evaluation=where))
    checkpoint = tmp_path / "best.safetensors"
    write_trained(checkpoint, recipe)
    repository = tmp_path / "models"
    words = ["--checkpoint", str(checkpoint), "--repository", str(repository), "--model", "zoo"]
    assert main(["publish", *words, "--lite-gears", "none"]) == 0
    server = start(repository)
    capsys.readouterr()
    flags = ["--url", server.rest, "--model", "zoo", "--device", "cpu", "--json"]
    assert main(["evaluate", str(checkpoint), *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    in_torch, served = document["evaluations"]
    assert in_torch["run_by"].startswith("pytorch ")
    assert served["run_by"].startswith("openvino ")
    for key in ("n", "right", "top1", "top5", "confusion"):
        assert served[key] == in_torch[key]
    assert np.count_nonzero(np.sum(in_torch["confusion"], axis=0)) > 3  # it does not answer the same to all


def test_a_served_model_is_evaluated_where_there_is_no_checkpoint(
    tmp_path: Path, server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    for index in range(10):
        (folder / f"{index}").mkdir(parents=True)
        photo(40, 40, seed=index).save(folder / f"{index}" / "one.png")
    flags = ["--url", f"{server.rest}/", "--model", "sknet50", "--data", str(folder)]
    assert main(["evaluate", *flags]) == 0
    _, row, last = capsys.readouterr().out.splitlines()
    assert row.startswith(f"{server.rest}, sknet50 1 ")
    assert row.split()[-1] == "10"
    assert "answered by openvino" in last
