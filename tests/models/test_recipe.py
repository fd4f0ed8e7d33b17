import re
from pathlib import Path

import pytest
import yaml

from models.errors import InvalidValueError
from models.preprocessing import PREPROCESSINGS
from models.training.recipe import BUNDLED, Recipe, as_document, parse_recipe, read_recipe
from recipe_keys import keys_of

ROOT = Path(__file__).parents[2]

SMALL = """
name: small
network: {name: sknet50, classes: 4, width: 0.125}
data: {format: synthetic, images: 64}
preprocessing: {name: cifar10, input_size: 32}
epochs: 2
batch: 8
schedule: {kind: poly, rate: 0.1, warmup_epochs: 1}
"""


def written(folder: Path, text: str = SMALL) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def faults(folder: Path, *overrides: str, text: str = SMALL) -> list[str]:
    with pytest.raises(InvalidValueError) as told:
        read_recipe(written(folder, text), overrides)
    return str(told.value).split("\n  ")[1:]


def test_a_recipe_is_read_and_written_without_a_loss(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path))
    assert read_recipe(written(tmp_path, recipe.text())) == recipe
    assert parse_recipe(as_document(recipe), where="here") == recipe


def test_overrides_take_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    recipe = read_recipe(
        written(tmp_path),
        ["schedule.rate=1e-2", "epochs=3", "optimizer.nesterov=true", "network.stem_pool=padded"],
    )
    assert recipe.schedule.rate == 0.01
    assert recipe.epochs == 3
    assert recipe.optimizer.nesterov
    assert recipe.network.describe().stem_pool == "padded"


def test_a_schedule_of_another_kind_takes_the_place_of_all_its_keys(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path), ["schedule={kind: linear, rate: 0.2, final: 0.01}"])
    assert (recipe.schedule.kind, recipe.schedule.rate) == ("linear", 0.2)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("schedule.kind=ploy", "schedule", "ploy"),
        ("epochs=0", "epochs", "0"),
        ("epochs=ten", "epochs", "'ten'"),
        ("batch=1.5", "batch", "1.5"),
        ("optimizer.momentum=1", "optimizer.momentum", "1"),
        ("optimizer.momentun=0.8", "optimizer.momentun", "0.8"),
        ("learning_rate=0.1", "learning_rate", "0.1"),
        ("schedule.rate=.nan", "schedule.poly.rate", "nan"),
        ("data.format=tfrecord", "data.format", "'tfrecord'"),
        ("precision.compute=int8", "precision.compute", "'int8'"),
        ("seed=-1", "seed", "-1"),
        ("name=../up", "name", "'../up'"),
        ("epochs=99999999999999999999", "epochs", "99999999999999999999"),
        ("preprocessing.input_size=1000000", "preprocessing.input_size", "1000000"),
        ("schedule.rate=1e+300", "schedule.poly.rate", "1e+300"),
    ],
)
def test_what_no_recipe_may_say_is_told_with_key_and_value(
    override: str, key: str, value: str, tmp_path: Path
) -> None:
    (fault,) = faults(tmp_path, override)
    assert fault.startswith(f"{key}: ")
    assert value in fault


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("schedule.warmup_epochs=3", "schedule.warmup_epochs"),
        ("schedule={kind: multi_step, rate: 1, milestones: [1, 2]}", "schedule.milestones"),
        ("schedule={kind: multi_step, rate: 1, milestones: [1, 0.5]}", "schedule.milestones"),
        ("data.images=0", "data.images"),
        ("data.format=folder", "data.train"),
        ("augmentation.scale=[0.5, 0.1]", "augmentation.scale"),
        ("precision.loss_scale=dynamic", "precision.loss_scale"),
        ("start.replaces_head=true", "start.replaces_head"),
        ("start={whitens_stem: true, checkpoint: a.ckpt}", "start.whitens_stem"),
        ("network.width=0.3", "width is 0.3"),
        ("network.name=resnet18", "network is 'resnet18'"),
        ("preprocessing.size=16", "size is 16"),
        ("augmentation.scale=[2, 3]", "augmentation.scale"),
        ("optimizer={nesterov: true, momentum: 0}", "optimizer.nesterov"),
        ("label_smoothing=0.8", "label_smoothing: allowed is at most 0.75"),
    ],
)
def test_contradictions_are_told_before_the_first_step(override: str, told: str, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, override)
    assert fault.startswith(told)


@pytest.mark.parametrize(
    ("size", "epochs", "told"),
    [
        (64, 1, "small_first.input_size: allowed is less than preprocessing.input_size, 64, and not 64"),
        (33, 1, "small_first.input_size: input size is 33"),
        (32, 2, "small_first.epochs: allowed is less than epochs, 2, and not 2"),
    ],
)
def test_small_rows_that_are_not_smaller_or_not_first_are_refused(
    size: int, epochs: int, told: str, tmp_path: Path
) -> None:
    small_first = f"small_first={{input_size: {size}, epochs: {epochs}}}"
    (fault,) = faults(tmp_path, "preprocessing.input_size=64", small_first)
    assert fault.startswith(told)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(faults(tmp_path, "epochs=0", "batch=0", "sede=3")) == 3
    assert len(faults(tmp_path, "network.width=0.3", "data.images=0")) == 2
    sizes = ("preprocessing.input_size=63", "small_first={input_size: 33, epochs: 9}", "epochs=3")
    assert [fault.split(" is ")[0] for fault in faults(tmp_path, *sizes)] == [
        "input size",
        "small_first.epochs: allowed",
    ]


@pytest.mark.parametrize("override", ["epochs", "=3", "data.format.deep=1", "epochs=[1"])
def test_an_override_that_is_none_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="override is"):
        read_recipe(written(tmp_path), [override])


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    for text, told in (
        ("{", "is no YAML"),
        ("- 1", "holds list"),
        ("!!python/object/apply:os.getpid []", "no YAML"),
    ):
        with pytest.raises(InvalidValueError, match=told):
            read_recipe(written(tmp_path, text))
    with pytest.raises(InvalidValueError, match=r"allowed is a file, or one of .*demo"):
        read_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", [path.stem for path in BUNDLED.glob("*.yaml")])
def test_the_bundled_recipes_can_be_used_and_bear_the_name_of_their_file(name: str) -> None:
    assert read_recipe(name).name == name


def test_the_preprocessing_is_the_object_that_goes_into_the_manifest(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path))
    assert recipe.preprocessing.build() == PREPROCESSINGS["cifar10"](32)
    changed = read_recipe(written(tmp_path), ["preprocessing.antialias=true", "preprocessing.size=40"])
    assert changed.preprocessing.build().size == 40
    assert changed.preprocessing.build().antialias


def test_the_text_of_a_recipe_names_every_default(tmp_path: Path) -> None:
    document = yaml.safe_load(read_recipe(written(tmp_path)).text())
    assert document["optimizer"] == {
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decays_all": False,
    }


def test_every_key_of_a_recipe_is_documented() -> None:
    documented = set()
    for line in (ROOT / "models/README.md").read_text().splitlines():
        section = ""
        for name in re.findall(r"`([a-z0-9_.]+)`", line.split("|")[1] if line.startswith("|") else ""):
            section = name.rpartition(".")[0] or section
            documented.add(f"{section}.{name.removeprefix('.').rpartition('.')[2]}" if section else name)
    assert set(keys_of(Recipe)) <= documented


def test_one_picture_has_no_statistics_where_the_gate_has_a_norm(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "network.name=sknet8", "batch=1")
    assert fault == "batch: the norm in the gate of sknet8 needs at least 2 pictures, and not 1"
    read_recipe(written(tmp_path), ["network.name=sknet8", "batch=1", "norms=frozen"])


def test_a_folder_of_its_name_does_not_hide_a_bundled_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert read_recipe("demo").name == "demo"
