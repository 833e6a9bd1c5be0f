"""For each invariant a bug that breaks it, planted in a process of its own: the tests there have to say no."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from evidence import Evidence
from invariants import INVARIANTS
from planted_bugs import BUGS, Bug

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
AT_ONCE = 2
DEADLINE = 300  # seconds for one run, on a loaded machine
PLANTABLE = tuple(bug for bug in BUGS if not bug.pending)
NODES = tuple(dict.fromkeys(node for bug in PLANTABLE for node in bug.nodes))

Outcomes = dict[str, str]


class Trials:
    """Runs of pytest in processes of their own, two at a time; each is run once, when it is first wanted or sooner."""

    def __init__(self, threads: ThreadPoolExecutor, folder: Path) -> None:
        self._threads = threads
        self._folder = folder
        self._running: dict[str, Future[Outcomes]] = {}

    def begin(self, name: str, nodes: tuple[str, ...]) -> "Future[Outcomes]":
        """`name` is the bug's; none is planted if it is empty."""
        if name not in self._running:
            self._running[name] = self._threads.submit(self._run, name, nodes)
        return self._running[name]

    def _run(self, name: str, nodes: tuple[str, ...]) -> Outcomes:
        noted = self._folder / f"{name or 'none'}.json"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "planted_plugin"]
        command += ["--planted", name, "--noted", str(noted), *nodes]
        path = os.pathsep.join((str(HERE), str(HERE.parent)))
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        # Status 1: tests failed, 2: they were interrupted, as soon as one had caught the bug.
        assert done.returncode in (0, 1, 2), done.stdout + done.stderr
        outcomes: Outcomes = json.loads(noted.read_text())
        assert outcomes, done.stdout  # nothing was collected
        return outcomes


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Those that this session wants are begun at once."""
    threads = ThreadPoolExecutor(AT_ONCE)
    running = Trials(threads, tmp_path_factory.mktemp("planted"))
    for item in request.session.items:
        if item.name == test_nothing_is_caught_where_nothing_is_planted.__name__:
            running.begin("", NODES)
        bug = item.callspec.params.get("bug") if hasattr(item, "callspec") else None
        if isinstance(bug, Bug) and not bug.pending:
            running.begin(bug.name, bug.nodes)
    yield running
    threads.shutdown(cancel_futures=True)


def test_nothing_is_caught_where_nothing_is_planted(trials: Trials, evidence: Evidence) -> None:
    """The same tests pass without a bug."""
    outcomes = trials.begin("", NODES).result()
    assert {node: outcome for node, outcome in outcomes.items() if outcome != "passed"} == {}
    for wanted in NODES:
        assert any(node.partition("[")[0].startswith(wanted) for node in outcomes), wanted
    evidence.add("tests without a bug", len(outcomes))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"I{bug.invariant}-{bug.name}")
def test_planted_bug_is_caught(bug: Bug, trials: Trials, evidence: Evidence) -> None:
    """With the bug planted, one of the tests named with it fails, and by an assertion of its own."""
    if bug.pending:
        pytest.skip(f"not run: {bug.pending}")
    outcomes = trials.begin(bug.name, bug.nodes).result()
    assert "refuted" in outcomes.values(), outcomes
    evidence.add("bugs caught")


def test_each_invariant_has_its_bug() -> None:
    """And each bug has a name of its own, since that is how it is planted."""
    assert {bug.invariant for bug in BUGS} == {invariant.number for invariant in INVARIANTS}
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert [bug.name for bug in PLANTABLE if not (bug.edits and bug.nodes)] == []
