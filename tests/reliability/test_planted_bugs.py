"""For each invariant, bugs that break it are planted one at a time, each in its own process: the tests must fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evidence import Evidence
from invariants import INVARIANTS
from planted_bugs import BUGS, NODES, Bug
from planted_plugin import CAUGHT, PASSED, WITHOUT

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TRIALS_TIMEOUT_S = 1800  # seconds for all bugs, on a loaded machine

Outcomes = dict[str, dict[str, str]]
"""By the bug's name, then by the test's node; see `planted_plugin`."""


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Return the outcomes of the tests for the bugs, and without a bug, that this session selects."""
    bugs: list[Bug] = []
    wanted: list[str] = []
    for item in request.session.items:
        if item.name == test_nothing_is_caught_where_nothing_is_planted.__name__:
            wanted.append(WITHOUT)
        elif isinstance(item, pytest.Function) and item.originalname == test_planted_bug_is_caught.__name__:
            bug = item.callspec.params["bug"]
            assert isinstance(bug, Bug)
            bugs.append(bug)
    wanted += [bug.name for bug in bugs]
    nodes = NODES if WITHOUT in wanted else tuple(dict.fromkeys(node for bug in bugs for node in bug.nodes))
    folder = tmp_path_factory.mktemp("noted")
    # All processes would share one file of captured output.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "planted_plugin", "--capture=sys"]
    # Under CI pytest explains a failed comparison in full, which takes minutes for a body of 100 KB.
    command += ["--assert=plain", "--noted", str(folder), *(f"--planted={name}" for name in wanted), *nodes]
    path = os.pathsep.join((str(HERE), str(HERE.parent)))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": "", "TEST_ALL": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRIALS_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    return {noted.stem: json.loads(noted.read_text()) for noted in folder.iterdir()}


def test_nothing_is_caught_where_nothing_is_planted(outcomes: Outcomes, evidence: Evidence) -> None:
    """The same tests pass without a bug."""
    found = outcomes.get(WITHOUT, {})
    assert {node: outcome for node, outcome in found.items() if outcome != PASSED} == {}
    for wanted in NODES:
        assert any(node.startswith(wanted) for node in found), wanted
    evidence.add("tests without a bug", len(found))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"I{bug.invariant}-{bug.name}")
def test_planted_bug_is_caught(bug: Bug, outcomes: Outcomes, evidence: Evidence) -> None:
    """With the bug planted, one of its tests fails by an assertion of its own."""
    found = outcomes.get(bug.name)
    assert found is not None, "its process ended before its tests did"
    assert CAUGHT in found.values(), found
    evidence.caught_by.extend(node for node, outcome in found.items() if outcome == CAUGHT)
    evidence.add("bugs caught")


def test_each_invariant_has_its_bug() -> None:
    """Each invariant has a bug, and each bug has a name of its own, by which it is planted."""
    assert {bug.invariant for bug in BUGS} == {invariant.number for invariant in INVARIANTS}
    assert len({bug.name for bug in BUGS} | {WITHOUT}) == len(BUGS) + 1
    assert [bug.name for bug in BUGS if not (bug.edits and bug.nodes)] == []
