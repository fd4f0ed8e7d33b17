import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints import read_checkpoint, write_checkpoint
from models.checkpoints.convert import Wish
from models.checkpoints.source import trained
from models.cli import main
from models.commands.evaluation import checkpoints_at
from models.errors import InvalidValueError
from models.frameworks import torch_network
from models.training.datasets import open_dataset
from pictures import photo
from trained import CLASSES, small_recipe, write_trained
from training import torchrun

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with three checkpoints, of which the last two are equal, and better than the first.

    The times of their files are in the wrong order.
    """
    folder = tmp_path_factory.mktemp("run")
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    for epoch, seed in {1: 3, 2: 5, 3: 5}.items():
        path = checkpoints / f"{epoch:04d}-000000.safetensors"
        write_trained(path, small_recipe(), epoch=epoch, seed=seed)
        os.utime(path, (100 - epoch, 100 - epoch))
    (checkpoints / "best.safetensors").symlink_to("0002-000000.safetensors")
    (checkpoints / ".half").touch()
    return folder


def _evaluated(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main(["evaluate", *map(str, words), "--device", "cpu", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def _expected(path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count with the functions of the network alone."""
    recipe = small_recipe()
    preprocessing = recipe.preprocessing.build()
    dataset = open_dataset(recipe.data, "evaluation", seed=recipe.seed, classes=CLASSES)
    rows = np.stack([preprocessing.rows(dataset.picture(index)) for index in range(len(dataset))])
    found = trained(path, Wish())
    answers = torch_network.logits(found.network, found.source.weights, preprocessing.planes(rows)).argmax(1)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (dataset.labels, answers), 1)
    return confusion


def test_a_checkpoint_of_a_training_needs_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "best.safetensors"
    (counted,) = _evaluated(capsys, path)["evaluations"]
    expected = _expected(path)
    assert (counted["n"], counted["right"]) == (50, expected.trace())
    assert counted["confusion"] == expected.tolist()
    assert np.count_nonzero(expected.sum(axis=0)) > 3  # it does not answer the same to all
    assert counted["run_by"].startswith("pytorch ")


def test_of_a_run_all_are_evaluated_newest_first_and_the_best_is_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    heading, *rows, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["top-1", "top-5", "loss", "right", "of"]
    assert [row.split()[0].rpartition("/")[2][:4] for row in rows] == ["0003", "0002", "0001"]
    newest, before, first = (int(row.split()[4]) for row in rows)
    assert newest == before > first
    assert [row.endswith("best") for row in rows] == [
        False,
        True,
        False,
    ]  # of equals the first, as a training has it
    for row in rows:
        assert int(row.split()[4]) == _expected(Path(row.split()[0])).trace()
    assert last.startswith("pictures of synthetic, answered by pytorch ")


def test_a_folder_of_other_checkpoints_goes_by_the_time_of_its_files(tmp_path: Path) -> None:
    for time, name in enumerate(["b.ckpt", "c.pth", "a.pt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in checkpoints_at(tmp_path)] == ["a.pt", "c.pth", "b.ckpt"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is nothing to evaluate; allowed are CHECKPOINT, --url, or both"),
        (["/no/such.ckpt"], "checkpoint is /no/such.ckpt, which is not there; allowed is a file or a folder"),
        (["."], "has no checkpoints; allowed is a folder with files of .safetensors, .ckpt, .pth, .pt"),
        (["--url", "http://127.0.0.1:1"], "a served model is --url and --model; one of them is missing"),
        (["/no/such.ckpt", "--batch", "0"], "batch is 0; allowed is at least 1"),
        (["--url", "127.0.0.1", "--model", "m"], "url is '127.0.0.1'; allowed is one such as http://"),
        (
            ["--url", "http://127.0.0.1:1", "--model", "m", "--connections", "0"],
            "connections is 0; allowed is at least 1",
        ),
    ],
)
def test_a_fault_is_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def _pictures(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            photo(40 + index, 36, seed=10 * number + index).save(folder / name / f"{index}.png")
    return folder


def test_a_foreign_checkpoint_is_evaluated_on_the_pictures_that_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trained(run / "checkpoints" / "best.safetensors", Wish())
    write_checkpoint(tmp_path / "foreign.pth", found.source.weights)
    assert main(["evaluate", str(tmp_path / "foreign.pth")]) == 2
    assert "not said on which pictures; allowed are --data, or --recipe" in capsys.readouterr().err
    data = _pictures(tmp_path / "data", list("abcdefg"))
    words = ["--data", data, "--input-size", "32", "--preprocessing", "cifar10"]
    document = _evaluated(capsys, tmp_path / "foreign.pth", *words)
    assert document["labels"] == list("abcdefg")
    assert document["evaluations"][0]["n"] == 21


def test_pictures_of_other_classes_than_were_learnt_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _pictures(tmp_path / "data", list("abcdefg"))
    assert main(["evaluate", str(run), "--data", str(data), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "was trained on the classes pattern 0, pattern 1" in error
    assert "the pictures are of a, b, c, d, e and 2 more" in error


def test_two_processes_count_what_one_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "best.safetensors"
    (one,) = _evaluated(capsys, path)["evaluations"]
    words = ["--module", "models", "evaluate", str(path), "--device", "cpu", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*torchrun(), *words], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stderr
    (both,) = json.loads(ended.stdout)["evaluations"]
    assert both.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-5)
    assert both == one


def test_the_report_is_a_page_of_the_best_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = _evaluated(capsys, run, "--report", tmp_path / "report.html")
    (best,) = (each for each in document["evaluations"] if each["is_best"])
    page = (tmp_path / "report.html").read_text()
    assert f"{best['right']} of 50" in page
    assert best["name"] in page


def test_what_a_training_has_left_beside_its_weights_is_not_evaluated(run: Path) -> None:
    path = run / "checkpoints" / "0001-000000.safetensors"
    assert {"raw.fc.bias", "moments.fc.bias"} < set(read_checkpoint(path).tensors)
    weights = trained(path, Wish()).source.weights
    assert not any(name.startswith(("raw.", "moments.")) for name in weights)


def test_the_network_of_the_recipe_decides_what_names_do_not_tell(tmp_path: Path) -> None:
    recipe = small_recipe()
    recipe = replace(recipe, network=replace(recipe.network, stem_pool="padded"))
    write_trained(tmp_path / "padded.safetensors", recipe)
    assert trained(tmp_path / "padded.safetensors", Wish()).network.stem_pool == "padded"
    with pytest.raises(InvalidValueError, match="classes is 1; allowed is at least 2"):
        trained(tmp_path / "padded.safetensors", Wish(classes=1))
