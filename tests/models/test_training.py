"""Trainings as users start them, in PyTorch; those in MindSpore are in test_mindspore_training.py."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from models.checkpoints import Wish, import_weights, read_checkpoint, write_checkpoint
from models.errors import InvalidValueError, TrainingFailedError, TransferFailedError
from models.training.recipe import Recipe
from models.training.run import Order, run
from models.training.savepoints import read_savepoint
from models.training.watching import EpochRecord, StepRecord
from models.weights import random_weights
from recipes import by_heart, noise_folder, small
from storages import Faulty, held
from training import (
    assert_learnt_alike,
    begin,
    command,
    end,
    is_same,
    lines,
    losses,
    newest,
    said,
    torchrun,
    train,
)

KILLS = 2

# One step to weights that are numbers, and whose answers are none: no loss tells of it.
BEYOND: dict[str, Any] = {"schedule": {"kind": "linear", "rate": 1e6}, "epochs": 1, "batch": 24}


def ordered(recipe: Recipe, folder: Path, *, is_resumed: bool = False) -> Order:
    return Order(recipe=recipe, framework="torch", device="cpu", folder=folder, is_resumed=is_resumed)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    run(ordered(small(ema=0.5, epochs=3, checkpoints={"every_steps": 1, "keep": 2}), folder))
    return folder


def test_a_run_leaves_its_recipe_a_log_and_checkpoints(unbroken: Path) -> None:
    point = newest(unbroken)
    assert (point.position.epoch, point.position.step) == (3, 0)
    assert point.recipe == small(ema=0.5, epochs=3, checkpoints={"every_steps": 1, "keep": 2})
    assert point.recipe.text() == (unbroken / "recipe.yaml").read_text()
    assert point.framework.startswith("pytorch ")
    assert point.labels == ("pattern 0", "pattern 1", "pattern 2", "pattern 3")
    assert len(losses(unbroken)) == 18
    best = read_savepoint(unbroken / "checkpoints" / "best.safetensors")
    assert best.accuracy
    measured = [line["evaluation"]["top1"] for line in lines(unbroken) if line["event"] == "epoch"]
    assert best.accuracy.top1 == max(measured)
    assert best.accuracy.n == 24


def test_a_checkpoint_is_one_that_every_command_reads(unbroken: Path) -> None:
    path = next((unbroken / "checkpoints").glob("0003-*"))
    imported = import_weights(read_checkpoint(path), Wish())
    assert imported.network == newest(unbroken).recipe.network.describe()
    assert imported.weights["fc.bias"].tobytes() == newest(unbroken).state.weights["fc.bias"].tobytes()


def test_the_same_seed_gives_the_same_losses_and_another_one_others(unbroken: Path, tmp_path: Path) -> None:
    again = newest(unbroken).recipe
    run(ordered(again, tmp_path / "again"))
    assert lines(tmp_path / "again") == lines(unbroken)
    assert is_same(newest(tmp_path / "again"), newest(unbroken))
    run(ordered(small(ema=0.5, epochs=3, seed=2), tmp_path / "other"))
    assert losses(tmp_path / "other") != losses(unbroken)


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_weights(
    unbroken: Path, tmp_path: Path
) -> None:
    recipe, folder = newest(unbroken).recipe, tmp_path / "run"
    began_s = time.monotonic()
    train("torch", recipe, tmp_path / "one_process")
    whole_s = time.monotonic() - began_s
    chance = random.Random(os.urandom(8))
    kills = 0
    for attempt in range(KILLS):
        process = begin(command("torch", recipe, folder, *(["--resume"] if attempt else [])))
        assert process.stderr
        process.stderr.readline()  # it has taken a step
        try:
            process.wait(chance.uniform(0, whole_s / KILLS / 2))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    train("torch", recipe, folder, "--resume")
    assert kills
    assert is_same(newest(folder), newest(tmp_path / "one_process"))
    assert lines(folder) == lines(tmp_path / "one_process")
    assert not list((folder / "checkpoints").glob(".*.safetensors.*"))


class _Stopped:
    """Ends a training when it hears of the end of an epoch, which is just before the checkpoint is written."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def stepped(self, record: StepRecord) -> None:
        pass

    def epoch_ended(self, record: EpochRecord) -> None:
        if record.epoch == self._epoch:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_a_run_that_ends_between_log_and_checkpoint_tells_each_epoch_once(
    unbroken: Path, tmp_path: Path
) -> None:
    order = ordered(newest(unbroken).recipe, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(replace(order, watchers=(_Stopped(2),)))
    run(replace(order, is_resumed=True))
    assert lines(tmp_path / "run") == lines(unbroken)


def test_a_run_whose_folder_is_lost_goes_on_from_its_mirror(unbroken: Path, tmp_path: Path) -> None:
    """One command begins, goes on and has ended; what is broken off at the first try is gone on with."""
    mirror = f"faulty://{uuid4().hex}/run"
    order = replace(
        ordered(newest(unbroken).recipe, tmp_path / "lost", is_resumed=True),
        mirror=mirror,
    )
    Faulty.reset()
    with pytest.raises(KeyboardInterrupt):
        run(replace(order, watchers=(_Stopped(2),)))
    elsewhere = replace(order, folder=tmp_path / "elsewhere")
    Faulty.reset(breaks_at=2)
    with pytest.raises(TransferFailedError, match="could not be fetched: the other side is gone"):
        run(elsewhere)
    assert not list(elsewhere.folder.rglob("[!.]*.safetensors"))
    Faulty.reset()
    run(elsewhere)
    assert is_same(newest(elsewhere.folder), newest(unbroken))
    assert lines(elsewhere.folder) == lines(unbroken)
    best = "checkpoints/best.safetensors"
    assert (elsewhere.folder / best).readlink() == (unbroken / best).readlink()
    there = held(mirror)
    assert {name: (elsewhere.folder / name).read_bytes() for name in there} == there
    assert "checkpoints/0003-000000.safetensors" in there
    with pytest.raises(InvalidValueError, match=rf"{mirror} holds a run with the checkpoint 0003-.*--resume"):
        run(replace(order, folder=tmp_path / "new", is_resumed=False))


def test_a_run_that_is_resumed_names_its_best_checkpoint(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder, symlinks=True)
    best = folder / "checkpoints" / "best.safetensors"
    name = best.readlink()
    best.unlink()
    run(ordered(newest(folder).recipe, folder, is_resumed=True))
    assert best.readlink() == name


def test_a_training_may_begin_with_a_whitened_stem(tmp_path: Path) -> None:
    still = {"epochs": 1, "schedule": {"kind": "linear", "rate": 1e-9}}
    drawn, whitened = (
        run(ordered(small(start={"whitens_stem": is_whitened}, **still), tmp_path / str(is_whitened)))
        for is_whitened in (False, True)
    )
    assert drawn.newest
    assert whitened.newest
    before, after = (read_savepoint(ended.newest).state.weights for ended in (drawn, whitened))
    differing = {
        name for name in before if "running" not in name and abs(before[name] - after[name]).max() > 1e-6
    }
    assert differing == {"conv1.weight"}
    half = len(after["conv1.weight"]) // 2
    assert after["conv1.weight"][half:] == pytest.approx(-after["conv1.weight"][:half], abs=1e-6)


def test_a_first_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "runs/demo/checkpoints/best.safetensors"
    with pytest.raises(InvalidValueError, match=f"start.checkpoint is {missing}, which is not there"):
        run(ordered(small(start={"checkpoint": str(missing)}), tmp_path))


def test_only_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    ended = run(ordered(small(epochs=5, checkpoints={"keep": 1}), tmp_path))
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir() if not path.is_symlink()}
    assert ended.best
    assert kept == {ended.best.name, "0005-000000.safetensors"}


def test_a_run_is_neither_written_over_nor_resumed_with_another_recipe(unbroken: Path) -> None:
    recipe = newest(unbroken).recipe
    with pytest.raises(InvalidValueError, match=r"holds a run .* go on with it by --resume"):
        run(ordered(recipe, unbroken))
    with pytest.raises(InvalidValueError, match="batch was 4 and is 8"):
        run(
            ordered(
                small(ema=0.5, epochs=3, checkpoints={"every_steps": 1, "keep": 2}, batch=8),
                unbroken,
                is_resumed=True,
            )
        )


def test_to_resume_what_has_ended_does_nothing(unbroken: Path) -> None:
    before = lines(unbroken)
    ended = run(ordered(newest(unbroken).recipe, unbroken, is_resumed=True))
    assert ended.top1 == max(line["evaluation"]["top1"] for line in before if line["event"] == "epoch")
    assert lines(unbroken) == before


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    recipe = small(schedule={"kind": "multi_step", "rate": 0.01, "gamma": 1e30, "milestones": [1]}, epochs=3)
    with pytest.raises(
        TrainingFailedError, match=r"the loss is (nan|inf) at step \d+; the last good checkpoint is .*0001"
    ):
        run(ordered(recipe, tmp_path))
    assert newest(tmp_path).position.epoch == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            BEYOND | {"batch": 4, "checkpoints": {"every_steps": 1}, "optimizer__weight_decay": 1e35},
            "overflow after step 1",
        ),
        (BEYOND, "the evaluation loss is nan in the end"),
    ],
)
def test_what_ends_in_no_numbers_has_not_gone_well(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailedError, match=rf"{told}.*; there is no checkpoint yet"):
        run(ordered(small(**changes), tmp_path))
    assert not list((tmp_path / "checkpoints").glob("*.safetensors"))


def test_one_folder_has_one_training_at_a_time(tmp_path: Path) -> None:
    class Second(_Stopped):
        def epoch_ended(self, record: EpochRecord) -> None:  # noqa: ARG002
            with pytest.raises(InvalidValueError, match="another training writes into"):
                run(ordered(small(), tmp_path, is_resumed=True))

    run(replace(ordered(small(epochs=1), tmp_path), watchers=(Second(0),)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"data__images": 28}, r"data\.images was 24 and is 28"),
        ({"schedule": {"kind": "linear", "rate": 0.05}}, r"schedule\.kind was step_cosine and is linear"),
    ],
)
def test_a_run_is_resumed_with_its_own_recipe_alone(
    unbroken: Path, changed: dict[str, Any], told: str
) -> None:
    recipe = small(ema=0.5, epochs=3, checkpoints={"every_steps": 1, "keep": 2}, **changed)
    with pytest.raises(InvalidValueError, match=told):
        run(ordered(recipe, unbroken, is_resumed=True))


def test_how_many_threads_make_rows_may_change(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder, symlinks=True)
    recipe = small(ema=0.5, epochs=3, checkpoints={"every_steps": 1, "keep": 2}, data__workers=1)
    assert run(ordered(recipe, folder, is_resumed=True)).newest


def test_a_run_is_resumed_on_its_own_pictures_alone(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 24, 4)
    recipe = small(data={"format": "folder", "train": str(pictures)}, epochs=1)
    run(ordered(recipe, tmp_path / "run"))
    resumed = ordered(recipe, tmp_path / "run", is_resumed=True)
    one = pictures / "class 2" / "0002.png"
    one.rename(tmp_path / "0002.png")
    with pytest.raises(InvalidValueError, match="was on 24 pictures, and there are 23"):
        run(resumed)
    (tmp_path / "0002.png").rename(one)
    (pictures / "class 0").rename(pictures / "class 9")
    with pytest.raises(InvalidValueError, match="class 0, class 9 differ"):
        run(resumed)


def test_a_damaged_checkpoint_is_named_with_the_one_before(tmp_path: Path) -> None:
    recipe = small(epochs=2)
    run(ordered(recipe, tmp_path))
    path = newest_path(tmp_path)
    damaged = path.read_bytes().replace(b'\\"best_top1\\"', b'\\"best_topl\\"', 1)
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(InvalidValueError, match=r"0002-000000.* is damaged.*goes on from 0001-000000"):
        run(ordered(recipe, tmp_path, is_resumed=True))
    path.unlink()
    assert run(ordered(recipe, tmp_path, is_resumed=True)).newest == path


def test_an_older_folder_goes_on_from_where_its_mirror_is(unbroken: Path, tmp_path: Path) -> None:
    """A job that comes back to a machine finds what it was when it left."""
    order = replace(
        ordered(newest(unbroken).recipe, tmp_path / "here", is_resumed=True),
        mirror=f"faulty://{uuid4().hex}/run",
    )
    Faulty.reset()
    for epoch, folder in ((1, "here"), (2, "elsewhere")):
        with pytest.raises(KeyboardInterrupt):
            run(replace(order, folder=tmp_path / folder, watchers=(_Stopped(epoch),)))
    Faulty.reset()
    run(order)
    assert lines(order.folder) == lines(unbroken)
    assert is_same(newest(order.folder), newest(unbroken))
    assert order.mirror
    there = held(order.mirror)
    assert {name: (order.folder / name).read_bytes() for name in there} == there
    numbered = [name for name in there if name.startswith("checkpoints/0")]
    assert len(numbered) <= 3  # the last two and the best: those that were sent before are gone
    moved = [name for name in Faulty.transfers if "checkpoints/0001" in name]
    assert len(set(moved)) == len(moved)  # what was fetched is not sent again


def test_a_damaged_picture_is_named_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 24, 4)
    recipe = small(data={"format": "folder", "train": str(pictures)}, epochs=3)
    watched = ordered(recipe, tmp_path / "run")
    run(ordered(small(data={"format": "folder", "train": str(pictures)}, epochs=1), tmp_path / "first"))
    damaged = pictures / "class 2" / "0002.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(TrainingFailedError, match=r"0002\.png .*there is no checkpoint yet"):
        run(watched)


def test_a_full_disk_is_told_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    """Files of this process may grow to a size that the log reaches in the second epoch, or a checkpoint."""
    recipe = small(epochs=2, checkpoints={"every_epochs": 1})
    first = tmp_path / "first"
    run(ordered(recipe, first))
    size = newest_path(first).stat().st_size
    program = (
        "import resource, signal, sys; from models.cli import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 1}, {size - 1}));"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = command("torch", recipe, tmp_path / "full")
    told = end(begin([sys.executable, "-c", program, *words[3:]]), code=1)
    assert "0001-000000.safetensors" in told
    assert "File too large" in told
    assert told.rstrip().endswith("there is no checkpoint yet")
    assert not list((tmp_path / "full" / "checkpoints").iterdir())


def newest_path(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("[0-9]*.safetensors"))


def test_256_pictures_of_noise_are_learnt_by_heart(tmp_path: Path) -> None:
    pictures = noise_folder(tmp_path / "pictures", 256, 4)
    network = {"name": "sknet50_paper", "classes": 4, "width": 1 / 8}
    recipe = by_heart(pictures, network=network, evaluate_every=4)
    assert run(ordered(recipe, tmp_path / "run")).top1 == 1.0


def test_two_processes_learn_what_one_does_from_batches_of_twice_the_size(tmp_path: Path) -> None:
    """Norms are frozen, since those of a process see its own pictures only; 25 pictures are no multiple of two."""
    start = str(tmp_path / "start.safetensors")
    changes = {"data__images": 25, "norms": "frozen", "start": {"checkpoint": start}}
    alone, together = small(batch=4, **changes), small(batch=2, **changes)
    write_checkpoint(Path(start), random_weights(alone.network.describe(), seed=1))
    train("torch", alone, tmp_path / "alone")
    words = command("torch", together, tmp_path / "together")
    told, _ = said(begin([*torchrun(), "--module", *words[2:]]))
    assert told.count("trained ") == 1  # by the first of the two
    assert_learnt_alike(tmp_path / "alone", tmp_path / "together", pictures=25)
