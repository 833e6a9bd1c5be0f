"""Planting bugs: an edit that no longer fits must not look like a bug that the tests missed or caught."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from planting import Edit, NothingToPlant, plant
from rows import each_row


class Above:
    def __init__(self) -> None:
        self.start = 1


class Subject(Above):
    def __init__(self) -> None:
        super().__init__()
        self.stop = 3

    @property
    def length(self) -> int:
        return self.stop - self.start  # a comment, and two spaces before it

    async def sent(self) -> int:
        return self.length

    def twice(self) -> list[int]:
        return [self.start, self.stop]


def plain(value: int) -> int:
    return value + 1


@contextmanager
def around() -> Iterator[int]:
    yield 1


alias = plain


def target(name: str) -> str:
    return f"{__name__}:{name}"


def test_imported_functions_have_the_bug() -> None:
    """The function's own code changes, so no import or alias keeps the right one."""
    assert alias(1) == 2
    plant(Edit(target("plain"), "value + 1", "value + 2"))
    assert alias(1) == 3


def test_methods_of_all_kinds() -> None:
    """Properties, coroutines, context managers, and methods that call `super()` can be edited."""
    plant(Edit(target("Subject.__init__"), "self.stop = 3", "self.stop = 5"))
    plant(Edit(target("Subject.length"), "self.stop - self.start", "self.stop - self.start + 1"))
    plant(Edit(target("Subject.sent"), "return self.length", "return self.length * 10"))
    plant(Edit(target("around"), "yield 1", "yield 2"))
    assert Subject().length == 5
    assert asyncio.run(Subject().sent()) == 50
    with around() as found:
        assert found == 2


def test_two_edits_of_one_function() -> None:
    """The second edit finds the result of the first."""
    plant(Edit(target("Subject.twice"), "[self.start, ", "[0, "))
    plant(Edit(target("Subject.twice"), "self.stop]", "0]"))
    assert Subject().twice() == [0, 0]


@each_row(
    ("name", "old"),
    [
        ("plain", "value - 1"),  # not there
        ("Subject.__init__", "self"),  # twice
        ("gone", "value"),
        ("Subject.gone", "value"),
        ("Subject", "value"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(name: str, old: str) -> None:
    """An edit that does not fit exactly once is refused."""
    with pytest.raises(NothingToPlant):
        plant(Edit(target(name), old, "0"))


def test_no_such_module() -> None:
    """An edit in a module that no longer exists is refused."""
    with pytest.raises(NothingToPlant):
        plant(Edit("proxy.gone:f", "a", "b"))
