import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from models.cli import main
from models.errors import InvalidValueError, TransferFailedError
from models.storage import Mirror, cache_folder, drafted_at, fetched
from storages import Faulty, fill, held

FILES = {
    f"{kind}/{index}.bin": bytes([index]) * (100 + index) for kind in ("cat", "dog") for index in range(20)
}


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Serve S3 on a free port, and return a bucket's URL.

    There is one server for a process, since fsspec remembers its address that long, and moto the bucket.
    """
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a place in which nothing is yet."""
    if request.param == "file":
        return f"file://{tmp_path}/storage"
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://"
    return f"{root}/{uuid4().hex}"


def _files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


# Fetching


def test_a_path_is_no_url_and_stays_as_it_is(tmp_path: Path) -> None:
    assert fetched("/data/cifar10", tmp_path) == Path("/data/cifar10")
    assert fetched("data", tmp_path) == Path("data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_arrives_as_it_is(url: str, tmp_path: Path) -> None:
    copy = fetched(fill(url, FILES), tmp_path / "cache")
    assert _files(copy) == FILES
    assert copy.name.endswith(url.rpartition("/")[2])


def test_a_single_file_arrives_as_a_file(url: str, tmp_path: Path) -> None:
    fill(url, FILES)
    copy = fetched(f"{url}/cat/7.bin", tmp_path / "cache")
    assert copy.read_bytes() == FILES["cat/7.bin"]
    assert copy.suffix == ".bin"


def test_a_copy_is_fetched_once_and_each_url_has_its_own(tmp_path: Path) -> None:
    Faulty.reset()
    one, other = (fill(f"faulty://{uuid4().hex}/data", {"a": b"1"}) for _ in range(2))
    assert fetched(one, tmp_path) == fetched(one, tmp_path)
    assert len(Faulty.transfers) == 1
    assert fetched(other, tmp_path) != fetched(one, tmp_path)


def test_processes_that_ask_together_fetch_once(tmp_path: Path) -> None:
    Faulty.reset()
    url = fill(f"faulty://{uuid4().hex}", FILES)
    with ThreadPoolExecutor(4) as threads:
        copies = set(threads.map(lambda _: fetched(url, tmp_path), range(4)))
    assert len(copies) == 1
    assert len(Faulty.transfers) == len(FILES)


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_fetch_that_breaks_off_leaves_nothing_that_looks_whole(is_silent: bool, tmp_path: Path) -> None:  # noqa: FBT001
    url = fill(f"faulty://{uuid4().hex}", FILES)
    Faulty.reset(breaks_at=5, is_silent=is_silent)
    with pytest.raises(TransferFailedError) as failure:
        fetched(url, tmp_path)
    reason = r"50 of its 1\d\d bytes arrived" if is_silent else "the other side is gone"
    assert re.fullmatch(
        rf"{url}/(cat|dog)/\d+\.bin could not be fetched: {reason}; what arrived is kept in {tmp_path}/\.\S+,"
        " and the next try goes on from there",
        str(failure.value),
    )
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_the_next_try_goes_on_where_the_last_one_broke_off(tmp_path: Path) -> None:
    url = fill(f"faulty://{uuid4().hex}", FILES | {"cat/renamed later": b"1"})
    Faulty.reset(breaks_at=5)
    with pytest.raises(TransferFailedError):
        fetched(url, tmp_path)
    storage, root = fsspec.core.url_to_fs(url)
    storage.rm_file(f"{root}/cat/renamed later")
    Faulty.reset()
    assert _files(fetched(url, tmp_path)) == FILES
    assert len(Faulty.transfers) <= len(FILES) - 3


@contextmanager
def _web(body: bytes, *, sent: int | None = None) -> Iterator[str]:
    """Serve a file over HTTP, and return its URL; only so many of its bytes are sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:sent])

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{uuid4().hex}.safetensors"
    server.shutdown()
    server.server_close()


def test_a_file_arrives_over_http_though_nothing_tells_its_size(tmp_path: Path) -> None:
    with _web(b"weights" * 1000) as url:
        copy = fetched(url, tmp_path)
    assert copy.read_bytes() == b"weights" * 1000
    assert copy.suffix == ".safetensors"


def test_a_file_that_breaks_off_over_http_is_told(tmp_path: Path) -> None:
    with (
        _web(b"weights" * 1000, sent=700) as url,
        pytest.raises(TransferFailedError, match="could not be fetched"),
    ):
        fetched(url, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_what_cannot_be_fetched_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(f"{url}/nothing holds nothing")):
        fetched(f"{url}/nothing/", tmp_path)
    with pytest.raises(InvalidValueError, match="nowhere://data cannot be used: Protocol not known: nowhere"):
        fetched("nowhere://data", tmp_path)


def test_a_bucket_that_is_not_there_is_told(s3: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidValueError, TransferFailedError), match="s3://no-such-bucket/data"):
        fetched("s3://no-such-bucket/data", tmp_path)
    assert s3


def test_an_object_cannot_leave_the_folder(tmp_path: Path) -> None:
    Faulty.reset()
    url = fill(f"faulty://{uuid4().hex}", {"../../escaped": b"1", "b": b"2"})
    storage, root = fsspec.core.url_to_fs(url)
    storage.store[f"{root}/../../escaped"] = storage.store.pop(
        next(name for name in storage.store if name.endswith("escaped"))
    )
    with pytest.raises(
        InvalidValueError, match=re.escape("holds '../../escaped'; allowed are names without '..'")
    ):
        fetched(url, tmp_path / "cache")


def test_the_folder_for_copies_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDINAL_CACHE_FOLDER", "/large/disk")
    assert cache_folder() == Path("/large/disk")
    monkeypatch.delenv("CARDINAL_CACHE_FOLDER")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/caches")
    assert cache_folder() == Path("/home/me/caches/cardinal")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/cardinal")


# Mirroring


def _run_folder(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "log.jsonl").write_bytes(b"1\n")
    (folder / "checkpoints/0001-000000.safetensors").write_bytes(b"one" * 40)
    (folder / "checkpoints/best.safetensors").symlink_to("0001-000000.safetensors")
    (folder / "checkpoints/.0002.safetensors.unfinished").write_bytes(b"?")
    return folder


def test_a_mirror_holds_what_the_folder_holds(url: str, tmp_path: Path) -> None:
    folder, mirror = _run_folder(tmp_path / "run"), Mirror(url)
    mirror.send(folder)
    one = {"checkpoints/0001-000000.safetensors": b"one" * 40, "checkpoints/best.safetensors": b"one" * 40}
    assert held(url) == {"log.jsonl": b"1\n", **one}
    (folder / "log.jsonl").write_bytes(b"1\n2\n")
    (folder / "checkpoints/0002-000000.safetensors").write_bytes(b"two" * 40)
    (folder / "checkpoints/best.safetensors").unlink()
    (folder / "checkpoints/best.safetensors").symlink_to("0002-000000.safetensors")
    (folder / "checkpoints/0001-000000.safetensors").unlink()
    mirror.send(folder)
    two = {name.replace("0001", "0002"): b"two" * 40 for name in one}
    assert held(url) == {"log.jsonl": b"1\n2\n", **two}


def test_a_mirror_sends_what_changed_and_leaves_what_others_sent(tmp_path: Path) -> None:
    Faulty.reset()
    url = fill(f"faulty://{uuid4().hex}", {"notes.txt": b"mine"})
    folder, mirror = _run_folder(tmp_path / "run"), Mirror(url)
    mirror.send(folder)
    Faulty.reset()
    (folder / "log.jsonl").write_bytes(b"1\n2\n")
    mirror.send(folder)
    assert [name.rpartition("/")[2] for name in Faulty.transfers] == ["log.jsonl.part"]
    assert held(url)["notes.txt"] == b"mine"


def test_what_a_mirror_could_not_send_it_sends_next_time(tmp_path: Path) -> None:
    url = f"faulty://{uuid4().hex}"
    folder, mirror = _run_folder(tmp_path / "run"), Mirror(url)
    Faulty.reset(breaks_at=2)
    sentence = f"{url}/checkpoints/best.safetensors could not be sent: the other side is gone"
    with pytest.raises(TransferFailedError, match=re.escape(sentence)):
        mirror.send(folder)
    assert "checkpoints/best.safetensors" not in held(url)
    Faulty.reset()
    mirror.send(folder)
    assert held(url)["checkpoints/best.safetensors"] == b"one" * 40
    assert len(Faulty.transfers) == 2


# Publishing


def test_versions_at_a_url_are_numbered_and_their_manifest_comes_last() -> None:
    Faulty.reset()
    url = f"faulty://{uuid4().hex}"
    for number in (1, 2):
        with drafted_at(url, "cats") as draft:
            for name in ("model.json", "model.onnx", "labels.txt"):
                (draft.folder / name).write_bytes(name.encode())
        assert held(f"{url}/cats/{number}")["model.onnx"] == b"model.onnx"
    assert [name.rpartition("/")[2] for name in Faulty.transfers[:3]] == [
        "labels.txt.part",
        "model.onnx.part",
        "model.json.part",
    ]
    with (
        pytest.raises(InvalidValueError, match="version 2 of cats exists already"),
        drafted_at(url, "cats", 2),
    ):
        pass


def test_a_bundle_is_published_to_s3(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["publish", "--network", "sknet50", "--untrained", "--width", "0.0625", "--input-size", "32"]
    words += ["--lite-gears", "none", "--golden", "onnx", "--repository"]
    assert main([*words, f"{s3}/models"]) == 0
    assert capsys.readouterr().out.startswith(f"published {s3}/models/sknet50/1: sknet50, untrained")
    copy = fetched(f"{s3}/models/sknet50/1", tmp_path)
    manifest = json.loads((copy / "model.json").read_text())
    for file in (manifest["labels"], *manifest["artifacts"], *manifest["golden"]["samples"]):
        assert hashlib.sha256((copy / file["file"]).read_bytes()).hexdigest() == file["sha256"]
