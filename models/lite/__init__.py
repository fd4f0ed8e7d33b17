"""MindSpore Lite on a CPU: the deployment graph -> one MindIR for each batch size, proven on the golden samples.

interpreter.py  finds a Python that has the library, which is rarely the one that runs this
child.py        runs in that Python, in a process of its own
convert.py      what the publisher calls
"""

from models.lite.convert import add_lite
from models.lite.interpreter import VARIABLE, find_interpreter

__all__ = ["VARIABLE", "add_lite", "find_interpreter"]
