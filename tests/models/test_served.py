import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.errors import InvalidValueError
from models.pictures import decoded
from models.training.evaluation import Evaluation
from models.training.served import Service, evaluate_served, find_served

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox")


@dataclass
class Colours:
    """A dataset whose pictures tell their own index; every third one has a file, whose text tells it."""

    labels: NDArray[np.int64]
    names: tuple[str, ...] = LABELS

    def picture(self, index: int) -> Image.Image:
        return Image.new("RGB", (8, 8), (index, 0, 0))

    def encoded(self, index: int) -> bytes | None:
        return f"file {index}".encode() if index % 3 == 0 else None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Answers:
    """What the server says: the best classes of each picture, and before them refusals."""

    best: NDArray[np.int64]  # (n, 5)
    labels: tuple[str, ...] = LABELS
    is_ready: bool = True
    refusals: dict[int, list[int]] = field(default_factory=dict)  # picture -> statuses
    asked: list[tuple[int, str]] = field(default_factory=list)
    drops: set[int] = field(default_factory=set)  # pictures at which the connection is ended, once
    pause_s: float = 0.0  # before each answer
    lock: threading.Lock = field(default_factory=threading.Lock)

    def index_of(self, body: bytes) -> int:
        return int(body.split()[1]) if body.startswith(b"file") else decoded(body).getpixel((0, 0))[0]  # type: ignore[index]


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            described = {
                "version": "3",
                "ready": answers.is_ready,
                "reason": "" if answers.is_ready else "its graph is damaged",
                "engine": "openvino",
                "network": "sknet50",
                "labels": answers.labels,
            }
            if self.path == "/base/v1/models/zoo":
                self._send(200, described)
            elif self.path == "/else/v1/models/zoo":
                self._send(200, ["hello"])
            else:
                self._send(404, {"error": "there is no such model", "code": "MODEL_NOT_FOUND"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            index = answers.index_of(body)
            time.sleep(answers.pause_s)
            with answers.lock:
                answers.asked.append((index, self.path))
                is_dropped = index in answers.drops
                answers.drops.discard(index)
                refusals = answers.refusals.get(index, [])
                status = refusals.pop() if refusals else 200
            if is_dropped:
                self.close_connection = True
                return
            if status == 200:
                classes = [{"index": int(entry)} for entry in answers.best[index]]
                self._send(200, {"results": [{"classes": classes}]})
            else:
                self._send(status, {"error": f"it is refused with {status}"})

        def _send(self, status: int, document: object) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
            pass

    return Handler


@contextmanager
def _serving(answers: Answers) -> Iterator[Service]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Service(url=f"http://127.0.0.1:{server.server_port}/base", model="zoo", connections=3)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _random(n: int = 40) -> tuple[Colours, Answers]:
    rng = np.random.default_rng(0)
    best = np.stack([rng.permutation(6)[:5] for _ in range(n)])
    return Colours(rng.integers(0, 6, n)), Answers(best)


def _evaluate(dataset: Colours, answers: Answers) -> Evaluation:
    with _serving(answers) as service:
        return evaluate_served(find_served(service), dataset)


def test_every_picture_is_asked_for_once_and_counted() -> None:
    dataset, answers = _random()
    counted = _evaluate(dataset, answers)
    assert sorted(index for index, _ in answers.asked) == list(range(40))
    assert {path for _, path in answers.asked} == {"/base/v1/models/zoo/versions/3/classify?top_k=5"}
    assert counted.n == 40
    assert counted.right == (answers.best[:, 0] == dataset.labels).sum()
    assert counted.top5 == (answers.best == dataset.labels[:, np.newaxis]).any(axis=1).mean()
    expected = np.zeros((6, 6), np.int64)
    np.add.at(expected, (dataset.labels, answers.best[:, 0]), 1)
    assert np.array_equal(counted.confusion, expected)
    assert np.isnan(counted.loss)


def test_what_the_server_puts_off_is_asked_again() -> None:
    dataset, answers = _random()
    answers.refusals = {4: [429, 429], 9: [429]}
    counted = _evaluate(dataset, answers)
    assert counted.n == 40
    assert len(answers.asked) == 43


def test_a_connection_that_the_server_ends_is_made_anew() -> None:
    dataset, answers = _random()
    answers.drops = {5, 30}
    assert _evaluate(dataset, answers).n == 40
    assert len(answers.asked) == 42


def test_a_picture_that_is_refused_ends_the_evaluation() -> None:
    dataset, answers = _random(200)
    answers.refusals = {0: [429] * 50, 7: [400]}  # the first connection is still put off then
    with pytest.raises(InvalidValueError, match="refuses picture 7: it is refused with 400"):
        _evaluate(dataset, answers)
    assert len(answers.asked) < 200


def test_what_is_put_off_for_ever_is_told() -> None:
    dataset, answers = _random(3)
    answers.refusals = {1: [429] * 1000}
    with pytest.raises(InvalidValueError, match="refuses picture 1: it is refused with 429"):
        _evaluate(dataset, answers)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"is_ready": False}, "does not serve zoo: its graph is damaged"),
        ({"labels": LABELS[:5]}, "zoo at .* has 5 classes and the dataset 6; allowed are as many"),
        ({"labels": LABELS[::-1]}, "has the classes of the dataset in another order: fox, elk"),
    ],
)
def test_a_model_that_does_not_fit_is_told(change: dict[str, object], sentence: str) -> None:
    dataset, answers = _random()
    for key, value in change.items():
        setattr(answers, key, value)
    with pytest.raises(InvalidValueError, match=sentence):
        _evaluate(dataset, answers)
    assert answers.asked == []


def test_a_model_that_is_not_there_is_told() -> None:
    _, answers = _random()
    with _serving(answers) as service, pytest.raises(InvalidValueError, match="says: there is no such model"):
        find_served(Service(url=service.url, model="cats"))


def test_what_is_no_server_of_models_is_told() -> None:
    _, answers = _random()
    with _serving(answers) as service:
        elsewhere = Service(url=service.url.removesuffix("/base") + "/else", model="zoo")
        with pytest.raises(InvalidValueError, match="describes no model"):
            find_served(elsewhere)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://[::1", "ftp://127.0.0.1", "127.0.0.1:8000"]
)
def test_what_is_no_url_of_a_server_is_told(url: str) -> None:
    with pytest.raises(InvalidValueError, match=r"url is .*; allowed is one such as"):
        Service(url=url, model="zoo")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Take SIGINT as Python does, whoever started the tests: a shell has it ignored by what runs behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_asking() -> None:
    dataset, answers = _random(240)
    with _serving(answers) as service:
        served = find_served(service)
        main = threading.main_thread().ident
        interruption = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT])
        answers.pause_s = 0.02
        interruption.start()
        with pytest.raises(KeyboardInterrupt):
            evaluate_served(served, dataset)
    assert len(answers.asked) < 200


def test_a_server_that_is_not_there_is_told() -> None:
    _, answers = _random()
    with _serving(answers) as service:
        pass
    with pytest.raises(InvalidValueError, match="cannot be reached: ConnectionRefusedError"):
        find_served(service)
