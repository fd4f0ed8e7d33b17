"""Write what came of a training, or of an evaluation, for people: log and counts -> one HTML page that needs no other.

Nothing on it is fetched or run, it follows light and dark, and it prints.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from models.training.charts import Curve, diagram
from models.training.evaluation import Evaluation
from models.training.watching import EpochRecord, StepRecord, evaluation_of, read_lines

_MATRIX_CLASSES = 30  # at most, of a confusion matrix that is still read
_CONFUSED = 20  # pairs that are listed
_STRONG = 0.5  # share of a row from which on a cell's text is light


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a page tells; `lines` are those of a training's log."""

    title: str
    facts: Mapping[str, str]
    labels: Sequence[str]
    recipe: str
    evaluation: Evaluation | None = None
    lines: Sequence[Mapping[str, Any]] = field(default=())


class ReportWriter:
    """Writes the page of a training when it ends, well or not: of the log that was written, and the best evaluation."""

    def __init__(self, path: Path, log: Path, report: Report) -> None:
        self._path, self._log, self._report = path, log, report
        self._best: Evaluation | None = None

    def stepped(self, record: StepRecord) -> None:
        """Do nothing: the log has it."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """Keep the best evaluation."""
        if record.is_best:
            self._best = record.evaluation

    def close(self) -> None:
        """Write the page, at once or not at all."""
        lines = read_lines(self._log)
        facts, logged = dict(self._report.facts), None
        for line in lines:
            if line["event"] == "epoch" and line["is_best"]:
                facts["Best checkpoint"] = line["checkpoint"]
                logged = evaluation_of(line["evaluation"])  # of a run that was resumed after it
        page = report_page(replace(self._report, facts=facts, lines=lines, evaluation=self._best or logged))
        whole = self._path.with_name(f".{self._path.name}")
        try:
            whole.write_text(page, encoding="utf-8")
            whole.replace(self._path)
        except OSError as error:  # a full disk is told by what it has ended, which this must not hide
            sys.stderr.write(f"{self._path} could not be written: {error}\n")


def report_page(report: Report) -> str:
    """Return the page."""
    counted = report.evaluation
    sections = [
        _figures(report),
        _curves(report.lines),
        _classes(report.labels, counted) if counted else "",
        _confusion(report.labels, counted) if counted else "",
        _epochs(report.lines),
        _section("Provenance", _facts(report.facts)),
        _section("Recipe", f"<pre>{escape(report.recipe)}</pre>"),
    ]
    style = (files("models.training") / "report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}</title>\n<style>\n{style}</style></head><body>",
            f"<header><h1>{escape(report.title)}</h1></header>\n<main>",
            *filter(None, sections),
            "</main></body></html>\n",
        ]
    )


def _figures(report: Report) -> str:
    epochs = [line for line in report.lines if line["event"] == "epoch"]
    steps = [line for line in report.lines if line["event"] == "step"]
    figures: dict[str, str] = {}
    if counted := report.evaluation:
        figures["top-1"] = f"{counted.top1:.2%}"
        figures["top-5"] = f"{counted.top5:.2%}"
        figures["right"] = f"{counted.right:,} of {counted.n:,}"
        if math.isfinite(counted.loss):
            figures["evaluation loss"] = f"{counted.loss:.4f}"
    if epochs and epochs[-1]["loss"] is not None:
        figures["training loss"] = f"{epochs[-1]['loss']:.4f}"
        figures["epochs"] = f"{epochs[-1]['epoch']:,}"
    if steps:
        figures["img/s"] = f"{np.median([line['images_per_s'] for line in steps]):,.0f}"
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    return f'<dl class="figures">{tiles}</dl>' if tiles else ""


def _curves(lines: Sequence[Mapping[str, Any]]) -> str:
    steps = [line for line in lines if line["event"] == "step" and line["loss"] is not None]
    measured = [line for line in lines if line["event"] == "epoch" and line["evaluation"]]
    ended = [line for line in lines if line["event"] == "epoch"][-1:] or lines[-1:]
    epochs_per_step = sum(line["epoch"] / line["step"] for line in ended)

    def curve(name: str, kind: str, values: Iterable[tuple[int, float | None]]) -> Curve:
        points = [(step * epochs_per_step, value) for step, value in values if value is not None]
        return Curve(name=name, kind=kind, points=points)

    def of_evaluation(name: str, kind: str, key: str) -> Curve:
        return curve(name, kind, ((line["step"], line["evaluation"][key]) for line in measured))

    losses = [
        curve("training", "first", ((line["step"], line["loss"]) for line in steps)),
        of_evaluation("evaluation", "second", "loss"),
    ]
    accuracies = [of_evaluation("top-1", "first", "top1"), of_evaluation("top-5", "second", "top5")]
    rates = [curve("learning rate", "third", ((line["step"], line["rate"]) for line in steps))]
    diagrams = [
        diagram(title, "epochs", curves, form)
        for title, curves, form in (
            ("Loss", losses, "{:g}".format),
            ("Accuracy", accuracies, _percent),
            ("Learning rate", rates, "{:g}".format),
        )
        if any(curve.points for curve in curves)
    ]
    return _section("Curves", f'<div class="curves">{"".join(diagrams)}</div>') if diagrams else ""


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _classes(labels: Sequence[str], counted: Evaluation) -> str:
    shares, pictures = counted.by_class(), counted.confusion.sum(axis=1)
    order = sorted(range(len(labels)), key=lambda index: (math.isnan(shares[index]), -shares[index]))
    rows = [
        f'<li><span class="name">{escape(labels[index])}</span>'
        f'<span class="track"><span style="width: {np.nan_to_num(shares[index]):.1%}"></span></span>'
        f'<span class="number">{"-" if math.isnan(shares[index]) else f"{shares[index]:.1%}"}</span>'
        f'<span class="number muted">of {pictures[index]:,}</span></li>'
        for index in order
    ]
    return _section("Accuracy of each class", f'<ol class="classes">{"".join(rows)}</ol>')


def _confusion(labels: Sequence[str], counted: Evaluation) -> str:
    if len(labels) <= _MATRIX_CLASSES:
        return _section(
            "Confusion",
            "<p>A row for each true class, a column for each answer.</p>" + _matrix(labels, counted),
        )
    wrong = counted.confusion - np.diag(counted.confusion.diagonal())
    true, answered = np.unravel_index(np.argsort(-wrong, axis=None)[:_CONFUSED], wrong.shape)
    rows = [
        f"<tr><td>{escape(labels[one])}</td><td>{escape(labels[other])}</td><td>{wrong[one, other]:,}</td></tr>"
        for one, other in zip(true, answered, strict=True)
        if wrong[one, other]
    ]
    head = "<tr><th>true</th><th>answered</th><th>pictures</th></tr>"
    return _section("Confused most often", f'<table class="plain">{head}{"".join(rows)}</table>')


def _matrix(labels: Sequence[str], counted: Evaluation) -> str:
    heads = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    rows = []
    for true, label in enumerate(labels):
        total = max(int(counted.confusion[true].sum()), 1)
        cells = "".join(
            _cell(int(count), count / total, is_right=true == answered)
            for answered, count in enumerate(counted.confusion[true])
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return f'<div class="wide"><table class="matrix"><tr><td></td>{heads}</tr>{"".join(rows)}</table></div>'


def _cell(count: int, share: float, *, is_right: bool) -> str:
    if not count:
        return "<td></td>"
    kind = ("right" if is_right else "wrong") + (" strong" if share >= _STRONG else "")
    strength = 100 * math.sqrt(share)  # so that few confusions are seen beside many right answers
    return f'<td class="{kind}" style="--strength: {strength:.0f}%">{count:,}</td>'


def _epochs(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "<tr>"
        + "".join(f"<td>{cell}</td>" for cell in _epoch_cells(line))
        + ("<td>best so far</td>" if line["is_best"] else "<td></td>")
        + "</tr>"
        for line in lines
        if line["event"] == "epoch"
    ]
    if not rows:
        return ""
    head = "<tr><th>epoch</th><th>training loss</th><th>evaluation loss</th><th>top-1</th><th>top-5</th><th></th></tr>"
    return _section("Epochs", f'<table class="plain numbers">{head}{"".join(rows)}</table>')


def _epoch_cells(line: Mapping[str, Any]) -> Iterable[str]:
    measured = line["evaluation"] or {}
    yield f"{line['epoch']:,}"
    for value in (line["loss"], measured.get("loss")):
        yield "-" if value is None else f"{value:.4f}"
    for key in ("top1", "top5"):
        yield f"{measured[key]:.2%}" if measured else "-"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>"
