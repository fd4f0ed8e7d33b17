from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from documents import example
from interpreters import mindspore
from models import hub
from models.bundle import bundle, untrained_source
from models.checkpoints import write_checkpoint
from models.errors import InvalidValueError
from models.frameworks import torch_network
from models.frameworks.forward import forward_of
from models.networks import DESCRIPTIONS, Network, describe
from models.preprocessing import Preprocessing, standard_preprocessing
from models.publish import publish
from models.unfolding import unfold
from models.weights import random_weights
from pictures import photo
from trained import small_recipe, write_trained

SMALL = {"classes": 10, "width": 1 / 16}
ROWS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
OWN = Preprocessing(
    mode="exact", size=70, crop=64, antialias=False, mean=(1.0, 20.5, 33.3), std=(7.0, 8.25, 99.0)
)


def published(network: Network, folder: Path, preprocessing: Preprocessing = OWN) -> Path:
    labels = [f"kind {index}" for index in range(network.classes)]
    source, forward = untrained_source(network, 1), forward_of("pytorch")
    files = bundle(network, source, labels=labels, preprocessing=preprocessing, forward=forward)
    return publish(files, repository=folder, model="model")


def wanted_of(network: Network, preprocessing: Preprocessing = OWN) -> np.ndarray:
    """What the network answers with the weights that its bundle was made from."""
    return torch_network.logits(network, random_weights(network, seed=1), preprocessing.planes(ROWS))


def answer(loaded: hub.Loaded) -> np.ndarray:
    with torch.inference_mode():
        answered: np.ndarray = loaded.module(torch.from_numpy(loaded.preprocessing.planes(ROWS))).numpy()
    return answered


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_bundle_comes_back_as_a_module_that_answers_as_what_was_published(
    name: str, tmp_path: Path
) -> None:
    network = describe(name, classes=10, width=1 / 4)
    folder = published(network, tmp_path)
    loaded = hub.load(name, weights=folder)
    assert not loaded.module.training
    assert (loaded.network.classes, loaded.network.width) == (10, 1 / 4)
    assert loaded.labels == tuple(f"kind {index}" for index in range(10))
    np.testing.assert_allclose(loaded.preprocessing.std, OWN.std, rtol=1e-6)
    np.testing.assert_allclose(loaded.preprocessing.mean, OWN.mean, rtol=1e-6)
    assert replace(loaded.preprocessing, mean=OWN.mean, std=OWN.std) == OWN
    wanted = wanted_of(network)
    np.testing.assert_allclose(answer(loaded), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_the_stem_of_a_bundle_pools_as_its_graph(tmp_path: Path) -> None:
    network = replace(describe("se_resnext50", classes=10, width=1 / 16), stem_pool="padded")
    assert unfold(published(network, tmp_path)).network == network


@pytest.mark.parametrize("ending", [".ckpt", ".pth", ".safetensors"])
def test_a_checkpoint_is_loaded_whole(ending: str, tmp_path: Path) -> None:
    network = describe("sknet50", classes=10, width=1 / 16)
    weights = random_weights(network, seed=3)
    write_checkpoint(tmp_path / f"file{ending}", weights)
    loaded = hub.load("sknet50", weights=str(tmp_path / f"file{ending}"))
    assert (loaded.network, loaded.preprocessing) == (network, standard_preprocessing(224))
    assert not loaded.module.training
    held = torch_network.weights_of(loaded.module)
    assert all(np.array_equal(held[name], array) for name, array in weights.items())


def test_without_weights_it_begins_as_the_reference_always_the_same() -> None:
    first, second = (hub.load("sknet50", **SMALL, stem_pool="padded") for _ in range(2))
    assert first.network == replace(describe("sknet50", **SMALL), stem_pool="padded")
    np.testing.assert_array_equal(answer(first), answer(second))
    assert not first.module.fc.bias.any()


def test_a_checkpoint_of_our_trainer_tells_preprocessing_and_labels(tmp_path: Path) -> None:
    recipe = small_recipe()
    write_trained(tmp_path / "best.safetensors", recipe)
    loaded = hub.load("sknet50", weights=tmp_path / "best.safetensors")
    assert (loaded.network, loaded.preprocessing) == (recipe.network.describe(), recipe.preprocessing.build())
    assert loaded.labels == tuple(f"pattern {index}" for index in range(7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint, one that lacks a tensor, a bundle, and one whose graph was changed."""
    folder = tmp_path_factory.mktemp("hub")
    network = describe("sknet50", **SMALL)
    weights = random_weights(network, seed=1)
    write_checkpoint(folder / "sknet50.pth", weights)
    del weights["fc.bias"]
    write_checkpoint(folder / "short.pth", weights)
    for _ in range(2):
        published(network, folder, standard_preprocessing(64))
    with (folder / "model/2/model.onnx").open("ab") as file:
        file.write(b"more")
    return folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            {"name": "renext50"},
            r"network is 'renext50'; allowed are se_resnext50, resnext101, sknet50, sknet50_",
        ),
        ({"framework": "jax"}, r"framework is 'jax'; allowed are 'torch', 'mindspore'"),
        (
            {"weights": "sknet50.pth", "classes": 7},
            r"does not fit sknet50 \(7 classes, width 0.0625\).* misshapen",
        ),
        ({"weights": "short.pth"}, r"1 missing: fc.bias"),
        ({"weights": "none.pth"}, r"No such file"),
        (
            {"weights": "model/1", "name": "resnext101"},
            r"name is 'resnext101'; allowed is that of bundle .*'sknet50'",
        ),
        ({"weights": "model/1", "classes": 7}, r"classes is 7; allowed is that of bundle .*/1, 10"),
        ({"weights": "model/1", "width": 1}, r"width is 1; allowed is that of bundle .*/1, 0.0625"),
        (
            {"weights": "model/1", "stem_pool": "padded"},
            r"stem_pool is 'padded'; allowed is that of bundle .*'ceil'",
        ),
        ({"weights": "."}, r"bundle is .*; allowed is the folder of a version"),
        ({"weights": "model/2"}, r"model.onnx is not the file that model.json names"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what(
    words: dict[str, object], sentence: str, folder: Path
) -> None:
    given = {"name": "sknet50", **words}
    if "weights" in given:
        given["weights"] = folder / str(given["weights"])
    with pytest.raises((InvalidValueError, FileNotFoundError), match=sentence):
        hub.load(given.pop("name"), **given)


def test_mindspore_answers_as_pytorch_from_the_same_bundle(tmp_path: Path) -> None:
    network = describe("sknet50", **SMALL)
    folder = published(network, tmp_path)
    loaded = hub.load("sknet50", weights=folder)
    np.save(tmp_path / "planes.npy", loaded.preprocessing.planes(ROWS))
    program = (
        "import mindspore as ms, numpy as np; from models import hub;"
        f"loaded = hub.load('sknet50', framework='mindspore', weights={str(folder)!r});"
        "assert not loaded.module.training;"
        "np.save('answers.npy', loaded.module(ms.Tensor(np.load('planes.npy'))).asnumpy())"
    )
    mindspore("python", "-c", program, folder=tmp_path)
    found, wanted = np.load(tmp_path / "answers.npy"), wanted_of(network)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_the_example_of_the_readme_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = describe("sknet8", classes=5, width=0.25)
    folder = published(network, tmp_path)
    (tmp_path / "models/demo/cifar10").mkdir(parents=True)
    folder.rename(tmp_path / "models/demo/cifar10/1")
    photo(90, 80).save("photo.jpg")
    names: dict[str, object] = {}
    exec(example("hub.load"), names)
    row = OWN.rows(Image.open("photo.jpg"))
    wanted = torch_network.logits(network, random_weights(network, seed=1), OWN.planes(row[np.newaxis]))
    assert names["label"] == f"kind {wanted.argmax()}"
