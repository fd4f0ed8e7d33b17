"""A command of `cardinal-models`: its name, its arguments, and what it does with them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; `run` returns the report that is printed, and raises InvalidValueError or OSError."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str]
