"""Tests that kill, starve and deceive whole proxies: `make reliability` for minutes, `make soak` for hours.

A session that runs any of these tests writes docs/reliability.md anew.
"""

from collections.abc import Generator
from pathlib import Path

import pytest
from evidence import Evidence
from recording import EVIDENCE, ROOT, Recording

HERE = Path(__file__).parent
RECORDING = pytest.StashKey[Recording]()
IS_SELECTION = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="as many cycles as a long run has, in place of a short one's")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(f"{HERE}/"):  # a comparison of paths for each of 10,000 items takes a second
            item.add_marker("reliability")


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[IS_SELECTION] = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    size = "soak" if item.config.getoption("--soak", default=False) else "smoke"
    item.config.stash.setdefault(RECORDING, Recording(size)).note(item, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    # Tests that run with a planted bug are no evidence.
    if RECORDING not in config.stash or config.pluginmanager.has_plugin("planted_plugin"):
        return
    nodes = [item.nodeid for item in session.items if HERE in item.path.parents]
    is_selection = config.stash.get(IS_SELECTION, False) or any("[" in argument for argument in config.args)
    config.stash[RECORDING].write(ROOT / "docs", nodes, is_selection=is_selection)


@pytest.fixture
def is_soak(request: pytest.FixtureRequest) -> bool:
    """Return whether this is the long run."""
    return bool(request.config.getoption("--soak", default=False))


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Return the place where a test records its figures."""
    made: Evidence = request.node.stash.setdefault(EVIDENCE, Evidence())
    return made
