"""A repository of one model, whose engines the test holds."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

from gated import LABELS, GatedEngine, queue_over
from service.metrics import Metrics
from service.repository import load_bundle
from serving import UNTRAINED

BUNDLE = load_bundle(UNTRAINED / "sknet50" / "1")


class Shelf:
    """A repository of one model, whose engine the test holds."""

    slots: tuple[()] = ()

    def __init__(self, engines: Sequence[GatedEngine], metrics: Metrics) -> None:
        self.queue = queue_over(engines, metrics, side=BUNDLE.manifest.input_size)
        self._model = SimpleNamespace(
            name=LABELS[0],
            version=LABELS[1],
            bundle=BUNDLE,
            queue=self.queue,
        )

    def slot(self, _model: str, _version: str | None) -> SimpleNamespace:
        return SimpleNamespace(model=LABELS[0], version=LABELS[1])

    def find(self, _model: str, _version: str | None) -> SimpleNamespace:
        return self._model

    def number_in(self, score: float) -> int:
        """Tell which picture has this score: the engine answers its number and the negative of it."""
        return round(BUNDLE.manifest.temperature * math.log(score / (1 - score)) / 2)
