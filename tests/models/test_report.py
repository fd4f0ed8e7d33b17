import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.charts import Curve, diagram
from models.training.evaluation import Evaluation
from models.training.report import Report, ReportWriter, report_page
from models.training.watching import EpochRecord, JsonLines, StepRecord

VOID = {"meta", "path", "circle"}


class Page(HTMLParser):
    """Reads a page, and fails where a tag is left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def _evaluation(classes: int = 3) -> Evaluation:
    confusion = np.eye(classes, dtype=np.int64) * 8
    confusion[0, 1] = 2
    right, n = int(confusion.trace()), int(confusion.sum())
    return Evaluation(n=n, top1=right / n, top5=1.0, loss=0.25, confusion=confusion)


def _step(step: int) -> StepRecord:
    return StepRecord(
        epoch=(step + 3) // 4,
        step=step,
        steps=8,
        rate=0.1 / step,
        loss=2.0 / step,
        is_skipped=False,
        loss_scale=1.0,
        images_per_s=120.0,
    )


def _epoch(epoch: int, *, is_best: bool = True) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        step=4 * epoch,
        loss=1.5,
        evaluation=_evaluation(),
        is_best=is_best,
        checkpoint=Path(f"{epoch}.safetensors"),
    )


def _report(**changes: Any) -> Report:
    given = {
        "title": "tiny <1>",
        "facts": {"Seed": "5"},
        "labels": ["a & b", "c", "d"],
        "recipe": "name: tiny",
    }
    return Report(**(given | changes))


def test_a_page_stands_alone_and_is_whole() -> None:
    page = report_page(_report(evaluation=_evaluation()))
    read = Page(page)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read.tags}
    assert not re.search(r"https?://|url\(|@import", page)
    for word in ("tiny <1>", "a & b", "24 of 26", "92.31%", "0.2500", "name: tiny", "Seed"):
        assert word in read.text


def test_each_class_has_its_share() -> None:
    evaluation = _evaluation()
    evaluation.confusion[2, 2] = 0
    items = re.findall(r"<li>.*?</li>", report_page(_report(evaluation=evaluation)))
    texts = [Page(item).text.split() for item in items]
    assert texts == [["c", "100.0%", "of", "8"], ["a", "&", "b", "80.0%", "of", "10"], ["d", "-", "of", "0"]]


def test_few_classes_have_a_matrix_of_what_was_answered() -> None:
    page = report_page(_report(evaluation=_evaluation()))
    (matrix,) = re.findall(r'<table class="matrix">.*?</table>', page, re.DOTALL)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", matrix)[1:]]
    assert rows == [["8", "2", ""], ["", "8", ""], ["", "", "8"]]


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed() -> None:
    labels = [f"class {index}" for index in range(200)]
    page = report_page(_report(labels=labels, evaluation=_evaluation(200)))
    assert 'class="matrix"' not in page
    assert "<tr><td>class 0</td><td>class 1</td><td>2</td></tr>" in page


def test_a_training_leaves_the_page_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    watchers = [JsonLines(log), ReportWriter(tmp_path / "report.html", log, _report())]
    for step in range(1, 9):
        for watcher in watchers:
            watcher.stepped(_step(step))
            if step % 4 == 0:
                watcher.epoch_ended(_epoch(step // 4, is_best=step == 4))
    for watcher in watchers:
        watcher.close()
    page = (tmp_path / "report.html").read_text()
    read = Page(page)
    titles = re.findall(r'class="title"[^>]*>([^<]*)<', page)
    assert titles == ["Loss", "Accuracy", "Learning rate"]
    assert len(re.findall("<polyline", page)) == 5  # two losses, two accuracies, the rate
    assert "1.safetensors" in read.text
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log.jsonl", "report.html"]


def test_a_run_that_was_resumed_after_its_best_epoch_still_tells_of_it(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = JsonLines(log)
    lines.epoch_ended(_epoch(1))
    lines.close()
    writer = ReportWriter(tmp_path / "report.html", log, _report())
    writer.epoch_ended(_epoch(2, is_best=False))
    writer.close()
    page = (tmp_path / "report.html").read_text()
    assert "24 of 26" in page
    assert "1.safetensors" in page


def test_a_training_that_failed_at_once_has_a_page_too(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    JsonLines(log).close()
    ReportWriter(tmp_path / "report.html", log, _report()).close()
    assert "tiny" in Page((tmp_path / "report.html").read_text()).text


def test_a_page_that_cannot_be_written_hides_no_other_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    JsonLines(log).close()
    ReportWriter(tmp_path / "none" / "report.html", log, _report()).close()
    assert "report.html could not be written" in capsys.readouterr().err


def test_a_curve_lies_within_its_axes_and_on_their_numbers() -> None:
    curve = Curve(name="loss", kind="first", points=[(0, 0.0), (5, 3.0), (10, 1.5)])
    drawn = diagram("Loss", "epochs", [curve])
    points = [tuple(map(float, point.split(","))) for point in re.findall(r"[\d.]+,[\d.]+", drawn)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x2 - x1 == x1 - x0 > 0
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.11)
    labels = re.findall(r'class="end" x="\d+" y="[\d.]+">([\d.]+)<', drawn)
    assert labels == ["0", "1", "2", "3"]


def test_a_curve_of_many_points_is_drawn_by_their_means() -> None:
    points = [(step, float(step % 2)) for step in range(100_000)]
    thinned = Curve(name="loss", kind="first", points=points).thinned()
    assert 400 < len(thinned) <= 460
    assert all(abs(y - 0.5) < 0.01 for _, y in thinned)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-6, 12345.0])
def test_a_curve_of_one_point_is_a_dot(value: float) -> None:
    assert "<circle" in diagram("Loss", "epochs", [Curve(name="loss", kind="first", points=[(1, value)])])
