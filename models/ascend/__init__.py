"""Ascend NPUs: a bundle -> the script that compiles its graph there, and what that script calls here.

run.py     runs that script here, where the vendor's programs are
script.py  the calls of converter_lite and atc, with their configuration files, as one script
planes.py  the graph without its first nodes, where the NPU's own image stage (AIPP) normalises
"""

from models.ascend.planes import normalisation_of, without_normalisation
from models.ascend.run import missing_tools, run_script, write_script
from models.ascend.script import Compilation

__all__ = [
    "Compilation",
    "missing_tools",
    "normalisation_of",
    "run_script",
    "without_normalisation",
    "write_script",
]
