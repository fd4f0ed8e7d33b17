"""The documents are true of the code: whatever is public is in them."""

import re
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from service import errors, settings
from service.metrics import Metrics
from service.rest.errors import STATUS as REST_STATUS
from service.rpc.errors import STATUS as RPC_STATUS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def our_metrics() -> list[Metric]:
    return [metric for metric in Metrics().registry.collect() if metric.name.startswith("cardinal_")]


def test_the_table_of_settings_is_what_the_command_prints() -> None:
    assert settings.table() in README


@pytest.mark.parametrize("metric", our_metrics(), ids=lambda metric: metric.name)
def test_every_metric_is_documented(metric: Metric) -> None:
    name = metric.name + ("_total" if metric.type == "counter" else "")
    assert f"| `{name}` |" in README
    assert metric.documentation in README


def test_no_metric_is_documented_that_is_not_there() -> None:
    there = {metric.name + ("_total" if metric.type == "counter" else "") for metric in our_metrics()}
    assert set(re.findall(r"^\| `(cardinal_\w+)` \|", README, re.MULTILINE)) == there


@pytest.mark.parametrize("error", REST_STATUS, ids=lambda error: error.code)
def test_every_error_is_documented_with_both_statuses(error: type[errors.ServiceError]) -> None:
    assert f"| `{error.code}` | {REST_STATUS[error]} | {RPC_STATUS[error].name} |" in README


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name}: {target}"
