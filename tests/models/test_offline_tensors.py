"""Photos as raw tensors, their labels and lists, through the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.cli import main
from models.offline.photos import find_photos
from models.offline.tensors import batch_files, write_pngs
from models.preprocessing import PREPROCESSINGS, standard_preprocessing
from pictures import photo


def _save(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo(50 + seed, 40, seed).save(folder / name)


def _cifar10(folder: Path) -> bytes:
    """Write a test_batch.bin of noise whose classes go round."""
    records = np.random.default_rng(1).integers(0, 256, (10_000, 3073), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    folder.mkdir()
    records.tofile(folder / "test_batch.bin")
    return records.tobytes()


def test_each_photo_becomes_planes_under_its_own_name(tmp_path: Path) -> None:
    _save(tmp_path / "photos", "b.jpg", "a.v2.png", "deep/c.jpeg", ".hidden.jpg", "deep/.hidden/d.jpg")
    (tmp_path / "photos/b.jpg").rename(tmp_path / "photos/deep/b.jpg")
    (tmp_path / "photos/a.v2.png").rename(tmp_path / "photos/deep/a.v2.png")
    (tmp_path / "photos/deep/notes.txt").write_text("no photo")
    words = ["raw-tensors", str(tmp_path / "photos"), str(tmp_path / "out"), "--input-size", "32"]
    assert main(words) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.v2.bin", "b.bin", "c.bin"]
    preprocessing = standard_preprocessing(32)
    for name, tensor in {"a.v2.png": "a.v2", "b.jpg": "b", "c.jpeg": "c"}.items():
        image = Image.open(tmp_path / "photos/deep" / name).convert("RGB")
        wanted = preprocessing.planes(preprocessing.rows(image)[np.newaxis])
        np.testing.assert_array_equal(np.fromfile(tmp_path / f"out/{tensor}.bin", np.float32), wanted.ravel())


def test_the_default_is_what_the_pytorch_reference_does(tmp_path: Path) -> None:
    """Shortest side to 256 by PIL's bilinear filter, centre crop, ImageNet's mean and deviation, planes."""
    _save(tmp_path / "photos", "a.png")
    assert main(["raw-tensors", str(tmp_path / "photos"), str(tmp_path / "out")]) == 0
    image = Image.open(tmp_path / "photos/a.png").convert("RGB")
    resized = image.resize((256 * image.width // image.height, 256), Image.Resampling.BILINEAR)
    left = (resized.width - 224) // 2
    crop = np.asarray(resized, np.float64)[16:240, left : left + 224] / 255
    planes = ((crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    written = np.fromfile(tmp_path / "out/a.bin", np.float32)
    assert written.nbytes == 602_112
    np.testing.assert_allclose(written, planes.ravel(), atol=1e-6)


def test_rows_are_what_the_graph_of_a_bundle_takes(tmp_path: Path) -> None:
    _save(tmp_path / "photos", "a.png")
    words = ["raw-tensors", str(tmp_path / "photos"), str(tmp_path / "out"), "--input-size", "32"]
    assert main([*words, "--layout", "rows", "--preprocessing", "mindspore"]) == 0
    wanted = PREPROCESSINGS["mindspore"](32).rows(Image.open(tmp_path / "photos/a.png"))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out/a.bin", np.uint8), wanted.ravel())


def test_a_batch_holds_its_photos_in_order_and_the_last_one_is_filled_with_black(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["x/3.png", "x/20.png", "y/1.png", "y/3.png", "z/0.png"]
    _save(tmp_path / "photos", *names)
    photos, out, labels = str(tmp_path / "photos"), tmp_path / "out", tmp_path / "labels.npy"
    words = ["raw-tensors", photos, str(out), "--batch", "2", "--prefix", "sknet_data", "--layout", "rows"]
    assert main([*words, "--input-size", "32", "--preprocessing", "cifar10"]) == 0
    assert "wrote 3 files of 5 photos" in capsys.readouterr().out
    assert main(["label-file", photos, str(labels), "--batch", "2"]) == 0
    np.testing.assert_array_equal(np.load(labels), [[0, 0], [1, 1], [2, -1]])
    rows = [np.fromfile(out / f"sknet_data_bs2_{k}.bin", np.uint8).reshape(2, 32, 32, 3) for k in range(3)]
    preprocessing = PREPROCESSINGS["cifar10"](32)
    for row, name in zip(np.concatenate(rows)[:5], sorted(names), strict=True):
        np.testing.assert_array_equal(row, preprocessing.rows(Image.open(tmp_path / "photos" / name)))
    assert not rows[2][1].any()


def test_planes_of_a_filled_batch_are_those_of_a_black_picture(tmp_path: Path) -> None:
    _save(tmp_path / "photos", "a.png")
    words = ["raw-tensors", str(tmp_path / "photos"), str(tmp_path / "out"), "--batch", "3"]
    assert main([*words, "--input-size", "32"]) == 0
    planes = np.fromfile(tmp_path / "out/photos_bs3_0.bin", np.float32).reshape(3, 3, 32, 32)
    np.testing.assert_allclose(planes[2, :, 5, 5], [-2.117904, -2.035714, -1.804444], rtol=1e-6)


def test_batches_of_cifar10_leave_no_picture_out(tmp_path: Path) -> None:
    records = _cifar10(tmp_path / "cifar")
    photos = find_photos(tmp_path / "cifar", "cifar10")
    assert len(batch_files(photos, 32, "x")) == 313
    planes = np.frombuffer(records[-3072:], np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(np.asarray(photos[-1].read()), planes.transpose(1, 2, 0))
    labels = tmp_path / "labels.npy"
    words = ["label-file", str(tmp_path / "cifar"), str(labels), "--format", "cifar10", "--batch", "32"]
    assert main(words) == 0
    classes = np.load(labels)
    assert classes.shape == (313, 32)
    assert (classes.ravel()[:10_000] == np.arange(10_000) % 10).all()
    assert (classes.ravel()[10_000:] == -1).all()


def test_unpacked_pictures_have_their_own_colours_and_the_names_of_the_labels(tmp_path: Path) -> None:
    records = _cifar10(tmp_path / "cifar")
    write_pngs(find_photos(tmp_path / "cifar", "cifar10")[-3:], tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("img10000.png", "img9998.png", "img9999.png"),
    ]
    planes = np.frombuffer(records[-3072:], np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "out/img10000.png")), planes.transpose(1, 2, 0)
    )
    labels = tmp_path / "labels.txt"
    assert main(["label-file", str(tmp_path / "cifar"), str(labels), "--format", "cifar10"]) == 0
    lines = labels.read_text().splitlines()
    assert (len(lines), lines[0], lines[9999]) == (10_000, "img1.png 0", "img10000.png 9")


@pytest.mark.parametrize("ending", ["json", "txt"])
def test_classes_are_numbered_in_the_order_of_their_folders(ending: str, tmp_path: Path) -> None:
    _save(tmp_path / "photos", "n02/b.JPEG", "n01/c.JPEG", "n10/a.JPEG")
    file = tmp_path / f"labels.{ending}"
    assert main(["label-file", str(tmp_path / "photos"), str(file)]) == 0
    if ending == "json":
        assert json.loads(file.read_text()) == {"b.JPEG": 1, "c.JPEG": 0, "a.JPEG": 2}
    else:
        assert file.read_text() == "c.JPEG 0\nb.JPEG 1\na.JPEG 2\n"


def test_photos_in_one_folder_have_the_classes_of_a_list(tmp_path: Path) -> None:
    _save(tmp_path / "photos", "val_1.JPEG", "val_2.JPEG", "val_10.JPEG")
    (tmp_path / "val_label.txt").write_text("val_2.JPEG 7\nval_1.JPEG 65\nval_10.JPEG 3\nval_11.JPEG 9\n")
    words = ["label-file", str(tmp_path / "photos"), str(tmp_path / "labels.npy"), "--batch", "2"]
    assert main([*words, "--labels", str(tmp_path / "val_label.txt")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), [[65, 3], [7, -1]])


def test_names_end_at_the_first_dot_on_demand(tmp_path: Path) -> None:
    _save(tmp_path / "photos", "a.v2.png", "b.png")
    words = ["raw-tensors", str(tmp_path / "photos"), str(tmp_path / "out"), "--input-size", "32"]
    assert main([*words, "--names", "first-dot"]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.bin", "b.bin"]


def test_an_info_file_of_tensors_is_numbered_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "tensors"
    folder.mkdir()
    for name in ("c", "a", "b"):
        (folder / f"{name}.bin").write_bytes(bytes(3 * 8 * 4 * 4))
    (folder / "other.txt").write_text("")
    words = ["info-file", "bin", str(folder), str(tmp_path / "info")]
    assert main([*words, "--width", "8", "--height", "4"]) == 0
    lines = (tmp_path / "info").read_text()
    assert lines == f"0 {folder}/a.bin 8 4\n1 {folder}/b.bin 8 4\n2 {folder}/c.bin 8 4\n"


def test_an_info_file_of_jpegs_has_one_numbering_and_stored_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    _save(folder, "d.JPG", "c.JPEG", "b.jpeg", "a.jpg", "e.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(30, 20).save(folder / "f.jpg", exif=turned)
    assert main(["info-file", "jpg", str(folder), str(tmp_path / "info")]) == 0
    lines = [line.split() for line in (tmp_path / "info").read_text().splitlines()]
    assert [(number, Path(path).name) for number, path, *_ in lines] == [
        *(("0", "a.jpg"), ("1", "b.jpeg"), ("2", "c.JPEG"), ("3", "d.JPG"), ("4", "f.jpg")),
    ]
    assert [(int(width), int(height)) for *_, width, height in lines] == [
        *((53, 40), (52, 40), (51, 40), (50, 40), (30, 20)),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["raw-tensors", "twins", "out"],
            "names of 1 file collide: 1.bin of twins/x/1.png and twins/y/1.png",
        ),
        (
            ["raw-tensors", "dotted", "out", "--names", "first-dot"],
            "a.bin of dotted/a.1.png and dotted/a.2.png",
        ),
        (["raw-tensors", "dotted", "twins"], "twins exists; allowed is a new or an empty folder"),
        (["raw-tensors", "nothing", "out"], "nothing is no folder; allowed is a folder of photos"),
        (["raw-tensors", "texts", "out"], "texts has no photo; allowed are JPEG, PNG or WebP files"),
        (["raw-tensors", "mixed", "out"], "mixed has photos, such as a.png, beside folders with photos"),
        (["raw-tensors", "damaged", "out"], "damaged/a.png is no picture: it begins with b'texttext'"),
        (["raw-tensors", "dotted", "out", "--batch", "0"], "batch is 0; allowed is at least 1"),
        (["raw-tensors", "dotted", "out", "--prefix", "x"], "--prefix is for batches: it needs --batch"),
        (["raw-tensors", "dotted", "out", "--format", "cifar10"], "dotted/test_batch.bin cannot be read"),
        (["unpack-cifar10", "dotted", "out"], "dotted/test_batch.bin cannot be read"),
        (["label-file", "dotted", "out.txt"], "photos are in no folders of classes"),
        (
            ["label-file", "dotted", "out.txt", "--labels", "labels"],
            "labels have no 'a.1', which is photo dotted/a.1",
        ),
        (["label-file", "twins", "out.json"], "1 names are in more than one class: 1.png"),
        (["label-file", "twins", "out.npy"], "labels file is out.npy; allowed is .npy for batches"),
        (
            ["label-file", "twins", "out.txt", "--batch", "2"],
            "labels file is out.txt; allowed is .npy for batches",
        ),
        (["info-file", "bin", "tensors", "out"], "--width and --height are both needed for bin"),
        (
            ["info-file", "jpg", "tensors", "out", "--width", "3"],
            "--width and --height are both needed for bin",
        ),
        (["info-file", "jpg", "tensors", "out"], "tensors has no JPEG file"),
        (["info-file", "bin", "texts", "out", "--width", "8", "--height", "8"], "texts has no .bin file"),
        (
            ["info-file", "bin", "tensors", "out", "--width", "8", "--height", "8"],
            "a.bin has 100 bytes, which is no picture of 3 channels, 8 x 8",
        ),
        (
            ["info-file", "bin", "tensors", "out", "--width", "0", "--height", "8"],
            "width and height are 0 and 8; allowed is at least 1",
        ),
        (["info-file", "jpg", "a blank", "out"], "'a blank/a.jpg' has a blank, which parts the words"),
        (["info-file", "jpg", "fake", "out"], "fake/a.jpg is no JPEG file"),
    ],
)
def test_what_cannot_be_used_is_told_and_leaves_nothing(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _save(tmp_path, "twins/x/1.png", "twins/y/1.png", "dotted/a.1.png", "dotted/a.2.png", "mixed/a.png")
    _save(tmp_path, "mixed/x/a.png", "a blank/a.jpg")
    for name in ("texts/a.txt", "damaged/a.png", "tensors/a.bin", "fake/a.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"text" * 25)
    (tmp_path / "labels").write_text("a.2.png 1")
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
