"""Clients that press a server: threads, each with requests one after the other, noting every outcome."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from patience import PATIENCE_S
from service.client import CardinalError, Client

NO_ANSWER = "no answer"


@dataclass
class Outcome:
    """How one request ended."""

    began: float
    ended: float
    code: str  # OK, the code of an error, "refused" (never connected) or "no answer" (connection lost)
    says: str = ""


@dataclass
class Load:
    """All outcomes so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def since(self, moment: float) -> list[Outcome]:
        return [outcome for outcome in list(self.outcomes) if outcome.began >= moment]


class OverRest:
    """Classifies once for each call and tells code and sentence."""

    def __init__(self, base: str, model: str, image: bytes, *, keep_alive: bool) -> None:
        self._client = httpx.Client(base_url=base, timeout=PATIENCE_S)
        self._url, self._image, self._keep_alive = f"/v1/models/{model}/classify", image, keep_alive

    def close(self) -> None:
        self._client.close()

    def __call__(self) -> tuple[str, str]:
        headers = {} if self._keep_alive else {"connection": "close"}
        try:
            response = self._client.post(self._url, content=self._image, headers=headers)
        except httpx.ConnectError as error:
            return "refused", str(error)
        except httpx.TransportError as error:
            return NO_ANSWER, repr(error)
        body = response.json()
        return ("OK", "") if response.status_code == 200 else (body["code"], body["error"])


class OverGrpc:
    """The same by gRPC."""

    def __init__(self, address: str, model: str, image: bytes) -> None:
        self._client, self._model, self._image = Client(address), model, image

    def close(self) -> None:
        self._client.close()

    def __call__(self) -> tuple[str, str]:
        try:
            self._client.classify(self._image, model=self._model)
        except CardinalError as error:
            # gRPC's own word, not the server's: the call never reached it.
            return ("refused" if error.code == "UNAVAILABLE" else error.code), str(error)
        return "OK", ""


@contextmanager
def pressed(workers: Sequence[OverRest | OverGrpc]) -> Iterator[Load]:
    """Run the workers in a loop each while the block runs, or until they are refused a connection."""
    load = Load()

    def work(classify: OverRest | OverGrpc) -> None:
        while not load.ended.is_set():
            began = time.monotonic()
            code, says = classify()
            load.outcomes.append(Outcome(began, time.monotonic(), code, says))
            if code == "refused":
                return

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.ended.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        for worker in workers:
            worker.close()
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
