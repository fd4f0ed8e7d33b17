import re
from pathlib import Path

import pytest

from models.errors import InvalidValueError
from models.publish import publish

FILES = {"model.json": b"{}", "golden/0.png": b"png", "golden/1.png": b"png too"}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_version_has_all_its_files_and_nothing_beside_it(tmp_path: Path) -> None:
    target = publish(FILES, repository=tmp_path / "new", model="cats", version=3)
    assert target == tmp_path / "new/cats/3"
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert _names(target) == ["golden", "model.json"]
    assert _names(target.parent) == ["3"]


def test_the_next_version_is_the_newest_plus_one(tmp_path: Path) -> None:
    assert publish(FILES, repository=tmp_path, model="cats").name == "1"
    publish(FILES, repository=tmp_path, model="cats", version=9)
    publish(FILES, repository=tmp_path, model="cats", version=2)
    (tmp_path / "cats/notes").mkdir()
    assert publish(FILES, repository=tmp_path, model="cats").name == "10"


def test_a_version_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    publish(FILES, repository=tmp_path, model="cats", version=1)
    with pytest.raises(InvalidValueError, match="version 1 of cats exists already"):
        publish({"other": b""}, repository=tmp_path, model="cats", version=1)
    assert _names(tmp_path / "cats") == ["1"]
    assert not (tmp_path / "cats/1/other").exists()


def test_a_repository_that_cannot_be_written_is_the_systems_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        publish(FILES, repository=tmp_path / "file", model="cats")


# The second file needs a folder where the first one has put a file.
BROKEN = {"golden": b"", "golden/0.png": b""}


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        publish(BROKEN, repository=tmp_path, model="cats")
    assert _names(tmp_path) == []


def test_a_failure_half_way_leaves_the_other_versions(tmp_path: Path) -> None:
    publish(FILES, repository=tmp_path, model="cats")
    with pytest.raises(FileExistsError):
        publish(BROKEN, repository=tmp_path, model="cats")
    assert _names(tmp_path / "cats") == ["1"]


@pytest.mark.parametrize("model", ["", ".hidden", "a/b", "..", "a b", "a" * 129, "cats\n"])
def test_a_model_name_that_is_no_plain_folder_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(f"model is {model!r}; allowed is")):
        publish(FILES, repository=tmp_path, model=model)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_below_1_is_refused(tmp_path: Path, version: int) -> None:
    with pytest.raises(InvalidValueError, match=f"version is {version}; allowed is at least 1"):
        publish(FILES, repository=tmp_path, model="cats", version=version)
    assert _names(tmp_path) == []
