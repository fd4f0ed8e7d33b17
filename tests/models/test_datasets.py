import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidValueError
from models.training.datasets import CIFAR10_NAMES, Dataset, KeptPictures, Part, open_dataset
from models.training.recipe import DataChoice
from patience import PATIENCE_S
from pictures import encoded, photo

RECORD_BYTES = 3073
RECORDS = 10_000
CLASSES = ("bird", "cat", "dog")


def _folder(root: Path, *, pictures: int = 2, classes: tuple[str, ...] = CLASSES) -> str:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(pictures):
            (root / name / f"{index}.png").write_bytes(
                encoded(photo(20 + index, 16, seed=10 * number + index), "PNG")
            )
    return str(root)


def _choice(tmp_path: Path, *, is_cached: bool = False) -> DataChoice:
    return DataChoice(
        format="folder",
        train=_folder(tmp_path / "train", pictures=3),
        evaluation=_folder(tmp_path / "val"),
        is_cached=is_cached,
    )


def _open(choice: DataChoice, part: Part = "train", classes: int = len(CLASSES)) -> Dataset:
    return open_dataset(choice, part, seed=1, classes=classes)


def _refused(choice: DataChoice, sentence: str, part: Part = "train", classes: int = len(CLASSES)) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(sentence)):
        _open(choice, part, classes)


# Folders


def test_the_folders_of_a_folder_are_the_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    training, evaluation = _open(choice), _open(choice, "evaluation")
    assert training.names == evaluation.names == CLASSES
    assert (len(training), len(evaluation)) == (9, 6)
    assert training.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert training.labels.dtype == np.int64
    np.testing.assert_array_equal(np.asarray(training.picture(4)), np.asarray(photo(21, 16, seed=11)))
    np.testing.assert_array_equal(np.asarray(evaluation.picture(4)), np.asarray(photo(20, 16, seed=20)))


def test_pictures_are_jpeg_png_and_webp_by_names_of_any_case(tmp_path: Path) -> None:
    root = tmp_path / "train/bird"
    root.mkdir(parents=True)
    for name, form in (("a.JPEG", "JPEG"), ("b.jpg", "JPEG"), ("c.Png", "PNG"), ("d.webp", "WEBP")):
        (root / name).write_bytes(encoded(photo(20, 16), form))
    (root / "e.jpg").write_bytes(encoded(photo(20, 16), "PNG"))  # as ImageNet has one
    _folder(tmp_path / "train", classes=("cat",))
    dataset = _open(DataChoice(format="folder", train=str(tmp_path / "train")), classes=2)
    assert {dataset.picture(index).size for index in range(5)} == {(20, 16)}
    assert {dataset.picture(index).mode for index in range(5)} == {"RGB"}


def test_what_systems_and_people_leave_behind_is_passed_over(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    for name in (
        "README.md",
        ".DS_Store",
        "labels.txt",
        "bird/Thumbs.db",
        "bird/.DS_Store",
        "cat/desktop.ini",
    ):
        Path(choice.train, name).write_bytes(b"not a picture")
    for name in (".git", "dog/.ipynb_checkpoints"):
        Path(choice.train, name).mkdir()
    assert (len(_open(choice)), _open(choice).names) == (9, CLASSES)


@pytest.mark.parametrize("name", ["notes.txt", "picture.gif", "picture.jpg.part", "nested.jpg/"])
def test_anything_else_in_the_folder_of_a_class_is_refused(name: str, tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    stray = Path(choice.train, "cat", name)
    stray.mkdir() if name.endswith("/") else stray.write_bytes(b"GIF89a")
    _refused(
        choice,
        f"{stray} is no picture by its name; allowed in the folder of a class are JPEG, PNG or WebP files"
        " (.jpg, .jpeg, .png, .webp)",
    )


def test_what_would_be_waited_for_for_ever_is_refused(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    pipe, link = Path(choice.train, "cat/pipe.jpg"), Path(choice.train, "cat/link.jpg")
    os.mkfifo(pipe)
    _refused(choice, f"{pipe} is no file, or a link that leads to none")
    pipe.unlink()
    link.symlink_to("nowhere")
    _refused(choice, f"{link} is no file, or a link that leads to none")


def test_a_class_whose_name_no_report_could_hold_is_refused(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    os.mkdir(os.path.join(os.fsencode(choice.train), b"c\xe9\xff"))  # noqa: PTH102, PTH118 - no Path holds bytes
    _refused(choice, f"data.train {choice.train} has a folder 'c\\udce9\\udcff'; allowed are names in UTF-8")


def test_a_damaged_picture_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    file = Path(choice.train, "cat/1.png")
    file.write_bytes(file.read_bytes()[:100])
    dataset = _open(choice)
    dataset.picture(3)
    with pytest.raises(InvalidValueError, match=re.escape(f"{file} cannot be decoded: ")):
        dataset.picture(4)


def test_a_picture_that_vanished_is_named(tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    dataset = _open(choice)
    Path(choice.train, "bird/0.png").unlink()
    with pytest.raises(
        InvalidValueError, match=re.escape(f"{choice.train}/bird/0.png cannot be read: No such")
    ):
        dataset.picture(0)


def _without(where: str, name: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for file in (root / where / name).iterdir():
            file.unlink()
        (root / where / name).rmdir()

    return remove


def _emptied(root: Path) -> None:
    for file in (root / "train/cat").iterdir():
        file.unlink()


def _unfilled(root: Path) -> None:
    for name in CLASSES:
        _without("train", name)(root)


FAULTS: dict[str, tuple[Callable[[Path], object], Part, str]] = {
    "a class without pictures": (
        _emptied,
        "train",
        "{root}/train/cat has no pictures; allowed is at least one in the folder of a class",
    ),
    "no classes": (
        _unfilled,
        "train",
        "data.train {root}/train has no folders; allowed is a folder of pictures for each class",
    ),
    "fewer classes": (
        _without("train", "dog"),
        "train",
        "data.train {root}/train has 2 classes; allowed are the 3 of network.classes",
    ),
    "more classes": (
        lambda root: _folder(root / "train", classes=("eel",)),
        "train",
        "data.train {root}/train has 4 classes; allowed are the 3 of network.classes",
    ),
    "missing in evaluation": (
        _without("val", "dog"),
        "evaluation",
        (
            "data.evaluation {root}/val has no folder 'dog', and data.train {root}/train has;"
            " allowed are the same folders in both"
        ),
    ),
    "missing in training": (
        lambda root: _folder(root / "val", classes=("cow", "eel")),
        "evaluation",
        (
            "data.train {root}/train has no folder 'cow', 'eel', and data.evaluation {root}/val has;"
            " allowed are the same folders in both"
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_that_do_not_fit_are_refused_with_their_names(fault: str, tmp_path: Path) -> None:
    choice = _choice(tmp_path)
    spoil, part, sentence = FAULTS[fault]
    spoil(tmp_path)
    _refused(choice, sentence.format(root=tmp_path), part)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    allowed = "; allowed is a folder with a folder for each class"
    _refused(
        DataChoice(format="folder", train=gone),
        f"data.train {gone} cannot be read: No such file or directory{allowed}",
    )
    _refused(
        DataChoice(format="folder", train=_folder(tmp_path / "train")),
        "data.evaluation is empty; allowed is a path or URL",
        "evaluation",
    )


def test_a_dataset_can_be_evaluated_where_training_pictures_are_not(tmp_path: Path) -> None:
    choice = DataChoice(format="folder", train="/not/here", evaluation=_folder(tmp_path / "val"))
    assert len(_open(choice, "evaluation")) == 6


# CIFAR-10


def _cifar10_file(file: Path, seed: int) -> np.ndarray:
    records = np.random.default_rng(seed).integers(0, 256, (RECORDS, RECORD_BYTES), np.uint8)
    records[:, 0] = np.arange(seed, seed + RECORDS) % 10
    file.write_bytes(records.tobytes())
    return records


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all six files."""
    folder = tmp_path_factory.mktemp("cifar-10-batches-bin")
    for number in range(1, 6):
        _cifar10_file(folder / f"data_batch_{number}.bin", number)
    _cifar10_file(folder / "test_batch.bin", 6)
    (folder / "batches.meta.txt").write_text("airplane\n")
    (folder / "readme.html").write_text("")
    return folder


def _linked(cifar10: Path, folder: Path) -> DataChoice:
    folder.mkdir(exist_ok=True)
    for file in cifar10.iterdir():
        (folder / file.name).symlink_to(file)
    return DataChoice(format="cifar10", train=str(folder))


def _pixels(cifar10: Path, name: str, index: int) -> np.ndarray:
    """Read a picture as the format is described: planes of red, green and blue, line by line."""
    record = (cifar10 / name).read_bytes()[index * RECORD_BYTES + 1 : (index + 1) * RECORD_BYTES]
    return np.stack(
        [np.frombuffer(record[1024 * plane :][:1024], np.uint8).reshape(32, 32) for plane in range(3)], 2
    )


def test_cifar10s_test_file_is_evaluated_and_never_trained_on(cifar10: Path) -> None:
    choice = DataChoice(format="cifar10", train=str(cifar10))
    training, evaluation = _open(choice, classes=10), _open(choice, "evaluation", classes=10)
    assert (len(training), len(evaluation)) == (50_000, 10_000)
    assert training.names == evaluation.names == CIFAR10_NAMES
    for index in (0, 9_999, 20_001, 49_999):
        file, record = f"data_batch_{index // RECORDS + 1}.bin", index % RECORDS
        np.testing.assert_array_equal(np.asarray(training.picture(index)), _pixels(cifar10, file, record))
    np.testing.assert_array_equal(np.asarray(evaluation.picture(7)), _pixels(cifar10, "test_batch.bin", 7))
    assert training.labels[:3].tolist() == [1, 2, 3]
    assert training.labels[-2:].tolist() == [3, 4]
    assert evaluation.labels[:3].tolist() == [6, 7, 8]


def test_cifar10s_names_are_those_that_bundles_are_published_with() -> None:
    published = Path(__file__).parents[2] / "tests/untrained/cifar10.txt"
    assert tuple(published.read_text().split()) == CIFAR10_NAMES


def test_cifar10_may_have_a_folder_for_evaluation_as_the_reference_has(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-verify-bin").mkdir()
    (tmp_path / "cifar-10-verify-bin/test_batch.bin").symlink_to(cifar10 / "data_batch_2.bin")
    choice = DataChoice(
        format="cifar10", train=str(cifar10), evaluation=str(tmp_path / "cifar-10-verify-bin")
    )
    picture = _open(choice, "evaluation", classes=10).picture(0)
    np.testing.assert_array_equal(np.asarray(picture), _pixels(cifar10, "data_batch_2.bin", 0))


@pytest.mark.parametrize("size", [0, 1, RECORDS * RECORD_BYTES - 1, RECORDS * RECORD_BYTES + 1])
def test_a_file_of_cifar10_of_another_size_is_refused(size: int, cifar10: Path, tmp_path: Path) -> None:
    choice = _linked(cifar10, tmp_path / "cifar10")
    damaged = tmp_path / "cifar10/data_batch_4.bin"
    damaged.unlink()
    with damaged.open("wb") as file:
        file.truncate(size)
    _refused(
        choice,
        f"{damaged} has {size} bytes; allowed are 30730000, as CIFAR-10's binary version has",
        classes=10,
    )


@pytest.mark.parametrize(("part", "name"), [("train", "data_batch_3.bin"), ("evaluation", "test_batch.bin")])
def test_a_missing_file_of_cifar10_is_named(part: Part, name: str, cifar10: Path, tmp_path: Path) -> None:
    choice = _linked(cifar10, tmp_path / "cifar10")
    (tmp_path / "cifar10" / name).unlink()
    _refused(choice, f"{tmp_path}/cifar10/{name} cannot be read: No such file or directory", part, classes=10)


def test_a_file_of_cifar10_with_another_class_is_refused(cifar10: Path, tmp_path: Path) -> None:
    choice = _linked(cifar10, tmp_path / "cifar10")
    damaged = tmp_path / "cifar10/test_batch.bin"
    body = bytearray(damaged.read_bytes())
    body[3 * RECORD_BYTES] = 10
    damaged.unlink()
    damaged.write_bytes(body)
    _refused(choice, f"{damaged} has class 10; allowed are 0 to 9", "evaluation", classes=10)


def test_cifar10_has_ten_classes(cifar10: Path) -> None:
    choice = DataChoice(format="cifar10", train=str(cifar10))
    _refused(choice, f"data.evaluation {cifar10} has 10 classes; allowed are the 100 of", "evaluation", 100)


# Synthetic pictures


def test_synthetic_pictures_are_a_function_of_the_seed() -> None:
    choice = DataChoice(format="synthetic", images=12)

    def drawn(part: Part, seed: int) -> list[bytes]:
        dataset = open_dataset(choice, part, seed=seed, classes=4)
        return [dataset.picture(index).tobytes() for index in reversed(range(len(dataset)))]

    assert drawn("train", 1) == drawn("train", 1)
    assert len({*drawn("train", 1), *drawn("evaluation", 1), *drawn("train", 2)}) == 36


def test_synthetic_pictures_vary_in_size_and_classes_are_even() -> None:
    dataset = _open(DataChoice(format="synthetic", images=12), classes=4)
    assert len({dataset.picture(index).size for index in range(12)}) > 6
    assert np.bincount(dataset.labels).tolist() == [3, 3, 3, 3]
    assert len(dataset.names) == 4


def test_the_classes_of_synthetic_pictures_can_be_learnt() -> None:
    """The mean picture of each class in training is nearest to that class's pictures in evaluation."""
    choice = DataChoice(format="synthetic", images=80)
    training, evaluation = _open(choice, classes=10), _open(choice, "evaluation", classes=10)

    def rows(dataset: Dataset) -> np.ndarray:
        pictures = (dataset.picture(index) for index in range(len(dataset)))
        return np.stack([np.asarray(picture.resize((16, 16)), float).ravel() for picture in pictures])

    seen = rows(training)
    means = np.stack([seen[training.labels == label].mean(axis=0) for label in range(10)])
    distances = np.square(rows(evaluation)[:, np.newaxis] - means).sum(axis=2)
    assert (distances.argmin(axis=1) == evaluation.labels).all()


# Pictures that are kept


class _Counted:
    """Two pictures, each of which can only be decoded while both threads ask for it."""

    names = ("a", "b")
    labels = np.array([0, 1])

    def __init__(self, asking: int = 1) -> None:
        self.decoded: list[int] = []
        self._together = threading.Barrier(asking, timeout=PATIENCE_S)

    def picture(self, index: int) -> Image.Image:
        self._together.wait()
        self.decoded.append(index)
        return photo(8, 8, seed=index)

    def __len__(self) -> int:
        return 2


def test_a_kept_picture_is_decoded_once() -> None:
    dataset = _Counted()
    kept = KeptPictures(dataset)
    assert (len(kept), kept.names, kept.labels.tolist()) == (2, ("a", "b"), [0, 1])
    assert len({id(kept.picture(1)) for _ in range(3)}) == 1
    assert kept.picture(0).tobytes() == photo(8, 8, seed=0).tobytes()
    assert dataset.decoded == [1, 0]


def test_threads_that_ask_together_get_the_same_picture() -> None:
    kept = KeptPictures(_Counted(asking=2))
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(kept.picture, [0, 0])
    assert one is other


def test_a_recipe_says_whether_pictures_are_kept(tmp_path: Path) -> None:
    choice = _choice(tmp_path, is_cached=True)
    kept = _open(choice)
    assert kept.picture(2) is kept.picture(2)
    Path(choice.train, "bird/2.png").unlink()
    assert kept.picture(2).size == (22, 16)
