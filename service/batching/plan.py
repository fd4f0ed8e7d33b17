"""Decides the next batch: tuning, waiting rows with their deadlines, now -> a gear, or to hold. Pure functions."""

from dataclasses import dataclass
from enum import StrEnum
from operator import ge
from typing import Protocol, TypeAlias

from service.batching.control import HOLD
from service.batching.tuning import ROUNDING_S, Tuning


class Reason(StrEnum):
    """Why a batch was run as it was."""

    FULL = "full"  # at least as many rows waited as the gear takes
    IDLE = "idle"  # the device was free, and nothing was worth waiting for
    HELD = "held"  # a further row was waited for, as long as was worth it
    DEADLINE = "deadline"  # another gear than usual, to keep what was promised


@dataclass(frozen=True, slots=True)
class Run:
    """Run the next rows at this gear; fewer rows than that are padded."""

    gear: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for one more row, until this moment at the latest."""

    until: float


Plan: TypeAlias = Run | Hold


class Waiting(Protocol):
    """What the plan needs to know of the line."""

    @property
    def rows(self) -> int:
        """How many rows wait."""

    def most_urgent(self, first: int, others: int) -> list[float]:
        """Tell the earliest deadline in each batch: the first of so many rows, and others."""


def plan(tuning: Tuning, line: Waiting, now: float, *, has_held: bool) -> Plan:
    """Decide for a device that is free while rows wait.

    The control limits decide, unless a promise would be broken: what is left must be through in time by the main
    gear alone. Then another gear may keep the promises, a smaller one before a larger.
    """
    rows = line.rows
    if tuning.is_plain and rows >= len(tuning.limits.gears):
        return Run(tuning.main, Reason.FULL)
    wanted = tuning.limits.gear(rows, may_hold=not has_held)
    if wanted == HOLD:
        until = min(now + tuning.hold_s, _latest(tuning, line))
        if until > now:
            return Hold(until)
        wanted = tuning.limits.gear(rows, may_hold=False)
    if wanted == tuning.main and rows > tuning.curve.gears[-1]:
        return Run(wanted, Reason.FULL)
    for gear in sorted(tuning.curve.gears, key=lambda gear: (gear > wanted, abs(gear - wanted))):
        if _is_kept(tuning, line, now + tuning.curve.usual_s(gear), batch=gear):
            return Run(gear, _reason(gear, wanted, rows, has_held=has_held))
    return Run(wanted, _reason(wanted, wanted, rows, has_held=has_held))


def _reason(gear: int, wanted: int, rows: int, *, has_held: bool) -> Reason:
    if gear != wanted:
        return Reason.DEADLINE
    if has_held:
        return Reason.HELD
    return Reason.FULL if gear <= rows else Reason.IDLE


def _latest(tuning: Tuning, line: Waiting) -> float:
    """Tell until when the main gear may begin and have all in time."""
    _, *deadlines = line.most_urgent(0, tuning.main)
    ends = tuning.ends_s(0.0, len(deadlines))
    return min(deadline - end for deadline, end in zip(deadlines, ends, strict=True))


def _is_kept(tuning: Tuning, line: Waiting, free_at: float, *, batch: int) -> bool:
    """Tell whether the next `batch` rows are in time at `free_at`, and the others by the main gear from then on."""
    free_at -= ROUNDING_S
    first, *rest = line.most_urgent(batch, tuning.main)
    if first < free_at:
        return False
    return not rest or all(map(ge, rest, tuning.ends_s(free_at, len(rest))))
