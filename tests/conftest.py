"""For all tests: OpenVINO, imported here for comparison, reports nothing to its vendor.

PyTorch and MindSpore compute in one thread each: on a busy machine more of them only wait for each other, and spin.
"""

import os
import sys
from collections.abc import Iterator

import pytest

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep the tests that share a fixture of their module in one process, which makes it once."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        if any(overridden_by[-1].scope == "module" for overridden_by in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Do not trace what is marked so. (In processes of pytest-xdist pytest-cov's own `no_cover` traces on.)"""
    trace = sys.gettrace()
    if item.get_closest_marker("untraced"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(trace)
