"""Tests of many rows in one, because a test of its own costs pytest ten times the time of a row.

`make test` runs a sample of long tables, and `make long` all of them.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

Test = Callable[..., Any]
Ids = Callable[[Any], object] | Iterable[str] | None

IS_WHOLE = os.environ.get("TEST_ALL") == "1"  # no samples: all rows, and many examples
MAX_FAILURES = 3  # if the rows hang, each costs a minute


def examples(few: int, many: int) -> int:
    """Return how many examples a property has: few in `make test`."""
    return many if IS_WHOLE else few


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Ids = None, *, few: int | None = None
) -> Callable[[Test], Test]:
    """Let a test run for each row, with the parameters of `pytest.mark.parametrize`, as one test.

    It runs all rows, and fails with what each row has failed with. Each row has a folder of its own as `tmp_path`.
    The rows share all other fixtures, so that a test whose fixtures keep what a row leaves behind needs `parametrize`.
    With `few`, `make test` has so many of the rows, evenly spread, and `make long` runs the test with all.
    """
    is_single = isinstance(names, str) and "," not in names  # whose rows are the values themselves
    fields = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    sets = [ParameterSet.extract_from(row, force_tuple=is_single) for row in rows]
    assert not any(found.marks for found in sets), "a row has no marks of its own"
    values = [dict(zip(fields, found.values, strict=True)) for found in sets]
    table = list(zip(_labels(sets, values, ids), values, strict=True))
    if few is not None and not IS_WHOLE:
        table = [table[at * len(table) // few] for at in range(min(few, len(table)))]

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        others = [field for name, field in signature.parameters.items() if name not in fields]
        assert len(others) == len(signature.parameters) - len(fields), f"{test.__name__} takes no such parameters"

        def of_all_rows(**fixtures: Any) -> None:
            with _failures() as of:
                for number, (label, values) in enumerate(table):
                    with of(label):
                        test(**_with_own_folder(fixtures, number), **values)

        async def of_all_rows_in_turn(**fixtures: Any) -> None:
            with _failures() as of:
                for number, (label, values) in enumerate(table):
                    with of(label):
                        await test(**_with_own_folder(fixtures, number), **values)

        made: Any = of_all_rows_in_turn if inspect.iscoroutinefunction(test) else of_all_rows
        functools.update_wrapper(made, test)
        made.__signature__ = signature.replace(parameters=others)  # pytest reads it
        marked: Test = made if few is None else pytest.mark.sampled(made)
        return marked

    return decorate


def _labels(sets: list[ParameterSet], values: list[dict[str, Any]], ids: Ids) -> Iterator[str]:
    """Yield what names each row in a failure."""
    given = list(ids) if ids is not None and not callable(ids) else None
    for number, found in enumerate(sets):
        if isinstance(found.id, str):
            yield found.id
        elif given is not None:
            yield given[number]
        else:
            yield "-".join(str(ids(value)) for value in found.values) if callable(ids) else repr(values[number])


def _with_own_folder(fixtures: dict[str, Any], number: int) -> dict[str, Any]:
    if "tmp_path" not in fixtures:
        return fixtures
    folder: Path = fixtures["tmp_path"] / str(number)
    folder.mkdir()
    return fixtures | {"tmp_path": folder}


@contextmanager
def _failures() -> Iterator[Callable[[str], Any]]:
    """Yield a function whose blocks may fail, and raise at the end what they have raised."""
    found: list[BaseException] = []

    @contextmanager
    def of(label: str) -> Iterator[None]:
        try:
            yield
        except (Exception, pytest.fail.Exception) as failure:  # noqa: BLE001 - raised below
            failure.add_note(f"in the row {label}")
            found.append(failure)
            if len(found) == MAX_FAILURES:
                raise BaseExceptionGroup("rows fail, and no more of them run", found) from None

    yield of
    if len(found) == 1:
        raise found[0]
    if found:
        raise BaseExceptionGroup(f"{len(found)} rows fail", found)
