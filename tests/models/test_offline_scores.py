"""The accuracy of results that another program left, through the commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.cli import main
from models.frameworks import torch_network
from models.networks import describe
from models.preprocessing import PREPROCESSINGS
from models.training.datasets import PictureFolder
from models.training.evaluation import evaluate
from models.training.learner import Alone
from models.weights import random_weights
from pictures import photo

N = 40


def _scores(classes: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(classes).normal(size=(n, classes)).astype(np.float16)


def _hits(scores: np.ndarray, labels: np.ndarray, depth: int) -> int:
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :depth]
    return int((best == labels[:, np.newaxis]).any(axis=1).sum())


def _write_texts(folder: Path, scores: np.ndarray) -> None:
    folder.mkdir()
    for index, row in enumerate(scores):
        (folder / f"ILSVRC2012_val_{index:08}_1.txt").write_text(" ".join(map(str, row)) + " \n")


def _write_names(file: Path, labels: np.ndarray) -> None:
    file.write_text("".join(f"ILSVRC2012_val_{i:08}.JPEG {label}\n" for i, label in enumerate(labels)))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 10, N)


@pytest.mark.parametrize(("scores", "offset"), [(1000, 0), (1001, 1), (11, 0)])
def test_text_results_are_counted_exactly(
    scores: int, offset: int, labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = _scores(scores)
    results[::2, labels[::2] + offset] += 3
    _write_texts(tmp_path / "results", results)
    _write_names(tmp_path / "val_label.txt", labels)
    words = ["score-results", str(tmp_path / "results"), str(tmp_path / "val_label.txt")]
    assert main([*words, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["title"] == "Overall statistical evaluation"
    values = {entry["key"]: entry["value"] for entry in report["value"]}
    hits = [_hits(results, labels + offset, depth) for depth in range(1, 6)]
    assert 0 < hits[0] < N
    assert values == {
        "Number of images": N,
        "Number of classes": scores,
        **{f"Top{depth} accuracy": 100 * count / N for depth, count in enumerate(hits, start=1)},
    }
    printed = capsys.readouterr().out
    assert printed == f"40 pictures of {scores:,} classes: top-1 {hits[0] / N}, top-5 {hits[4] / N}\n"


def test_a_score_of_no_class_is_before_the_others_where_there_is_one_more(
    labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = np.zeros((N, 11), np.float16)
    results[np.arange(N), labels + 1] = 1
    _write_texts(tmp_path / "results", results)
    _write_names(tmp_path / "labels.txt", labels)
    words = ["score-results", str(tmp_path / "results"), str(tmp_path / "labels.txt"), "--classes", "10"]
    assert main(words) == 0
    assert "top-1 1.0" in capsys.readouterr().out


def test_best_classes_in_their_order_are_counted(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name, ids in {"img1": "3 1 2 0 9", "img2": "1 2 3 4 5", "img3": "9 8 7 6 5"}.items():
        (tmp_path / f"results/{name}.txt").write_text(ids.replace(" ", "\n" if name == "img2" else " "))
    (tmp_path / "label.txt").write_text("img1 3\nimg2 3\nimg3 0\n\n")
    words = ["score-results", str(tmp_path / "results"), str(tmp_path / "label.txt"), "--ids"]
    assert main([*words, "--classes", "10", "--json", str(tmp_path / "report.json")]) == 0
    entries = json.loads((tmp_path / "report.json").read_text())["value"]
    assert [entry["value"] for entry in entries[:2]] == [3, 10]
    assert [entry["hits"] for entry in entries[2:]] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("stated", [[], ["--classes", "1000"], ["--dtype"]], ids=["", "classes", "dtype"])
def test_raw_results_of_single_pictures_are_counted(
    dtype: str, stated: list[str], labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the MindSpore reference of SE-ResNeXt50 leaves them: 1,000 float16 numbers, labels in JSON."""
    if not stated:  # a class so high that 4,000 bytes are 1,000 numbers of 4, and 2,000 bytes 1,000 of 2
        labels[0] = 999
    results = _scores(1000)
    results[::3, labels[::3]] += 4
    (tmp_path / "results").mkdir()
    for index, row in enumerate(results):
        row.astype(dtype).tofile(tmp_path / f"results/val_{index}_0.bin")
    names = {f"val_{index}.JPEG": int(label) for index, label in enumerate(labels)}
    (tmp_path / "labels.json").write_text(json.dumps({**names, "val_40.JPEG": 1}))
    words = ["score-raw", str(tmp_path / "results"), str(tmp_path / "labels.json")]
    is_open = not stated and dtype == "float32"
    assert main([*words, *stated, *([dtype] if stated == ["--dtype"] else [])]) == (2 if is_open else 0)
    output = capsys.readouterr()
    if is_open:
        assert "could be 2000 float16 or 1000 float32; allowed is what" in output.err
        return
    top1, top5 = (_hits(results, labels, depth) / N for depth in (1, 5))
    assert f"40 pictures of 1,000 classes: top-1 {top1}, top-5 {top5}; 1 labels are of" in output.out


@pytest.mark.parametrize("name", ["sknet_data_bs32_{}_0.bin", "sknet_data_bs32_{}.bin", "{}_0.bin"])
def test_raw_results_in_batches_are_counted_by_their_numbers(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the MindSpore reference of SKNet50 leaves them, and the last batch is not full."""
    n = 11 * 32 + 16
    labels, results = np.random.default_rng(0).integers(0, 10, n), _scores(10, 12 * 32).astype(np.float32)
    results[:100, labels[:100]] += 1
    (tmp_path / "results").mkdir()
    for number in range(12):
        results[number * 32 : (number + 1) * 32].tofile(tmp_path / "results" / name.format(number))
    np.save(tmp_path / "labels.npy", np.concatenate([labels, np.full(16, -1)]).reshape(12, 32))
    words = ["score-raw", str(tmp_path / "results"), str(tmp_path / "labels.npy"), "--dtype", "float32"]
    assert main([*words, "--json", str(tmp_path / "report.json")]) == 0
    entries = json.loads((tmp_path / "report.json").read_text())["value"]
    assert [entry["value"] for entry in entries[:2]] == [n, 10]
    assert [entry["hits"] for entry in entries[2:]] == [
        _hits(results[:n], labels, depth) for depth in range(1, 6)
    ]
    assert "labels are of pictures without" not in capsys.readouterr().out


@pytest.mark.parametrize("batch", [[], ["--batch", "8"]], ids=["single", "batches"])
def test_the_accuracy_over_files_is_that_of_an_evaluation(
    batch: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(21):
        (tmp_path / f"photos/{index % 10}").mkdir(parents=True, exist_ok=True)
        photo(40, 34, index).save(tmp_path / f"photos/{index % 10}/{index}.jpg")
    network = describe("sknet50", classes=10, width=1 / 16)
    weights, preprocessing = random_weights(network, seed=1), PREPROCESSINGS["cifar10"](32)
    dataset = PictureFolder(str(tmp_path / "photos"), "photos")
    rows = np.stack([preprocessing.rows(dataset.picture(index)) for index in range(21)])
    weights["fc.bias"] -= torch_network.logits(network, weights, preprocessing.planes(rows)).mean(axis=0)
    photos, tensors, results = (str(tmp_path / name) for name in ("photos", "tensors", "results"))
    words = ["--input-size", "32", "--preprocessing", "cifar10", *batch]
    assert main(["raw-tensors", photos, tensors, *words]) == 0
    Path(results).mkdir()
    for file in Path(tensors).iterdir():  # as a program would that knows nothing of ours
        planes = np.fromfile(file, np.float32).reshape(-1, 3, 32, 32)
        torch_network.logits(network, weights, planes).tofile(f"{results}/{file.stem}_0.bin")
    labels = str(tmp_path / ("labels.npy" if batch else "labels.txt"))
    assert main(["label-file", photos, labels, *batch]) == 0
    capsys.readouterr()
    assert main(["score-raw", results, labels, "--classes", "10", "--dtype", "float32"]) == 0
    counted = evaluate(
        lambda rows: torch_network.logits(network, weights, preprocessing.planes(rows)),
        dataset,
        preprocessing,
        Alone(),
        batch=8,
        workers=1,
    )
    assert 0 < counted.top1 < 1
    wanted = f"21 pictures of 10 classes: top-1 {counted.top1}, top-5 {counted.top5}\n"
    assert capsys.readouterr().out == wanted


def test_results_with_whole_names_need_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results").mkdir()
    for name, scores in {"a_1": "0 1", "a": "1 0"}.items():
        (tmp_path / f"results/{name}.txt").write_text(scores)
    (tmp_path / "labels.txt").write_text("a_1.png 1\na.png 0\n")
    assert main(["score-results", str(tmp_path / "results"), str(tmp_path / "labels.txt")]) == 0
    assert capsys.readouterr().out == "2 pictures of 2 classes: top-1 1.0, top-2 1.0\n"


def test_labels_are_found_by_the_first_dot_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a_1.txt").write_text("0 1")
    (tmp_path / "labels.txt").write_text("a.v2.png 1\n")
    words = ["score-results", str(tmp_path / "results"), str(tmp_path / "labels.txt")]
    assert main([*words, "--names", "first-dot"]) == 0
    assert main(words) == 2
    assert "labels have no 'a', which is the picture of" in capsys.readouterr().err


FILES: dict[str, bytes] = {
    "good.txt": b"a.jpg 1\nb.jpg 0\n",
    "texts/a_1.txt": b"0 1 0 0",
    "texts/b_1.txt": b"1 0 0 0",
    "texts/c_1.txt": b"1 0 0 0",
    "two/a_1.txt": b"1 0",
    "two/a_2.txt": b"1 0",
    "uneven/a.txt": b"1 0",
    "uneven/b.txt": b"1 0 0",
    "lines/a.txt": b"1 0\n0 1",
    "words/a.txt": b"1 one",
    "binary/a.txt": b"\xff\xfe",
    "narrow/a.txt": b"1",
    "ids/a.txt": b"0 0 1",
    "ids/b.txt": b"0 2 1",
    "unevenids/a.txt": b"0 2",
    "unevenids/b.txt": b"0 2 1",
    "raw/a_0.bin": bytes(16),
    "raw/b_0.bin": bytes(16),
    "unevenraw/a_0.bin": bytes(16),
    "unevenraw/b_0.bin": bytes(8),
    "bad.txt": b"a.jpg 1\nb.jpg one\n",
    "double.txt": b"a.jpg 1\na.jpg 0\n",
    "alike.txt": b"a.jpg 1\na.png 0\n",
    "latin.txt": b"\xe4.jpg 1\n",
    "high.json": b'{"a.jpg": 9, "b.jpg": 1}',
    "text.json": b'{"a.jpg": "1"}',
    "list.json": b"[1]",
    "no.json": b"{",
    "no.npy": b"text",
}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("score-results texts good.txt", "labels have no 'c', which is the picture of texts/c_1.txt"),
        ("score-results two good.txt", "two/a_1.txt and two/a_2.txt are both results of 'a'; allowed is one"),
        ("score-results uneven good.txt", "uneven/b.txt has 3 scores; allowed are as many as in others, 2"),
        ("score-results lines good.txt", "lines/a.txt has 2 lines of scores; allowed is one, of one picture"),
        ("score-results words good.txt", "words/a.txt has something else than numbers: could not convert"),
        ("score-results binary good.txt", "binary/a.txt is no text"),
        ("score-results narrow good.txt", "narrow/a.txt has 1 scores, and its picture is of class 1"),
        ("score-results lines good.txt --classes 7", "lines/a.txt has 2 lines of scores"),
        ("score-results uneven good.txt --classes 7", "a picture has 2 scores; allowed are 7, or one more"),
        ("score-results raw good.txt", "raw has no .txt file; allowed is a folder of results"),
        ("score-results none good.txt", "none has no .txt file; allowed is a folder of results"),
        (
            "score-results texts bad.txt",
            "line 2 of labels file bad.txt is 'b.jpg one'; allowed is name and class",
        ),
        (
            "score-results texts double.txt",
            "line 2 of labels file double.txt is 'a.jpg 0', and one before says",
        ),
        ("score-results texts alike.txt", "labels file alike.txt has 'a' as class 1 and 0; allowed is one"),
        ("score-results texts latin.txt", "labels file latin.txt is not UTF-8 text"),
        ("score-results texts text.json", "labels file text.json is no object of names and classes"),
        ("score-results texts list.json", "labels file list.json is no object of names and classes"),
        ("score-results texts no.json", "labels file no.json is no JSON"),
        ("score-results texts none.txt", "No such file or directory: 'none.txt'"),
        ("score-results ids good.txt --ids", "--ids needs --classes, which best classes do not tell"),
        (
            "score-results ids good.txt --ids --classes 3",
            "ids/a.txt holds '0 0 1'; allowed are different classes",
        ),
        ("score-results unevenids good.txt --ids --classes 2", "unevenids/a.txt holds '0 2'; allowed are"),
        (
            "score-results unevenids good.txt --ids --classes 3",
            "unevenids/b.txt has 3 classes; allowed are as many",
        ),
        ("score-raw texts good.txt", "texts has no .bin file; allowed is a folder of results"),
        (
            "score-raw unevenraw good.txt",
            "unevenraw/b_0.bin has 8 bytes; allowed are as many as in a_0.bin, 16",
        ),
        (
            "score-raw raw good.txt",
            "results have 16 bytes for 1 pictures of classes up to 1: scores of a picture",
        ),
        ("score-raw raw good.txt --classes 5", "could be none; allowed is what the type"),
        ("score-raw raw high.json", "could be none"),
        ("score-raw raw flat.npy", "labels file flat.npy holds no whole numbers by batch and place in it"),
        ("score-raw raw empty.npy", "labels file empty.npy has no classes, or negative ones"),
        (
            "score-raw raw three.npy",
            "results are 2 files, from a_0.bin to b_0.bin; allowed are those of the 3",
        ),
        ("score-raw raw no.npy", "labels file no.npy is no array of numbers"),
    ],
)
def test_what_cannot_be_judged_is_told(
    words: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    for name, shape in {"flat": (2,), "three": (3, 1), "empty": (0, 1)}.items():
        np.save(f"{name}.npy", np.zeros(shape, np.int32))
    assert main(words.split()) == 2
    assert sentence in capsys.readouterr().err


def test_the_highest_class_may_not_be_beyond_the_scores_behind_that_of_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    np.zeros(11, np.float32).tofile(tmp_path / "results/a.bin")
    (tmp_path / "labels.txt").write_text("a.jpg 10\n")
    words = ["score-raw", str(tmp_path / "results"), str(tmp_path / "labels.txt"), "--classes", "10"]
    assert main(words) == 2
    assert "results have 11 scores a picture, and labels class 10" in capsys.readouterr().err
