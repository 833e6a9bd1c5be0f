"""The outcomes of a session's tests, and how docs/reliability.md is made of them and of earlier sessions."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from evidence import Evidence
from invariants import INVARIANTS
from planted_bugs import BUGS
from reliability_page import (
    FAILED,
    NOT_RUN,
    PASSED,
    Planted,
    Record,
    dumped,
    function_of,
    holders_in,
    loaded,
    merged,
    page,
    without_paths,
)

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EVIDENCE = pytest.StashKey[Evidence]()
TWIN = "tests/reliability/test_planted_bugs.py::test_planted_bug_is_caught"


class Recording:
    """The outcomes of one session. `size` is smoke or soak."""

    def __init__(self, size: str) -> None:
        self._size = size
        self._ran: dict[str, Record] = {}
        self._seconds: dict[str, float] = {}
        self._machine = f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"

    def note(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Record one phase of a test: set-up, call or tear-down. The worst phase counts."""
        node = item.nodeid
        self._seconds[node] = self._seconds.get(node, 0.0) + report.duration
        outcome, reason = _outcome(report)
        known = self._ran.get(node)
        if known is not None and known.outcome != PASSED:
            outcome, reason = known.outcome, known.reason
        evidence = item.stash.get(EVIDENCE, Evidence())
        figures = dict(evidence.figures)
        caught_by = next(iter(evidence.caught_by), "")
        today = datetime.now(UTC).date().isoformat()
        self._ran[node] = Record(outcome, today, round(self._seconds[node]), self._machine, reason, figures, caught_by)

    def write(self, folder: Path, collected: Iterable[str], *, is_selection: bool) -> None:
        """Write `reliability.json` and `reliability.md` if any test ran.

        `collected` are the nodes of the session. With `is_selection`, a function's parameters may be incomplete among
        them.
        """
        if not self._ran:
            return
        tests = {
            function: numbers
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            for function, numbers in holders_in(path.relative_to(ROOT).as_posix(), path.read_text()).items()
        }
        broken_off = {function_of(node) for node in collected if node not in self._ran}
        whole = set() if is_selection else {function_of(node) for node in self._ran} - broken_off
        data = folder / "reliability.json"
        known = loaded(data.read_text()) if data.exists() else {}
        records = merged(known, self._size, self._ran, whole, tests)
        planted = tuple(Planted(bug.invariant, bug.what, f"{TWIN}[I{bug.invariant}-{bug.name}]") for bug in BUGS)
        data.write_text(dumped(records))
        (folder / "reliability.md").write_text(page(INVARIANTS, planted, tests, records))


def _outcome(report: pytest.TestReport) -> tuple[str, str]:
    if report.skipped:
        # An expected failure that occurred does not count as passed either.
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else f"expected to fail: {report.wasxfail}"
        return NOT_RUN, without_paths(text.removeprefix("Skipped: ").removeprefix("not run: "))
    return (PASSED if report.passed else FAILED), ""
