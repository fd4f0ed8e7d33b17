"""Count how often a served model is right: pictures -> requests over HTTP -> Evaluation, as `evaluate` counts.

The server decodes and preprocesses: it gets the files of the dataset as they are, or where there are none, PNGs.
"""

import http.client
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.training.datasets import Dataset
from models.training.evaluation import MANY, Evaluation
from models.training.learner import Labels

_TIMEOUT_S = 120.0
_PATIENCE = 100  # refusals in a row of one picture
_LONGEST_WAIT_S = 10.0  # at once: what a server asks for may be over sooner
_OK, _BUSY = 200, (429, 503)
_ATTEMPTS = 2  # on a connection that the server has ended, which it may do between two requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where a model is served."""

    url: str
    model: str
    version: str | None = None
    connections: int = 4

    def __post_init__(self) -> None:
        if not _is_of_server(self.url):
            raise InvalidValueError(f"url is {self.url!r}; allowed is one such as http://127.0.0.1:8000")
        if self.connections < 1:
            raise InvalidValueError(f"connections is {self.connections}; allowed is at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that is ready at a service: the version that answers, on which engine, its network and its labels."""

    service: Service
    engine: str
    network: str
    labels: tuple[str, ...]


def _is_of_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port or an address that is none
        return False


def find_served(service: Service) -> ServedModel:
    """Return the model that is served; raises InvalidValueError where none is, or nothing can be reached."""
    connection = _Connection(service, threading.Event())
    try:
        about = connection.describe()
    finally:
        connection.close()
    if not about["ready"]:
        raise InvalidValueError(f"{service.url} does not serve {service.model}: {about['reason']}")
    pinned = replace(service, version=about["version"])  # a newer one may appear while it is evaluated
    return ServedModel(
        service=pinned, engine=about["engine"], network=about["network"], labels=tuple(about["labels"])
    )


def evaluate_served(model: ServedModel, dataset: Dataset) -> Evaluation:
    """Have a server classify every picture once, over several connections; what it puts off is asked again.

    The loss is NaN: a server answers scores of the best classes alone. Raises InvalidValueError for other classes
    than the dataset has, for a picture that is refused, and where the server is gone.
    """
    if not len(dataset):
        raise InvalidValueError("evaluation has 0 pictures; allowed is at least 1")
    service = model.service
    _check_classes(model, dataset.names)
    best = np.full((len(dataset), MANY), -1, np.int64)
    stopped = threading.Event()
    with ThreadPoolExecutor(service.connections, thread_name_prefix="served") as pool:
        askers = [
            pool.submit(
                _ask_all, service, dataset, range(first, len(dataset), service.connections), best, stopped
            )
            for first in range(service.connections)
        ]
        try:
            for asker in askers:
                asker.result()
        finally:
            stopped.set()  # of an interruption no asker knows
    return _counted(best, dataset.labels, len(dataset.names))


def _counted(best: NDArray[np.int64], labels: Labels, classes: int) -> Evaluation:
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, best[:, 0]), 1)
    is_right = best == labels[:, np.newaxis]
    return Evaluation(
        n=len(labels),
        top1=float(is_right[:, 0].sum()) / len(labels),
        top5=float(is_right.any(axis=1).sum()) / len(labels),
        loss=float("nan"),
        confusion=confusion,
    )


def _ask_all(
    service: Service, dataset: Dataset, indices: range, best: NDArray[np.int64], stopped: threading.Event
) -> None:
    """Fill in the best classes of some pictures, over a connection of its own; the first fault ends all."""
    connection = _Connection(service, stopped)
    try:
        for index in indices:
            if stopped.is_set():
                return
            classes = connection.classify(_file(dataset, index), f"picture {index}")
            best[index, : len(classes)] = classes
    except BaseException:
        stopped.set()
        raise
    finally:
        connection.close()


def _file(dataset: Dataset, index: int) -> bytes:
    own = dataset.encoded(index)
    if own is not None:
        return own
    file = io.BytesIO()
    dataset.picture(index).save(file, "PNG")
    return file.getvalue()


class _Connection:
    """A connection that is kept, and made anew where it was lost."""

    def __init__(self, service: Service, stopped: threading.Event) -> None:
        parts = urlsplit(service.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = kind(str(parts.hostname), parts.port, timeout=_TIMEOUT_S)
        version = f"/versions/{quote(service.version, safe='')}" if service.version else ""
        self._path = f"{parts.path.rstrip('/')}/v1/models/{quote(service.model, safe='')}{version}"
        self._url, self._stopped = service.url, stopped

    def describe(self) -> dict[str, Any]:
        """Return what the server says of the model."""
        status, _, body = self._request("GET", self._path)
        if status != _OK:
            raise InvalidValueError(f"{self._url} says: {_sentence(body, status)}")
        described: dict[str, Any] = _parsed(body, self._url)
        if not isinstance(described, dict) or "ready" not in described:
            raise InvalidValueError(f"{self._url} describes no model; allowed is the REST port of a server")
        return described

    def classify(self, file: bytes, name: str) -> list[int]:
        """Return the best classes of a picture, waiting as long as the server asks to."""
        for _ in range(_PATIENCE):
            status, retry_after_s, body = self._request("POST", f"{self._path}/classify?top_k={MANY}", file)
            if status == _OK:
                (result,) = _parsed(body, self._url)["results"]
                return [entry["index"] for entry in result["classes"]]
            if status not in _BUSY:
                break
            if self._stopped.wait(min(retry_after_s, _LONGEST_WAIT_S)):
                return []  # another connection has met the fault that is told
        raise InvalidValueError(f"{self._url} refuses {name}: {_sentence(body, status)}")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, float, bytes]:
        """Return status, how long to wait, and body."""
        headers = {"X-Priority": "low", "Content-Type": "application/octet-stream"}
        for attempt in range(_ATTEMPTS):
            try:
                self._http.request(method, path, body, headers)
                answer = self._http.getresponse()
                wait = answer.headers.get("Retry-After", "")
                return answer.status, float(wait) if wait.isdecimal() else 1.0, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._http.close()
                if attempt + 1 == _ATTEMPTS:
                    raise InvalidValueError(f"{self._url} cannot be reached: {error!r}") from error
        raise AssertionError  # the last attempt returns or raises


def _check_classes(model: ServedModel, names: tuple[str, ...]) -> None:
    where, labels = f"{model.service.model} at {model.service.url}", model.labels
    if len(labels) != len(names):
        raise InvalidValueError(
            f"{where} has {len(labels)} classes and the dataset {len(names)}; allowed are as many"
        )
    if labels != names and set(labels) == set(names):
        raise InvalidValueError(
            f"{where} has the classes of the dataset in another order:"
            f" {', '.join(labels[:MANY])} and not {', '.join(names[:MANY])}"
        )


def _parsed(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise InvalidValueError(f"{url} answers no JSON: {body[:60]!r}") from error


def _sentence(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
