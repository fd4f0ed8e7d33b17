"""A training whose pictures come from a URL, and whose run is sent to one."""

from pathlib import Path
from uuid import uuid4

import pytest

from models.checkpoints import write_checkpoint
from models.cli import main
from models.errors import TransferFailedError
from models.storage import Mirror
from models.training.datasets import open_dataset
from models.training.recipe import Recipe
from models.training.run import Order, run
from models.training.savepoints import Shelf
from models.training.sending import Sending
from models.training.watching import StepRecord
from models.weights import random_weights
from pictures import encoded, photo
from storages import Faulty, fill, held
from trained import small_recipe

STEP = StepRecord(
    epoch=1, step=1, steps=4, rate=0.1, loss=1.0, is_skipped=False, loss_scale=1.0, images_per_s=1.0
)


class _Run:
    """A run's folder, without a training."""

    def __init__(self, folder: Path) -> None:
        self.url = f"faulty://{uuid4().hex}"
        self.shelf = Shelf(folder / "checkpoints", keep=2)
        self.sending = Sending(Mirror(self.url), folder, self.shelf)
        self._folder = folder

    def save(self, name: str) -> Path:
        path = self._folder / f"checkpoints/{name}.safetensors"
        path.write_bytes(name.encode() * 10)
        return path

    def sent(self) -> set[str]:
        return {name.removeprefix("checkpoints/").removesuffix(".safetensors") for name in held(self.url)}


@pytest.fixture
def a_run(tmp_path: Path) -> _Run:
    Faulty.reset()
    return _Run(tmp_path / "run")


def test_a_checkpoint_is_sent_with_the_next_step(a_run: _Run) -> None:
    a_run.sending.stepped(STEP)
    assert a_run.sent() == set()
    a_run.save("0000-000001")
    a_run.sending.stepped(STEP)
    assert a_run.sent() == {"0000-000001"}
    a_run.save("0001-000000")
    a_run.sending.stepped(STEP)
    assert a_run.sent() == {"0000-000001", "0001-000000"}
    Faulty.reset()
    a_run.sending.stepped(STEP)
    assert Faulty.transfers == []


def test_a_storage_that_is_away_for_a_while_costs_nothing(
    a_run: _Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Faulty.reset(breaks_at=1)
    a_run.save("0001-000000")
    a_run.sending.stepped(STEP)
    assert f"{a_run.url}/checkpoints/0001-000000.safetensors could not be sent" in capsys.readouterr().err
    with pytest.raises(
        TransferFailedError, match="could not be sent: the other side is gone; the run is whole in"
    ):
        a_run.sending.check()
    Faulty.reset()
    a_run.save("0002-000000")
    a_run.sending.stepped(STEP)
    assert a_run.sent() == {"0001-000000", "0002-000000"}
    a_run.sending.check()


def _folders(url: str) -> str:
    """Fill a URL with twelve pictures of two classes."""
    files = {
        f"{name}/{index}.png": encoded(photo(40, 40, seed=index), "PNG")
        for name in ("cat", "dog")
        for index in range(6)
    }
    return fill(url, files)


def _recipe(data: str, **changes: object) -> Recipe:
    return small_recipe(
        network={"name": "sknet50", "classes": 2, "width": 0.0625},
        data={"format": "folder", "train": data, "evaluation": data, "workers": 2},
        epochs=1,
        batch=6,
        **changes,
    )


def test_a_training_lives_on_urls_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CARDINAL_CACHE_FOLDER", str(tmp_path / "cache"))
    data, mirror = _folders(f"memory://{uuid4().hex}/pictures"), f"memory://{uuid4().hex}/run"
    recipe = _recipe(data)
    write_checkpoint(tmp_path / "first.safetensors", random_weights(recipe.network.describe(), 3))
    first = fill(
        f"memory://{uuid4().hex}", {"first.safetensors": (tmp_path / "first.safetensors").read_bytes()}
    )
    recipe = _recipe(data, start={"checkpoint": f"{first}/first.safetensors"})
    (tmp_path / "recipe.yaml").write_text(recipe.text())
    words = ["train", str(tmp_path / "recipe.yaml"), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main([*words, "--mirror", mirror]) == 0, capsys.readouterr().err
    there = held(mirror)
    assert set(there) >= {"recipe.yaml", "log.jsonl", "report.html", "checkpoints/0001-000000.safetensors"}
    assert there["checkpoints/best.safetensors"] == there["checkpoints/0001-000000.safetensors"]
    for name, body in there.items():
        assert (tmp_path / "run" / name).read_bytes() == body
    copies = {path.name[13:] for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}
    assert copies == {"pictures", "first.safetensors"}


def test_a_training_does_not_begin_on_half_of_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDINAL_CACHE_FOLDER", str(tmp_path / "cache"))
    recipe = _recipe(_folders(f"faulty://{uuid4().hex}/pictures"))
    order = Order(recipe=recipe, framework="torch", device="cpu", folder=tmp_path / "run", is_resumed=False)
    for _ in range(2):
        Faulty.reset(breaks_at=1)
        with pytest.raises(TransferFailedError, match="could not be fetched: the other side is gone"):
            run(order)
    Faulty.reset()
    assert len(open_dataset(recipe.data, "train", seed=1, classes=2)) == 12
    assert len(Faulty.transfers) == 12
