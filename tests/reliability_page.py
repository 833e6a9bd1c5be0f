"""The text of docs/reliability.md: the invariants, their tests, and the results of the last runs. No I/O here.

Rule 1: the last run of a test counts, separately for each size. A run of some tests leaves the results of the others.
Rule 2: a test that did not run is listed with the reason. It never counts as passed.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SIZES = ("smoke", "soak")
COUNT = 36
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"

_NAMED = re.compile(r"\bI([1-9][0-9]?)(?:-I([1-9][0-9]?))?\b")
_NO_ANCHOR = re.compile(r"[^\w -]")
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+[\w.+@-]*")
_HEAD = """\
# Reliability

The invariants of bucketfront, the tests that check them, and the figures that these tests recorded.

- The tests of [tests/reliability](../tests/reliability) write this page when they run. `make reliability` is the smoke
  size and takes minutes, `make soak` is the long size and takes hours. The last run of each test counts, with its date.
- The other tests run in `make test`, and the long ones of tests/server in `make reliability`. They are listed here
  without their outcome.
- For each invariant, [bugs](../tests/reliability/planted_bugs.py) that break it are planted, one at a time. If the
  tests still passed with a bug, they would prove nothing.
"""


@dataclass(frozen=True, slots=True)
class Invariant:
    number: int
    title: str
    statement: str


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug, and the node of the test that catches it."""

    invariant: int
    what: str
    node: str


@dataclass(frozen=True, slots=True)
class Record:
    """The last run of a test.

    `reason` is why it did not run. `seconds` is a whole number, `date` is as in 2026-11-25. `caught_by` is the node of
    the test that caught a planted bug.
    """

    outcome: str
    date: str
    seconds: int
    machine: str
    reason: str = ""
    figures: dict[str, int] = field(default_factory=dict)
    caught_by: str = ""


Records = dict[str, dict[str, Record]]
"""By size, then by the test's node."""


def function_of(node: str) -> str:
    """Return the node without its parameters."""
    return node.partition("[")[0]


def named(docstring: str) -> frozenset[int]:
    """Return the invariants that a docstring names, as in `(I7)`, `I1, I3` or `I1-I4`."""
    found = set[int]()
    for match in _NAMED.finditer(docstring):
        first = int(match[1])
        found |= set(range(first, int(match[2] or first) + 1))
    return frozenset(found & set(range(1, COUNT + 1)))


def holders_in(path: str, source: str) -> dict[str, frozenset[int]]:
    """Return the test functions of a module, and the invariants that each of them names."""
    return {f"{path}::{name}": named(docstring) for name, docstring in _functions(ast.parse(source).body)}


def _functions(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _functions(node.body, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield prefix + node.name, ast.get_docstring(node) or ""


def without_paths(text: str) -> str:
    """Return a reason on one line and without the machine's own paths."""
    return _PATH.sub("…", " ".join(text.split()))


def merged(known: Records, size: str, ran: Mapping[str, Record], whole: set[str], existing: Iterable[str]) -> Records:
    """Return the records after a run.

    `whole` are the functions of which all parameters ran, so their other parameters are dropped. Functions that are not
    `existing` are dropped as well.
    """
    there = set(existing)
    result: Records = {}
    for each in SIZES:
        records = dict(known.get(each, {}))
        if each == size:
            records = {node: record for node, record in records.items() if function_of(node) not in whole} | dict(ran)
        result[each] = {node: records[node] for node in sorted(records) if function_of(node) in there}
    return result


def dumped(records: Records) -> str:
    """Return JSON with a line for each test, so that a run changes only its own lines."""
    sizes = []
    for size, tests in records.items():
        lines = (f"{json.dumps(node)}: {json.dumps(_plain(record), sort_keys=True)}" for node, record in tests.items())
        sizes.append(f"{json.dumps(size)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(sizes) + "\n}\n"


def _plain(record: Record) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value not in ("", {})}


def loaded(text: str) -> Records:
    return {
        size: {node: Record(**record) for node, record in tests.items()} for size, tests in json.loads(text).items()
    }


def page(
    invariants: Sequence[Invariant],
    planted: Sequence[Planted],
    tests: Mapping[str, frozenset[int]],
    records: Records,
) -> str:
    """Return the page. `tests` are all functions with the invariants that they name."""
    overview, details = [], []
    for invariant in invariants:
        holders = [test for test, numbers in tests.items() if invariant.number in numbers]
        bugs = [bug for bug in planted if bug.invariant == invariant.number]
        runs = [_last_run(bug, records) for bug in bugs]
        caught = sum(run is not None and run.outcome == PASSED for run in runs)
        overview.append((_linked(invariant), f"{len(holders)}", f"{caught} of {len(bugs)}"))
        details.append(_section(invariant, holders, bugs, records))
    head = [_HEAD, *_runs(records), *_figures(tests, records), *_not_run(records)]
    return "\n".join([*head, "## Invariants\n", _table(("invariant", "tests", "bugs caught"), overview), *details])


def _runs(records: Records) -> Iterator[str]:
    rows = []
    for size, tests in records.items():
        if not tests:
            rows.append((size, NOT_RUN, *[""] * 5))
            continue
        counts = Counter(record.outcome for record in tests.values())
        dates = sorted({record.date for record in tests.values()})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        machines = ", or ".join(sorted({record.machine for record in tests.values()}))
        seconds = sum(record.seconds for record in tests.values())
        rows.append(
            (size, when, machines, *(f"{counts[each]:,}" for each in (PASSED, FAILED, NOT_RUN)), f"{seconds:,}")
        )
    yield "## Last runs\n"
    yield _table(("size", "date", "machine", PASSED, FAILED, NOT_RUN, "seconds"), rows)


def _figures(tests: Mapping[str, frozenset[int]], records: Records) -> Iterator[str]:
    rows = []
    for size, by_node in records.items():
        functions: dict[str, list[Record]] = {}
        for node, record in by_node.items():
            functions.setdefault(function_of(node), []).append(record)
        for function, found in functions.items():
            figures = Counter[str]()
            for record in found:
                figures.update(record.figures)
            path, _, name = function.rpartition("::")
            rows.append(
                (
                    f"{_module(path)} {name}",
                    " ".join(f"I{number}" for number in sorted(tests.get(function, ()))),
                    size,
                    max(record.date for record in found),
                    f"{sum(record.seconds for record in found):,}",
                    _outcomes(found),
                    ", ".join(f"{count:,} {what}" for what, count in sorted(figures.items())),
                )
            )
    yield "## What was seen\n"
    yield _table(("test", "invariants", "size", "date", "seconds", "outcome", "seen"), sorted(rows))


def _outcomes(found: Sequence[Record]) -> str:
    counts = Counter(record.outcome for record in found)
    if len(found) == 1:
        return found[0].outcome
    return ", ".join(f"{counts[each]} {each}" for each in (PASSED, FAILED, NOT_RUN) if counts[each])


def _not_run(records: Records) -> Iterator[str]:
    lines = [
        f"- {size}: `{node.rpartition('/')[2]}`: {record.reason or 'no reason given'}"
        for size, tests in records.items()
        for node, record in tests.items()
        if record.outcome == NOT_RUN
    ]
    if lines:
        yield "## Not run\n"
        yield "\n".join(lines) + "\n"


def _section(invariant: Invariant, holders: Sequence[str], bugs: Sequence[Planted], records: Records) -> str:
    modules: dict[str, list[str]] = {}
    for holder in sorted(holders):
        path, _, name = holder.partition("::")
        modules.setdefault(path, []).append(name)
    lines = [f"### I{invariant.number} {invariant.title}\n", f"{invariant.statement}\n", "Held by"]
    lines += [f"- {_module(path)}: {', '.join(names)}" for path, names in modules.items()] or ["- no test"]
    lines += ["", "Planted"]
    lines += [f"- {bug.what} {_caught(bug, records)}" for bug in bugs] or ["- nothing"]
    return "\n".join(lines) + "\n"


def _caught(bug: Planted, records: Records) -> str:
    last = _last_run(bug, records)
    if last is None:
        return "Not tried."
    if last.outcome != PASSED:
        return "**Not caught.**"
    path, _, name = function_of(last.caught_by).partition("::")
    return f"Caught by {_module(path)} {name}." if name else "Caught."


def _last_run(bug: Planted, records: Records) -> Record | None:
    """Return the last run of a bug's test, of whatever size. Returns None if there was no run."""
    found = [tests[bug.node] for tests in records.values() if bug.node in tests]
    return max(found, key=lambda record: record.date, default=None)


def _linked(invariant: Invariant) -> str:
    """Return a link to the invariant's section, with the anchor that GitHub makes."""
    title = f"I{invariant.number} {invariant.title}"
    return f"[{title}](#{_NO_ANCHOR.sub('', title.lower()).replace(' ', '-')})"


def _module(path: str) -> str:
    return f"[{path.rpartition('/')[2]}](../{path})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
