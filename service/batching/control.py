"""How many rows to run next so that the mean latency is least, for a curve and an arrival rate.

With Poisson arrivals the choice at each moment that a device is idle is a semi-Markov decision: wait for one more
row, or run a gear. Its solution is a control limit, a gear for each number of waiting rows, found here by policy
iteration (Xu, Zhou and Niu, 2023). It is exact up to the number of rows at which the line is cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

HOLD = 0  # in place of a gear: wait for one more row
_ROUNDS = 60  # policy iteration ends after a few; a limit in case rounding makes two policies take turns


@dataclass(frozen=True, slots=True)
class ControlLimits:
    """The gear to run for each number of waiting rows, and the best one when there is no time to hold."""

    gears: tuple[int, ...]  # index: rows waiting; HOLD where one more row is worth waiting for
    gears_now: tuple[int, ...]  # the same without HOLD
    latency_s: float  # the least mean latency, which these gears achieve

    def gear(self, waiting: int, *, may_hold: bool) -> int:
        """Tell the gear for so many rows, at least 1, or HOLD."""
        table = self.gears if may_hold else self.gears_now
        return table[min(waiting, len(table) - 1)]


def control_limits(times_s: Mapping[int, float], rate: float, max_rows: int) -> ControlLimits:
    """Solve for gears of these times and `rate` rows a second, when at most `max_rows` can wait.

    A row that finds the line full is lost, which counts as if it had waited for the line to be emptied twice.
    """
    loss_s = 2 * min(time_s / gear for gear, time_s in times_s.items()) * max_rows
    actions = [_Hold(rate, max_rows)] + [
        _Run(gear, time_s, rate, max_rows, loss_s) for gear, time_s in sorted(times_s.items())
    ]
    duration_s = np.stack([action.duration_s for action in actions])
    cost = np.stack([action.cost for action in actions])
    moves = np.stack([action.moves for action in actions])

    state = np.arange(max_rows + 1)
    choice = np.ones(max_rows + 1, dtype=np.int64)
    choice[0] = 0
    for _ in range(_ROUNDS):
        bias, mean_cost = _evaluate(cost[choice, state], duration_s[choice, state], moves[choice, state])
        value = cost - mean_cost * duration_s + moves @ bias
        value[0, max_rows] = np.inf  # nobody else can come
        value[1:, 0] = np.inf  # nothing to run
        best = value.argmin(axis=0)
        better = (
            value[best, state] < value[choice, state] * (1 - np.sign(value[choice, state]) * 1e-9) - 1e-15
        )
        if not better.any():
            break
        choice = np.where(better, best, choice)
    now = value[1:].argmin(axis=0) + 1
    gears = np.array([HOLD, *sorted(times_s)])
    gears_now = (HOLD, *gears[now[1:]].tolist())
    return ControlLimits(tuple(gears[choice].tolist()), gears_now, mean_cost / rate)


def _evaluate(cost: Floats, duration_s: Floats, moves: Floats) -> tuple[Floats, float]:
    """Solve for the value of each state under one policy, state 0 being worth 0, and for the mean cost."""
    equations = np.eye(len(cost)) - moves
    equations[:, 0] = duration_s
    bias = np.asarray(np.linalg.solve(equations, cost), np.float64)
    mean_cost = float(bias[0])
    bias[0] = 0.0
    return bias, mean_cost


class _Hold:
    """Wait until one more row has come."""

    def __init__(self, rate: float, max_rows: int) -> None:
        waiting = np.arange(max_rows + 1)
        self.duration_s = np.full(max_rows + 1, 1 / rate)
        self.cost = waiting / rate
        self.moves = np.eye(max_rows + 1, k=1)
        self.moves[-1, -1] = 1.0


class _Run:
    """Run one gear; rows come meanwhile."""

    def __init__(self, gear: int, time_s: float, rate: float, max_rows: int, loss_s: float) -> None:
        waiting = np.arange(max_rows + 1)
        left = np.maximum(0, waiting - gear)[:, np.newaxis]
        arrivals = poisson(rate * time_s, max_rows + 1)
        self.duration_s = np.full(max_rows + 1, time_s)
        self.moves = np.where(waiting >= left, arrivals[waiting - left], 0.0)
        self.moves[:, -1] += np.maximum(0.0, 1 - self.moves.sum(axis=1))
        room = max_rows - left
        lost = rate * time_s - room[:, 0] + np.maximum(0, room - waiting) @ arrivals
        self.cost = waiting * time_s + rate * time_s**2 / 2 + np.maximum(0, lost) * loss_s


def poisson(mean: float, counts: int) -> Floats:
    """Tell the chances of 0, 1, ... counts - 1 arrivals."""
    chances: Floats = np.exp(np.arange(counts) * np.log(mean) - mean - _log_factorials(counts))
    return chances


@cache
def _log_factorials(counts: int) -> Floats:
    logs: Floats = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, counts)))])
    return logs
