"""Tells of a curve what a person would ask: curve and tuning -> the fields of a Profile."""

from typing import Any

from service.batching import Demanded, Envelope, Tuning
from service.engines import Curve

_MS = 1000


def profile_of(curve: Curve, demanded: Demanded, tuning: Tuning) -> dict[str, Any]:
    """List each gear with its times, and the batches that would do the same in the least time."""
    envelope = Envelope.of(curve)
    used = envelope.gears
    gears = [
        {
            "gear": gear,
            "p50_ms": _rounded(_MS * time.p50_s),
            "p99_ms": _rounded(_MS * time.p99_s),
            "images_per_s": _rounded(gear / time.p50_s),
            "least_ms": _rounded(_MS * envelope.costs_s[gear]),
            "best_batches": sorted(envelope.batches(gear), reverse=True),
            "is_used": gear in used,
        }
        for gear, time in curve.times.items()
    ]
    return {
        "gears": gears,
        "images_per_s": _rounded(demanded.rate),
        "deadline_ms": _rounded(_MS * demanded.deadline_s),
        "main_gear": tuning.main,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
