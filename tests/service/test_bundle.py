import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from service.repository.bundle import BundleError, load_bundle

UNTRAINED = Path(__file__).parents[2] / "tests/untrained/sknet50/1"
LABELS = (UNTRAINED / "labels.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return shutil.copytree(UNTRAINED, tmp_path / "repository/sknet50/1")


def _rewrite(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest in place."""
    document = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    change(document)
    (directory / "model.json").write_text(json.dumps(document), encoding="utf-8")


def _declare_labels(directory: Path, content: bytes) -> None:
    """Write the label file, with the right digest."""
    (directory / "labels.txt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    _rewrite(directory, lambda document: document["labels"].update(sha256=digest))


def _fault(directory: Path) -> str:
    with pytest.raises(BundleError) as fault:
        load_bundle(directory)
    return str(fault.value)


def test_a_good_bundle_is_loaded_with_labels_and_golden_pictures(directory: Path) -> None:
    bundle = load_bundle(directory)
    assert (bundle.model, bundle.version, bundle.directory) == ("sknet50", 1, directory)
    assert list(bundle.labels) == LABELS
    assert bundle.manifest.network.name == "sknet50"
    pictures = [(UNTRAINED / f"golden/{index}.png").read_bytes() for index in range(3)]
    assert list(bundle.golden_pictures) == pictures


def test_a_bundle_cannot_be_changed(directory: Path) -> None:
    bundle = load_bundle(directory)
    with pytest.raises(FrozenInstanceError):
        bundle.version = 2  # type: ignore[misc]


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert _fault(tmp_path) == "model.json: No such file or directory"


def test_a_fault_of_the_manifest_names_file_key_and_value(directory: Path) -> None:
    _rewrite(directory, lambda document: document.update(classes=-3))
    assert _fault(directory).startswith("model.json: classes is -3: ")


FILES = ["labels.txt", "model.onnx", "golden/0.png", "golden/2.png"]


def _with_another_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one byte less": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\n",
    "one other bit": _with_another_byte,
    "nothing left": lambda _: b"",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_with_other_bytes_is_named_with_both_digests(directory: Path, name: str, damage: str) -> None:
    content = DAMAGES[damage]((directory / name).read_bytes())
    (directory / name).write_bytes(content)
    found, declared = (
        hashlib.sha256(data).hexdigest() for data in (content, (UNTRAINED / name).read_bytes())
    )
    assert _fault(directory) == f"{name}: its sha256 is {found}, but model.json says {declared}"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert _fault(directory) == f"{name}: No such file or directory, but model.json names it"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).mkdir()
    assert _fault(directory) == f"{name}: Is a directory, but model.json names it"


def test_a_name_that_is_too_long_is_refused(directory: Path) -> None:
    _rewrite(directory, lambda document: document["labels"].update(file="x" * 300))
    assert _fault(directory) == f"{'x' * 300}: File name too long, but model.json names it"


def test_a_path_that_leads_out_by_dots_is_refused(directory: Path) -> None:
    shutil.copy(UNTRAINED / "labels.txt", directory.parent / "labels.txt")
    _rewrite(directory, lambda document: document["labels"].update(file="../labels.txt"))
    assert _fault(directory).startswith("model.json: labels.file is '../labels.txt': ")


@pytest.mark.parametrize("name", [*FILES, "model.json"])
def test_a_link_that_leads_out_is_refused_even_to_the_right_bytes(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).symlink_to(UNTRAINED / name)
    assert _fault(directory) == f"{name}: leads out of the bundle, to {UNTRAINED / name}"


def test_a_folder_that_is_a_link_out_is_refused(directory: Path) -> None:
    shutil.rmtree(directory / "golden")
    (directory / "golden").symlink_to(UNTRAINED / "golden")
    assert _fault(directory).startswith("golden/0.png: leads out of the bundle, to ")


def test_a_link_to_a_folder_whose_name_begins_alike_leads_out(directory: Path) -> None:
    shutil.copytree(UNTRAINED, directory.parent / "10")
    (directory / "labels.txt").unlink()
    (directory / "labels.txt").symlink_to("../10/labels.txt")
    assert (
        _fault(directory) == f"labels.txt: leads out of the bundle, to {directory.parent / '10/labels.txt'}"
    )


@pytest.mark.parametrize("name", [*FILES, "model.json"])
def test_a_link_to_itself_is_refused(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).symlink_to((directory / name).name)
    assert _fault(directory).startswith(f"{name}: ")


def test_links_inside_the_bundle_are_followed_as_kubernetes_makes_them(directory: Path) -> None:
    hidden = directory / "..2026_01_01"
    hidden.mkdir()
    for entry in [entry for entry in directory.iterdir() if entry != hidden]:
        entry.rename(hidden / entry.name)
        entry.symlink_to(f"..data/{entry.name}")
    (directory / "..data").symlink_to(hidden.name)
    assert list(load_bundle(directory).labels) == LABELS


def test_a_bundle_may_itself_be_behind_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/7").symlink_to(directory)
    bundle = load_bundle(tmp_path / "other/7")
    assert (bundle.model, bundle.version) == ("other", 7)


# Labels


@pytest.mark.parametrize(
    ("change", "count"), [(LABELS[:-1], 9), ([*LABELS, "eleven"], 11), ([*LABELS, ""], 11)]
)
def test_labels_that_are_not_as_many_as_classes_are_refused(
    directory: Path, change: list[str], count: int
) -> None:
    _declare_labels(directory, "".join(f"{label}\n" for label in change).encode())
    assert _fault(directory) == f"labels.txt: has {count} lines, but model.json says classes 10"


def test_an_empty_label_file_is_refused(directory: Path) -> None:
    _declare_labels(directory, b"")
    assert _fault(directory) == "labels.txt: has 1 lines, but model.json says classes 10"


def test_labels_that_are_not_utf_8_are_refused(directory: Path) -> None:
    _declare_labels(directory, "\n".join(LABELS).replace("cat", "Bär").encode("latin-1"))
    assert _fault(directory).startswith("labels.txt: is not UTF-8: ")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_last_label_may_have_no_line_end(directory: Path, end: str) -> None:
    _declare_labels(directory, ("\n".join(LABELS) + end).encode())
    assert list(load_bundle(directory).labels) == LABELS


def test_labels_may_have_the_line_ends_of_windows(directory: Path) -> None:
    _declare_labels(directory, "".join(f"{label}\r\n" for label in LABELS).encode())
    assert list(load_bundle(directory).labels) == LABELS


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_line_feed_ends_a_label(directory: Path, separator: str) -> None:
    labels = [f"a{separator}b", *LABELS[1:]]
    _declare_labels(directory, "".join(f"{label}\n" for label in labels).encode())
    assert list(load_bundle(directory).labels) == labels
