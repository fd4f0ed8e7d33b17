import gc
import os
import tracemalloc

import numpy as np
import pytest

from service.cache import Answer, AnswerCache
from service.metrics import Metrics

LABELS = ("cats", "3")


def answer_of(number: int, classes: int = 10) -> Answer:
    logits = np.arange(number, number + classes, dtype=np.float32)
    return Answer(logits=logits, engine=f"engine {number}")


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "little")


def cache_of(max_bytes: int) -> tuple[AnswerCache, Metrics]:
    metrics = Metrics()
    return AnswerCache(max_bytes=max_bytes, metrics=metrics), metrics


def held_bytes(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("cardinal_cache_bytes")
    assert value is not None
    return value


def test_an_answer_comes_back_as_it_was_put() -> None:
    cache, _ = cache_of(10_000)
    for number in range(3):
        cache.put(key_of(number), answer_of(number))
    for number in range(3):
        found = cache.get(key_of(number), LABELS)
        assert found is not None
        assert found.logits.dtype == np.float32
        assert found.logits.tolist() == answer_of(number).logits.tolist()
        assert found.engine == f"engine {number}"
    assert cache.get(key_of(3), LABELS) is None


def test_the_answer_that_was_not_asked_for_the_longest_goes_first() -> None:
    cache, metrics = cache_of(10_000)
    cache.put(key_of(0), answer_of(0))
    cost = held_bytes(metrics)
    cache, metrics = cache_of(int(3 * cost))
    for number in range(3):
        cache.put(key_of(number), answer_of(number))
    assert cache.get(key_of(0), LABELS) is not None
    cache.put(key_of(3), answer_of(3))
    assert [number for number in range(4) if cache.get(key_of(number), LABELS) is not None] == [0, 2, 3]
    assert metrics.registry.get_sample_value("cardinal_cache_evictions_total") == 1


@pytest.mark.parametrize("classes", [10, 1000])
def test_no_more_memory_is_held_than_counted(classes: int) -> None:
    limit = 2_000_000
    batch = np.zeros((64, classes), np.float32)  # of which each answer is a view
    cache, metrics = cache_of(limit)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            cache.put(os.urandom(32), Answer(logits=batch[number % 64], engine="one"))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    counted = held_bytes(metrics)
    assert 0.97 * limit < counted <= limit
    assert 0.7 * counted < held <= counted


def test_without_memory_nothing_is_kept_or_counted() -> None:
    cache, metrics = cache_of(0)
    cache.put(key_of(0), answer_of(0))
    assert cache.get(key_of(0), LABELS) is None
    assert held_bytes(metrics) == 0
    names = {"model": LABELS[0], "version": LABELS[1]}
    assert metrics.registry.get_sample_value("cardinal_cache_misses_total", names) is None


def test_an_answer_larger_than_the_cache_drives_nobody_out() -> None:
    cache, _ = cache_of(1000)
    cache.put(key_of(0), answer_of(0))
    cache.put(key_of(1), answer_of(1, classes=1000))
    assert cache.get(key_of(0), LABELS) is not None
    assert cache.get(key_of(1), LABELS) is None


def test_an_answer_that_is_put_twice_is_held_once() -> None:
    cache, metrics = cache_of(1000)
    cache.put(key_of(0), answer_of(0))
    once = held_bytes(metrics)
    cache.put(key_of(0), answer_of(0))
    assert held_bytes(metrics) == once
