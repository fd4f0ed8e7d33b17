"""The measured latency curve of an engine: gear -> how long one batch of that size takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class GearTime:
    """How long a batch at one gear takes: in the middle, and when it is slow."""

    p50_s: float
    p99_s: float

    def __post_init__(self) -> None:
        if not 0 < self.p50_s <= self.p99_s < float("inf"):
            raise ValueError(
                f"p50 is {self.p50_s} s and p99 {self.p99_s} s; allowed is 0 < p50 <= p99, finite"
            )

    @property
    def spread_s(self) -> float:
        """How much longer than usual a slow batch takes."""
        return self.p99_s - self.p50_s


@dataclass(frozen=True, slots=True)
class Curve:
    """The times of all gears, by ascending gear. Nothing is known between two gears, and nothing is guessed."""

    times: Mapping[int, GearTime]

    def __post_init__(self) -> None:
        if not self.times or min(self.times) < 1:
            raise ValueError(f"a curve has the gears {list(self.times)}; it needs one, and none below 1")
        object.__setattr__(self, "times", dict(sorted(self.times.items())))

    @classmethod
    def exact(cls, seconds: Mapping[int, float]) -> Self:
        """Make the curve of a device that takes the same time for every batch of a gear."""
        return cls({gear: GearTime(p50_s=time_s, p99_s=time_s) for gear, time_s in seconds.items()})

    def __str__(self) -> str:
        """Show it on one line, for the log."""
        return ", ".join(f"{gear}: {time.p50_s * 1000:.3g} ms" for gear, time in self.times.items())

    @property
    def gears(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(self.times)

    def usual_s(self, gear: int) -> float:
        """Tell how long a batch usually takes."""
        return self.times[gear].p50_s

    def only(self, gears: Sequence[int]) -> "Curve":
        """Leave out all other gears."""
        return Curve({gear: self.times[gear] for gear in gears})

    @property
    def most_rows_a_s(self) -> float:
        """Tell how many rows a second the most efficient gear runs."""
        return max(gear / time.p50_s for gear, time in self.times.items())
