"""Labels the engine's answer: logits -> scores -> the best classes. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.tensors import Logits, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClass:
    """One class with its probability as the model sees it."""

    index: int
    label: str
    score: float


def scores_of(logits: Logits, temperature: float) -> Scores:
    """Turn logits (n, classes) into probabilities, softened or sharpened by the calibration temperature."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def best_classes(scores: Scores, labels: Sequence[str], top_k: int) -> list[list[ScoredClass]]:
    """Name the `top_k` best classes of each row, best first; equal scores keep the order of their index."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [
        [ScoredClass(index=int(i), label=labels[i], score=float(row[i])) for i in best]
        for row, best in zip(scores, order, strict=True)
    ]
