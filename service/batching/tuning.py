"""How a queue decides and what it promises: the mode that is in force, as the plan reads it. Pure data."""

import math
from dataclasses import dataclass

from service.batching.control import ControlLimits
from service.engines.curve import Curve

ROUNDING_S = 1e-9  # no deadline is missed by less: sums of floats are not more exact


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a queue decides: the gear for each number of waiting rows, and when each place will be through."""

    curve: Curve  # of the gears that may run
    limits: ControlLimits
    main: int  # the gear that promises are made by
    hold_s: float  # the longest that a free device waits for one more row
    has_joining: bool = False  # whether promises are also made by one batch for all who wait

    def finish_s(self, place: int, gear: int) -> float:
        """Tell when the row at this place, from 1, is through if only one gear runs from a moment on.

        Nobody who comes later can change that. Slow batches are not all slow at once: what they take beyond the
        usual adds up as spreads of independent times do.
        """
        batches = -(-place // gear)
        time = self.curve.times[gear]
        return batches * time.p50_s + math.sqrt(batches) * time.spread_s

    @property
    def row_s(self) -> float:
        """Tell the device time of one row of many."""
        return min(self.curve.usual_s(gear) / gear for gear in self.curve.gears)

    @property
    def is_plain(self) -> bool:
        """Tell whether the most efficient gear makes all promises, as long lines are then run with."""
        return not self.has_joining and self.row_s == self.curve.usual_s(self.main) / self.main

    def promise_s(self, place: int) -> float:
        """Tell when the row at this place is through by the main gear, which is what a newcomer is admitted by."""
        return self.finish_s(place, self.main)

    def joined_s(self, rows: int) -> float:
        """Tell how long one batch of all these rows takes if it is slow; infinity if there is none."""
        if not self.has_joining or rows >= len(self.limits.gears):
            return math.inf
        return min((time.p99_s for gear, time in self.curve.times.items() if gear >= rows), default=math.inf)

    def ends_s(self, free_at: float, batches: int) -> list[float]:
        """Tell when each of so many batches of the main gear is through, from a moment on."""
        return [free_at + self.finish_s(batch * self.main, self.main) for batch in range(1, batches + 1)]
