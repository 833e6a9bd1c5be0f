"""Tests of many rows in one."""

from pathlib import Path

import pytest
import rows
from rows import each_row

seen: list[object] = []
folders: set[Path] = set()


@each_row(("number", "text"), [(1, "a"), pytest.param(2, "b", id="second")])
def test_each_row_runs(number: int, text: str, tmp_path: Path) -> None:
    """A test runs for each row, and each has an empty folder of its own."""
    seen.append((number, text))
    folders.add(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (len(seen), len(folders)) == (number, number)


@each_row("word", ["a", "b"])
@each_row("number", [1, 2])
async def test_tables_multiply(word: str, number: int) -> None:
    """Two tables make a row of each pair, also of an asynchronous test."""
    assert (word, number) in [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_all_rows_run_before_it_fails() -> None:
    """The failure has the name of each row that failed, and what it failed with, also if it raised too little."""
    ran = []

    @each_row("number", [0, 1, 2, 3])
    def test(number: int) -> None:
        ran.append(number)
        if number == 2:
            with pytest.raises(ValueError, match="two"):
                pass
        assert number != 1

    with pytest.raises(BaseExceptionGroup) as raised:
        test()
    assert ran == [0, 1, 2, 3]
    assert [failure.__notes__ for failure in raised.value.exceptions] == [
        ["in the row {'number': 1}"],
        ["in the row {'number': 2}"],
    ]


def test_one_failure_is_itself() -> None:
    """The failure of a single row is raised as it is, so that pytest explains it."""

    @each_row("number", [1, 2], ids=["one", "two"])
    def test(number: int) -> None:
        assert number == 1

    with pytest.raises(AssertionError) as raised:
        test()
    assert raised.value.__notes__ == ["in the row two"]


def test_few_failures_are_enough() -> None:
    """A test ends after a few rows that fail, because each may wait for its time-out."""
    ran = []

    @each_row("number", range(100))
    def test(number: int) -> None:
        ran.append(number)
        raise AssertionError

    with pytest.raises(BaseExceptionGroup):
        test()
    assert ran == list(range(rows.MAX_FAILURES))


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_sample(monkeypatch: pytest.MonkeyPatch, is_whole: bool) -> None:
    """`make test` has a few rows from all places of a long table, and `make long` all of them."""
    monkeypatch.setattr(rows, "IS_WHOLE", is_whole)
    ran = []

    @each_row("number", range(100), few=4)
    def test(number: int) -> None:
        ran.append(number)

    test()
    assert ran == (list(range(100)) if is_whole else [0, 25, 50, 75])
    assert [mark.name for mark in test.pytestmark] == ["sampled"]  # type: ignore[attr-defined]  # set by the mark


def test_a_row_of_another_length() -> None:
    """A table that does not fit the test is an error of its module, and no test that passes."""
    with pytest.raises(ValueError, match="zip"):
        each_row(("a", "b"), [(1, 2, 3)])
    with pytest.raises(AssertionError, match="no such parameters"):
        each_row("missing", [1])(lambda number: None)
