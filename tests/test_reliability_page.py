"""docs/reliability.md reports what the runs recorded: tests that did not run are not passed, and no record is lost."""

import re
from dataclasses import replace
from pathlib import Path

from reliability_page import (
    FAILED,
    NOT_RUN,
    PASSED,
    Invariant,
    Planted,
    Record,
    Records,
    dumped,
    holders_in,
    loaded,
    merged,
    named,
    page,
    without_paths,
)
from rows import each_row

DOCS = Path(__file__).parent.parent / "docs"
KILLS = "tests/reliability/test_kills.py::test_kills"
FULL = "tests/reliability/test_full.py::test_full"
BUG = "tests/reliability/test_planted_bugs.py::test_planted_bug_is_caught"


def record(outcome: str = PASSED, date: str = "2026-11-25", reason: str = "", **figures: int) -> Record:
    return Record(outcome, date, 3, "2 cores, Python 3.11.7", reason, figures)


def shown(records: Records, planted: tuple[Planted, ...] = ()) -> str:
    invariants = (Invariant(1, "Purity", "All bytes are right."), Invariant(2, "No holes", "None."))
    return page(invariants, planted, {KILLS: frozenset({1}), "tests/cache/test_x.py::test_y": frozenset({1})}, records)


@each_row(
    ("docstring", "numbers"),
    [
        ("All bytes are right (I7).", {7}),
        ("Both hold (I1, I3).", {1, 3}),
        ("RFC 9111 first (RFC 9111 section 4.2.4, I31).", {31}),
        ("I20: nobody listens.", {20}),
        ("The bytes (I1-I4, I9).", {1, 2, 3, 4, 9}),
        ("I am I, and I37, I0, XI5 and I100 are none.", set()),
        ("", set()),
    ],
)
def test_names_of_invariants(docstring: str, numbers: set[int]) -> None:
    """Invariants are found in each form in which a docstring names them, and similar text is not."""
    assert named(docstring) == numbers


def test_functions_of_a_module() -> None:
    """The functions found are the tests only, by the names that pytest gives them, also those in a class."""
    source = (
        'def test_a():\n    "One (I1)."\nasync def test_b(): ...\ndef other():\n    "(I2)"\n'
        'class TestC:\n    def test_d(self):\n        "Two (I2)."\n'
    )
    assert holders_in("t.py", source) == {"t.py::test_a": {1}, "t.py::test_b": set(), "t.py::TestC::test_d": {2}}


def test_a_run_of_some_tests_keeps_the_others() -> None:
    """A run replaces only the records of its own tests and its own size."""
    known = {"smoke": {KILLS: record(cycles=300), FULL: record()}, "soak": {KILLS: record(cycles=10_000)}}
    after = merged(known, "smoke", {KILLS: record(FAILED)}, {KILLS}, {KILLS, FULL})
    assert after == {"smoke": {FULL: record(), KILLS: record(FAILED)}, "soak": {KILLS: record(cycles=10_000)}}


def test_records_of_removed_tests_are_dropped() -> None:
    """Records of removed functions, and of parameters that a whole run of their function no longer had, are dropped."""
    known: Records = {"smoke": {f"{KILLS}[1]": record(), f"{KILLS}[2]": record(), FULL: record()}}
    ran = {f"{KILLS}[2]": record(), f"{KILLS}[3]": record()}
    assert set(merged(known, "smoke", ran, set(), {KILLS})["smoke"]) == {f"{KILLS}[{number}]" for number in (1, 2, 3)}
    assert set(merged(known, "smoke", ran, {KILLS}, {KILLS})["smoke"]) == {f"{KILLS}[2]", f"{KILLS}[3]"}


def test_records_survive_json() -> None:
    """Records survive JSON unchanged and in order, with a line for each test."""
    records = {"smoke": {FULL: record(NOT_RUN, reason="no strace"), KILLS: record(cycles=3)}, "soak": {}}
    assert loaded(dumped(records)) == records
    assert list(loaded(dumped(records))["smoke"]) == [FULL, KILLS]
    assert dumped(records).count("\n") == 9


def test_not_run_is_not_passed() -> None:
    """A test that did not run is counted and listed separately with its reason, and so is a failure."""
    text = shown({"smoke": {KILLS: record(), FULL: record(NOT_RUN, reason="no strace")}, "soak": {}})
    assert "| smoke | 2026-11-25 | 2 cores, Python 3.11.7 | 1 | 0 | 1 | 6 |" in text
    assert "- smoke: `test_full.py::test_full`: no strace" in text
    assert "| soak | not run |" in text
    text = shown({"smoke": {KILLS: record(FAILED)}})
    assert "| 0 | 1 | 0 | 3 |" in text
    assert "## Not run" not in text


def test_figures_of_all_parameters_add_up() -> None:
    """A function has one row, and its date is that of its last run."""
    text = shown({"smoke": {f"{KILLS}[1]": record(cycles=1000), f"{KILLS}[2]": record(date="2026-11-26", cycles=234)}})
    row = "[test_kills.py](../tests/reliability/test_kills.py) test_kills | I1 | smoke | 2026-11-26 | 6 | 2 passed |"
    assert f"| {row} 1,234 cycles |" in text
    assert "| smoke | 2026-11-25 to 2026-11-26 |" in text


def test_invariants_with_tests_and_bugs() -> None:
    """Each invariant is listed with its tests and the results of its bugs, from the last run of any size."""
    bugs = tuple(Planted(1, f"Bug {each}.", f"{BUG}[{each}]") for each in "abc")
    records = {
        "smoke": {f"{BUG}[a]": record(FAILED), f"{BUG}[b]": record(FAILED)},
        "soak": {f"{BUG}[a]": replace(record(date="2026-11-26"), caught_by=f"{KILLS}[1]")},
    }
    text = shown(records, bugs)
    assert "| [I1 Purity](#i1-purity) | 2 | 1 of 3 |\n| [I2 No holes](#i2-no-holes) | 0 | 0 of 0 |\n" in text
    section = text[text.index("### I1 Purity") : text.index("### I2 No holes")]
    assert "All bytes are right." in section
    assert "- [test_x.py](../tests/cache/test_x.py): test_y\n- [test_kills.py]" in section
    assert "- Bug a. Caught by [test_kills.py](../tests/reliability/test_kills.py) test_kills.\n" in section
    assert "test_kills.\n- Bug b. **Not caught.**\n- Bug c. Not tried.\n" in section
    assert "- no test" in text[text.index("### I2 No holes") :]


def test_links_lead_somewhere() -> None:
    """Links lead to files, seen from docs/ where the page is, and to the page's own headings."""
    text = page((Invariant(14, "Crash-only", "After a kill."),), (), {}, {})
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if link.startswith("#")] == ["#i14-crash-only"]
    files = [link for link in links if not link.startswith("#")]
    assert files
    assert [link for link in files if not (DOCS / link).exists()] == []


def test_the_same_records_give_the_same_page() -> None:
    """The page does not depend on the order in which tests ran."""
    one, other = {KILLS: record(), FULL: record()}, {FULL: record(), KILLS: record()}
    pages = {shown(merged({}, "smoke", ran, set(), {KILLS, FULL})) for ran in (one, other)}
    assert len(pages) == 1


@each_row(
    ("reason", "without"),
    [
        ("no strace in /usr/local/bin\nor elsewhere", "no strace in … or elsewhere"),
        ("mount /tmp/x/y failed", "mount … failed"),
        ("tmpfs and/or quota, 1/2 of it", "tmpfs and/or quota, 1/2 of it"),
        ("see tests/reliability/x.py", "see tests/reliability/x.py"),
    ],
)
def test_no_paths_of_the_machine(reason: str, without: str) -> None:
    """The page contains no folder of this machine."""
    assert without_paths(reason) == without
