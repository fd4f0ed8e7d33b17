"""Engines: the parent side of the processes that run models. child/ is the other side.

engine.py    one engine for as long as its model is served, whatever happens to its process
process.py   one life of one process
talk.py      the socket to it
order.py     what a process is to load, and how
curve.py     how long its batches take
measure.py   how that is found out
"""

from service.engines.curve import Curve, GearTime
from service.engines.engine import Engine
from service.engines.measure import gear_time, measure, still_holds
from service.engines.order import (
    ArtifactFile,
    EngineOptions,
    EngineOrder,
    LiteOptions,
    OpenvinoOptions,
    SimulatedOptions,
)
from service.engines.process import CHILD, BatchAnswer, EngineProcess, NotBegun, Refused

__all__ = [
    "CHILD",
    "ArtifactFile",
    "BatchAnswer",
    "Curve",
    "Engine",
    "EngineOptions",
    "EngineOrder",
    "EngineProcess",
    "GearTime",
    "LiteOptions",
    "NotBegun",
    "OpenvinoOptions",
    "Refused",
    "SimulatedOptions",
    "gear_time",
    "measure",
    "still_holds",
]
