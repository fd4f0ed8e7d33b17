"""The least device time for any number of rows, and the gears that it takes: curve -> envelope."""

from dataclasses import dataclass

from service.engines.curve import Curve

_LARGEST_GEARS = 4  # the table goes up to so many times the largest gear
_MOST_ROWS = 8192  # and no further
_A_GAIN = 1e-9  # relative; a longer way of the same cost is not taken for an error of rounding


@dataclass(frozen=True, slots=True)
class Envelope:
    """The table of the least costs: of 0, 1, 2, ... rows, the seconds and the gear of their first batch."""

    costs_s: tuple[float, ...]
    first_gears: tuple[int, ...]

    @classmethod
    def of(cls, curve: Curve) -> "Envelope":
        """Find, for each number of rows, the batches that take least time together; padding is allowed."""
        costs_s, first_gears = [0.0], [0]
        for rows in range(1, min(_MOST_ROWS, _LARGEST_GEARS * curve.gears[-1]) + 1):
            best_s, best = float("inf"), 0
            for gear in curve.gears:
                cost_s = curve.usual_s(gear) + costs_s[max(0, rows - gear)]
                if cost_s < best_s * (1 - _A_GAIN):
                    best_s, best = cost_s, gear
            costs_s.append(best_s)
            first_gears.append(best)
        return cls(tuple(costs_s), tuple(first_gears))

    @property
    def gears(self) -> tuple[int, ...]:
        """The gears that are ever worth running."""
        return tuple(sorted({gear for rows in range(1, len(self.costs_s)) for gear in self.batches(rows)}))

    def batches(self, rows: int) -> list[int]:
        """Tell the gears of the cheapest batches for so many rows."""
        gears = []
        while rows > 0:
            gears.append(self.first_gears[rows])
            rows -= gears[-1]
        return gears
