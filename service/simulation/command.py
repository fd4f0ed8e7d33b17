"""What `cardinal simulate` does: options -> a study -> what is printed and drawn."""

import argparse
from collections.abc import Callable

from service.simulation import plot, report
from service.simulation.study import CannotSimulate, Run, study_of


def run(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Simulate, and say lines as soon as they are known.

    Raises:
        CannotSimulate: what was asked makes no sense, or the picture cannot be written.
    """
    study = study_of(options)
    runs: list[Run] = []
    if options.json:
        runs.extend(study.runs())
        say(report.as_json(study, runs, [*study.capacities()]))
    else:
        say(report.heading(study))
        for each in study.runs():
            say(report.line(each, runs[-1] if runs else None))
            runs.append(each)
        for number, capacity in enumerate(study.capacities()):
            say(report.capacity(capacity, is_first=not number))
    if options.plot:
        draw = plot.svg if options.plot.suffix == ".svg" else plot.page
        try:
            options.plot.write_text(draw(study, runs), encoding="utf-8")
        except OSError as error:
            raise CannotSimulate(f"{options.plot}: {error.strerror}") from error
