"""Measures on this machine what serving costs beside the bare libraries.

boundary.py   one engine in this process and in one of its own: what a batch of 1 takes longer
pace.py       images a second through queue and engine process, and in plain loops
bare.py       the plain loops: a program of its own
"""

from service.bench.boundary import Comparison, compare, idle_order
from service.bench.pace import Pace, Turn, pace

__all__ = ["Comparison", "Pace", "Turn", "compare", "idle_order", "pace"]
