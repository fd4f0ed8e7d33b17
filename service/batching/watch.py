"""Corrects a curve by what batches take while they serve: gear and seconds -> another curve, when it has moved."""

from collections import deque

from service.engines import Curve, gear_time

_WINDOW = 200  # batches of a gear that count
_LEAST = 50  # fewer of them prove nothing
_LOOK_EVERY = 25
_A_MOVE = 1.1  # smaller ones are noise
_P99_MOVE = 1.5  # the tail of so few batches is noisier


class CurveWatch:
    """Keeps the last times of each gear of one engine."""

    def __init__(self, measured: Curve) -> None:
        self.measured = measured
        self._curve = measured
        self._times: dict[int, deque[float]] = {gear: deque(maxlen=_WINDOW) for gear in measured.gears}
        self._unseen = dict.fromkeys(measured.gears, 0)

    def corrected(self, gear: int, took_s: float) -> Curve | None:
        """Count one batch; return a new curve if the times of its gear are no more what they were."""
        times = self._times[gear]
        times.append(took_s)
        self._unseen[gear] += 1
        if len(times) < _LEAST or self._unseen[gear] < _LOOK_EVERY:
            return None
        self._unseen[gear] = 0
        now = gear_time(times)
        old = self._curve.times[gear]
        if _is_near(now.p50_s, old.p50_s, _A_MOVE) and _is_near(now.p99_s, old.p99_s, _P99_MOVE):
            return None
        self._curve = Curve({**self._curve.times, gear: now})
        return self._curve


def _is_near(new_s: float, old_s: float, factor: float) -> bool:
    return old_s / factor <= new_s <= old_s * factor
