"""For pytest in a process of its own, `-p planted_plugin`: plants one bug, runs tests, notes what became of them."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from planted_bugs import BUGS
from planting import NothingToPlant, plant

HERE = Path(__file__).parent
PRODUCT = HERE.parent.parent / "proxy"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--planted", default="", help="the name of the bug; none is planted without it")
    parser.addoption("--noted", type=Path, help="the file that gets the outcomes, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Notes(config.getoption("--noted")), "planted-notes")
    name = config.getoption("--planted")
    if not name:
        return
    try:
        for edit in next(bug for bug in BUGS if bug.name == name).edits:
            plant(edit)
    except NothingToPlant as error:
        raise pytest.UsageError(str(error)) from error


class _Notes:
    """Of each test `passed`, `refuted` (an assertion of the test said no) or `broken` (anything else went wrong)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: "pytest.CallInfo[None]"
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        known = self._outcomes.get(item.nodeid, "passed")
        if report.failed and known == "passed":
            known = "refuted" if call.when == "call" and _is_refuted(call) else "broken"
        elif report.skipped:
            known = "skipped"
        self._outcomes[item.nodeid] = known
        if known == "refuted":
            item.session.shouldstop = "the bug is caught"
        return report

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._outcomes))


def _is_refuted(call: "pytest.CallInfo[None]") -> bool:
    assert call.excinfo is not None
    return _is_assertion(call.excinfo.value)


def _is_assertion(error: BaseException) -> bool:
    """Of a test: an `assert` in the code under test that fails is a crash like any other."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_assertion, error.exceptions))
    if isinstance(error, pytest.fail.Exception):  # what was to be raised was not
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_ours = trace is not None and PRODUCT in Path(trace.tb_frame.f_code.co_filename).parents
    return isinstance(error, AssertionError) and not is_ours
