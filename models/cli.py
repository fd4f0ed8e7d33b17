"""The console script `cardinal-models`: parse, run a command, print.

A fault is one sentence on stderr and exit code 2; 1 is a training that cannot go on.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from models.commands import COMMANDS
from models.errors import InvalidValueError, TrainingFailedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        arguments = _parsed(argv)
        report = arguments.run(arguments)
    except (InvalidValueError, OSError) as error:
        sys.stderr.write(f"cardinal-models: {error}\n")
        return 2
    except TrainingFailedError as error:
        sys.stderr.write(f"cardinal-models: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("cardinal-models: interrupted\n")
        return 130
    if report:  # of several processes, the first one tells
        sys.stdout.write(f"{report}\n")
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and take KEY=VALUE behind flags too, which argparse takes before them alone."""
    arguments, rest = parser().parse_known_args(argv)
    if rest:
        has_overrides = hasattr(arguments, "overrides")
        if not has_overrides or any(word.startswith("-") or "=" not in word for word in rest):
            raise InvalidValueError(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides += rest
    return arguments


class _Parser(argparse.ArgumentParser):
    """Reports a wrong flag as every other fault is: one sentence, without the usage around it.

    A flag is its whole name: one that is cut short would mean another when a new one begins alike.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(message)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = _Parser(
        prog="cardinal-models", description="Describe, convert and publish the networks of Cardinal."
    )
    names = "|".join(command.name for command in COMMANDS)
    commands = whole.add_subparsers(dest="command", required=True, metavar=names)
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.help)
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return whole
