"""Decides the next batch: rows waiting, gears of the artifact -> rows to take, gear to run. A pure function."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many rows go into the next batch, and the batch size that the engine runs them at."""

    rows: int
    gear: int


def next_batch(waiting: int, gears: Sequence[int] | None, max_rows: int) -> Plan:
    """Take as much as fits, at the smallest gear that holds it; without gears every size runs as it is."""
    if gears is None:
        rows = min(waiting, max_rows)
        return Plan(rows=rows, gear=rows)
    rows = min(waiting, max(gears))
    return Plan(rows=rows, gear=min(gear for gear in gears if gear >= rows))
