"""A pytest plugin, `-p planted_plugin`, that plants one bug at a time, runs its tests and records their outcomes.

The parent process imports and collects all tests once. For each bug it forks a child, which plants the bug and runs its
tests. A fresh process for each bug would take longer than the tests.
"""

import json
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import stopwatch
from planted_bugs import BUGS, NODES, Bug
from planting import NothingToPlant, plant

HERE = Path(__file__).parent
PRODUCT = HERE.parent.parent / "proxy"
PARALLEL = 2
BUG_TIMEOUT_S = 180  # seconds for one bug on a loaded machine; then the child is killed and records no outcome
ALL_TIMEOUT_S = 900  # seconds for all tests without a bug, on a loaded machine
WITHOUT = "none"  # the name that stands for no bug: all tests run

stopwatch.HANG_S = 20.0  # set before the tests import it, because a bug may make a test wait in vain

CAUGHT, BROKEN, PASSED, SKIPPED = "caught", "broken", "passed", "skipped"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--planted", action="append", default=[], help="the name of a bug, or none")
    parser.addoption("--noted", type=Path, help="the folder that gets the outcomes, a JSON file for each bug")


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.getoption("--planted")
    config.pluginmanager.register(_Trials(wanted, config.getoption("--noted")), "planted-trials")


class _Trials:
    """Runs each bug's tests. A test is `passed`, `skipped`, `caught` (by an assertion of the test) or `broken`
    (anything else).
    """

    def __init__(self, wanted: list[str], folder: Path) -> None:
        self._wanted = wanted
        self._folder = folder
        self._name: str | None = None  # the bug of this child
        self._outcomes: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all trials in the parent, and do nothing in a child, where pytest continues with the bug's own tests."""
        running = 0
        for name in self._wanted:
            if running == PARALLEL:
                os.wait()
                running -= 1
            sys.stdout.flush()
            if not os.fork():
                signal.alarm(ALL_TIMEOUT_S if name == WITHOUT else BUG_TIMEOUT_S)
                self._begin(session, name)
                return None
            running += 1
        for _ in range(running):
            os.wait()
        return True

    def _begin(self, session: pytest.Session, name: str) -> None:
        self._name = name
        bug = next((bug for bug in BUGS if bug.name == name), None)
        nodes = NODES if bug is None else bug.nodes
        session.items[:] = [item for item in session.items if item.nodeid.startswith(nodes)]
        session.testscollected = len(session.items)
        if bug is not None:
            self._plant(bug, session)

    def _plant(self, bug: Bug, session: pytest.Session) -> None:
        try:
            for edit in bug.edits:
                plant(edit)
        except NothingToPlant as error:
            self._outcomes[bug.name] = str(error)
            session.items.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: "pytest.CallInfo[None]"
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        known = self._outcomes.get(item.nodeid, PASSED)
        if report.failed and known == PASSED:
            known = CAUGHT if call.when == "call" and _is_refuted(call) else BROKEN
        elif report.skipped:
            known = SKIPPED
        self._outcomes[item.nodeid] = known
        if known == CAUGHT:
            item.session.shouldstop = "the bug is caught"
        return report

    def pytest_sessionfinish(self) -> None:
        if self._name is not None:
            (self._folder / f"{self._name}.json").write_text(json.dumps(self._outcomes))


def _is_refuted(call: "pytest.CallInfo[None]") -> bool:
    assert call.excinfo is not None
    return _is_assertion(call.excinfo.value)


def _is_assertion(error: BaseException) -> bool:
    """Return whether an assertion of the test failed. A failing `assert` in the code under test counts as a crash."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_assertion, error.exceptions))
    if isinstance(error, pytest.fail.Exception):  # the expected exception was not raised
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_ours = trace is not None and PRODUCT in Path(trace.tb_frame.f_code.co_filename).parents
    return isinstance(error, AssertionError) and not is_ours
