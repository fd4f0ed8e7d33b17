"""Writes what was simulated: as a table for people, as JSON for scripts."""

import json
import math
from collections.abc import Sequence

from service.batching.envelope import Envelope
from service.simulation.study import Capacity, Run, Study

_HEADINGS = (
    "policy",
    "rows/s",
    "mean",
    "p50",
    "p99 ms",
    "goodput",
    "refused",
    "late",
    "padding",
    "busy",
    "gears",
)
_WIDTHS = (-9, 8, 8, 8, 8, 8, 8, 7, 8, 6, -1)


def heading(study: Study) -> str:
    """Say what is simulated."""
    gears = Envelope.of(study.pace.curve).gears
    times = " ".join(f"{gear}:{time_s * 1000:.3g}" for gear, time_s in study.pace.times_s.items())
    devices = "1 device" if study.devices == 1 else f"{study.devices} devices"
    return (
        f"{study.name}, {devices}: at most {study.most_rows_a_s:.0f} rows/s\n"
        f"milliseconds by gear: {times}; worth running: {', '.join(map(str, gears))}\n"
    )


def line(run: Run, before: Run | None) -> str:
    """Write a run below the one before it, with the headings if it is the first."""
    written = _line(_cells(run))
    if before is None:
        return f"{_line(_HEADINGS)}\n{written}"
    return written if before.rate == run.rate else f"\n{written}"


def capacity(found: Capacity, *, is_first: bool) -> str:
    """Write a capacity, with the headings if it is the first."""
    written = f"{found.policy:<9} {found.within_ms:>9g} ms {found.answers:>20.0f} {found.arrivals:>36.0f}"
    headings = "\nrows/s with 99 % within      of the answers    of all arrivals, deadlines told"
    return f"{headings}\n{written}" if is_first else written


def as_json(study: Study, runs: Sequence[Run], found: Sequence[Capacity]) -> str:
    """Write all of it as one object; what is infinite is null."""
    written = {
        "curve": study.name,
        "milliseconds": {str(gear): time_s * 1000 for gear, time_s in study.pace.times_s.items()},
        "devices": study.devices,
        "arrivals": len(study.trace) or study.count,
        "seed": study.seed,
        "runs": [_object(run) for run in runs],
        "capacities": [
            {
                "policy": each.policy,
                "within_ms": each.within_ms,
                "rate_of_answers": each.answers,
                "rate_of_arrivals": each.arrivals,
            }
            for each in found
        ],
    }
    return json.dumps(written, indent=1, allow_nan=False)


def _object(run: Run) -> dict[str, object]:
    outcome = run.outcome
    return {
        "policy": run.policy,
        "rate": run.rate,
        "mean_ms": _milliseconds(outcome.mean_s),
        "p50_ms": _milliseconds(outcome.quantile_s(0.5)),
        "p99_ms": _milliseconds(outcome.quantile_s(0.99)),
        "goodput": outcome.goodput,
        "answered": outcome.answered,
        "refused": outcome.refused,
        "expired": outcome.expired,
        "late": outcome.late,
        "padding_rows": outcome.padding_rows,
        "busy_s": outcome.busy_s,
        "duration_s": outcome.duration_s,
        "batches": {str(gear): count for gear, count in outcome.batches.items()},
    }


def _milliseconds(time_s: float) -> float | None:
    return time_s * 1000 if time_s < math.inf else None


def _cells(run: Run) -> Sequence[str]:
    outcome = run.outcome
    run_rows = sum(gear * count for gear, count in outcome.batches.items())
    batches = sum(outcome.batches.values())
    shares = (
        f"{gear}:{count / batches:.0%}" for gear, count in outcome.batches.items() if count * 200 >= batches
    )
    return (
        run.policy,
        f"{run.rate:.0f}",
        *(
            f"{time_s * 1000:.2f}"
            for time_s in (outcome.mean_s, outcome.quantile_s(0.5), outcome.quantile_s(0.99))
        ),
        f"{outcome.goodput:.0f}",
        f"{outcome.refused / outcome.arrived:.2%}",
        f"{outcome.late_share:.2%}",
        f"{outcome.padding_rows / run_rows if run_rows else 0:.1%}",
        f"{outcome.busy_s / (outcome.duration_s or math.inf):.0%}",
        " ".join(shares),
    )


def _line(cells: Sequence[str]) -> str:
    words = (
        cell.ljust(-width) if width < 0 else cell.rjust(width)
        for cell, width in zip(cells, _WIDTHS, strict=True)
    )
    return " ".join(words).rstrip()
