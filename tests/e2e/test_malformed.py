"""Damaged pictures by the thousand: each is answered, nothing grows, nobody waits."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from PIL import Image

from patience import PATIENCE_S
from pictures import encoded, photo
from serving import RunningServer

pytestmark = pytest.mark.e2e

BODIES = 1000
MIB = 1024 * 1024


def damaged(count: int, seed: int) -> Iterator[bytes]:
    """Truncate pictures, flip their bits, or both."""
    rng = random.Random(seed)
    forms: list[tuple[str, dict[str, object]]] = [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
    ]
    originals = [encoded(photo(seed=n), form, **options) for n, (form, options) in enumerate(forms)]
    for _ in range(count):
        body = bytearray(rng.choice(originals))
        if rng.random() < 0.5:
            del body[rng.randrange(len(body)) :]
        for _ in range(rng.choice((0, 1, 10, 100)) if body else 0):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        yield bytes(body)


def memory(server: RunningServer) -> int:
    process = psutil.Process(server.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children()))


def test_a_thousand_damaged_pictures_are_all_answered_in_steady_memory(
    start: Callable[..., RunningServer],
) -> None:
    server = start()
    answers: Counter[int] = Counter()
    slowest = 0.0
    with httpx.Client(base_url=server.rest, timeout=PATIENCE_S) as client:

        def send(count: int, seed: int) -> None:
            nonlocal slowest
            for body in damaged(count, seed):
                began = time.monotonic()
                response = client.post("/v1/models/sknet50/classify", content=body)
                slowest = max(slowest, time.monotonic() - began)
                answers[response.status_code] += 1
                if response.status_code != 200:
                    assert response.json().keys() == {"error", "code", "request_id"}

        send(BODIES, seed=1)
        settled = memory(server)
        send(BODIES, seed=2)
        grown = memory(server) - settled

    assert answers.keys() <= {200, 400, 413, 415}, answers
    assert answers[200] > 0 < answers[400]
    assert slowest < 30, "no single picture may keep a thread"
    assert grown < 16 * MIB, f"grown by {grown / MIB:.1f} MiB"
    assert not [line for line in server.log if line["event"] in ("unforeseen_error", "engine_restart")]


def test_the_memory_of_large_pictures_is_given_back(start: Callable[..., RunningServer]) -> None:
    server = start()
    large = encoded(photo(200, 200).resize((6000, 6000), Image.Resampling.NEAREST).convert("RGBA"), "PNG")
    with httpx.Client(base_url=server.rest, timeout=PATIENCE_S) as client:
        assert client.post("/v1/models/sknet50/classify", content=encoded(photo())).status_code == 200
        before = memory(server)
        for _ in range(4):
            assert client.post("/v1/models/sknet50/classify", content=large).status_code == 200
        grown = memory(server) - before
    assert grown < 64 * MIB, f"grown by {grown / MIB:.1f} MiB; one decoded picture takes 137"
