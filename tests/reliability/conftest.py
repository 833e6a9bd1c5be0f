"""Whole proxies, killed, starved and lied to: `make reliability` for minutes, `make soak` for hours."""

from pathlib import Path

import pytest
from evidence import Evidence

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="as many cycles as a long run has, in place of a short one's")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("reliability")


@pytest.fixture
def is_soak(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long run."""
    return bool(request.config.getoption("--soak", default=False))


@pytest.fixture
def evidence() -> Evidence:
    """Where a test notes what it saw, in numbers."""
    return Evidence()
