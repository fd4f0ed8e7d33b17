"""How many rows a second arrive, and how soon they are wanted: what a queue is tuned to."""

import math
from collections import deque

_MEMORY_S = 1.0  # an arrival counts half after 0.7 of this
_SHORTEST_S = 0.2  # nothing is concluded from less
_DEADLINES = 128
_ROUNDING_S = 1e-9
_HASTY_SHARE = 0.1  # the tuning suits all but this share of the deadlines


class Demand:
    """Keeps a moving estimate of the arrivals; those that are refused count as well."""

    def __init__(self, now: float) -> None:
        self._began = self._last = now
        self._count = 0.0
        self._deadlines: deque[float] = deque(maxlen=_DEADLINES)

    @property
    def is_unknown(self) -> bool:
        """Tell whether nobody has come yet."""
        return not self._deadlines

    @property
    def is_uniform(self) -> bool:
        """Tell whether all want to be answered equally soon, but for an error of rounding."""
        return bool(self._deadlines) and max(self._deadlines) - min(self._deadlines) < _ROUNDING_S

    def arrived(self, rows: int, deadline_s: float, now: float) -> None:
        """Count rows that are to be answered within `deadline_s`."""
        self._count = self._count * math.exp((self._last - now) / _MEMORY_S) + rows
        self._last = now
        self._deadlines.append(deadline_s)

    def rate(self, now: float) -> float:
        """Tell the rows a second of the last moments."""
        seen_s = max(_SHORTEST_S, now - self._began)
        kept = self._count * math.exp((self._last - now) / _MEMORY_S)
        return kept / (_MEMORY_S * (1 - math.exp(-seen_s / _MEMORY_S)))

    def deadline_s(self) -> float:
        """Tell how soon nearly all want to be answered; infinity if nobody has come."""
        if not self._deadlines:
            return math.inf
        return sorted(self._deadlines)[int(len(self._deadlines) * _HASTY_SHARE)]
