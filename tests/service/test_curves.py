import logging
from pathlib import Path

import pytest

from service.engines import Curve, GearTime
from service.repository.curves import CurveStore

CURVE = Curve({1: GearTime(p50_s=0.001, p99_s=0.002), 4: GearTime(p50_s=0.0022, p99_s=0.0023)})
HERE = {"engine": "openvino", "artifacts": "abc"}


def test_a_curve_is_kept_for_what_it_depends_on_and_nothing_else(tmp_path: Path) -> None:
    CurveStore(tmp_path / "state").keep(CURVE, HERE)
    store = CurveStore(tmp_path / "state")
    assert store.kept(HERE) == CURVE
    assert store.kept({**HERE, "artifacts": "abd"}) is None


def test_nothing_is_kept_without_a_folder() -> None:
    store = CurveStore(None)
    store.keep(CURVE, HERE)
    assert store.kept(HERE) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"gears": {"1": 3}}', '{"gears": {"x": {}}}', '{"gears": {}}', "\0",
             '{"gears": {"1": {"p50_s": 2, "p99_s": 1}}}', '{"gears": {"1": {"p50_s": "a", "p99_s": 1}}}'],
)  # fmt: skip
def test_a_damaged_file_costs_a_measurement_and_a_line_in_the_log(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CurveStore(tmp_path)
    store.keep(CURVE, HERE)
    (file,) = (tmp_path / "curves").iterdir()
    file.write_text(text)
    assert store.kept(HERE) is None
    assert [record.getMessage() for record in caplog.records] == ["kept_curve_unreadable"]
    store.keep(CURVE, HERE)
    assert store.kept(HERE) == CURVE


def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "curves").write_text("a file where the folder should be")
    CurveStore(tmp_path).keep(CURVE, HERE)
    assert [record.getMessage() for record in caplog.records] == ["curve_not_kept"]
