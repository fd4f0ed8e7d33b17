"""The suite runs as its configuration means it to."""

import pytest


@pytest.fixture(scope="module")
def shared() -> str:
    return "made once"


def test_tests_that_share_a_fixture_of_their_module_run_in_one_process(
    shared: str, request: pytest.FixtureRequest
) -> None:
    """A pytest and a pytest-xdist that do not fit each other pass groups over without a word."""
    assert shared == "made once"
    is_grouped = request.node.nodeid.endswith("@test_suite.py")
    assert is_grouped == getattr(request.config.option, "loadgroup", False)
