"""Ascend NPUs: a bundle -> the script that compiles its graph there, and what that script calls here.

script.py  the calls of converter_lite and atc, with their configuration files, as one script
planes.py  the graph without its first nodes, where the NPU's own image stage (AIPP) normalises
"""

from models.ascend.planes import Normalisation, normalisation_of, without_normalisation
from models.ascend.script import Compilation, compile_script

__all__ = ["Compilation", "Normalisation", "compile_script", "normalisation_of", "without_normalisation"]
