"""Engines: the parent side of the processes that run models. child/ is the other side.

engine.py    one engine for as long as its model is served, whatever happens to its process
process.py   one life of one process
"""

from service.engines.engine import Engine
from service.engines.process import BatchAnswer, EngineOrder, EngineProcess, Refused

__all__ = ["BatchAnswer", "Engine", "EngineOrder", "EngineProcess", "Refused"]
