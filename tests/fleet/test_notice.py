"""Notices: what one node writes, every other one reads, and garbage is garbage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache import Cause, Invalidation, KeyRange, PathGlob, PurgeSelection
from bucketfront.fleet.notice import (
    KEYS_OF_ONE,
    MAX_NOTICE_BYTES,
    Notice,
    Signal,
    UnreadableNotice,
    decoded,
    encoded,
    merged,
)
from bucketfront.keys import ObjectKey

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS = st.builds(ObjectKey, TEXT, TEXT, st.none() | TEXT)
GLOBS = st.none() | st.builds(PathGlob, st.sampled_from(["*.ts", "/a/**", "b?"]), TEXT, st.integers(0, 9))
SELECTIONS = st.builds(
    PurgeSelection,
    keys=st.frozensets(KEYS, max_size=4),
    ranges=st.lists(st.builds(KeyRange, TEXT, TEXT, GLOBS), max_size=1).map(tuple),
    tags=st.lists(TEXT, max_size=3, unique=True).map(tuple),
    versions=st.booleans(),
)
INVALIDATIONS = st.builds(Invalidation, SELECTIONS, st.sampled_from(Cause), st.booleans(), st.none() | TEXT)


@given(INVALIDATIONS | st.sampled_from(Signal))
def test_what_is_written_is_read(notice: Notice) -> None:
    """Keys of any characters, globs, tags and flags come out as they went in."""
    (form,) = encoded(notice)
    assert decoded(form) == notice


def test_all_of_the_cache_is_read() -> None:
    notice = Invalidation(PurgeSelection.of(everything=True), Cause.PURGED)
    (form,) = encoded(notice)
    assert decoded(form) == notice


def test_many_keys_are_several_notices() -> None:
    """Each notice is of bounded size, and together they have all keys and the ranges once."""
    keys = [ObjectKey("b", f"{number}" * 200) for number in range(KEYS_OF_ONE + 1)]
    notice = Invalidation(PurgeSelection.of(keys, [KeyRange("b", "p")]), Cause.WRITTEN, is_soft=True)
    forms = list(encoded(notice))
    parts = [decoded(form) for form in forms]
    assert all(len(form) < MAX_NOTICE_BYTES for form in forms)
    found = [part for part in parts if isinstance(part, Invalidation)]
    assert len(found) == 2
    assert frozenset().union(*(part.selection.keys for part in found)) == frozenset(keys)
    assert [part.selection.ranges for part in found] == [notice.selection.ranges, ()]
    assert all(part.is_soft for part in found)


GOOD = {"v": 1, "k": "invalid", "cause": "purged", "keys": [["b", "k", None]]}


WRONG: list[dict[str, object]] = [
    {"v": 2}, {"v": None}, {"k": "other"}, {"k": []}, {"cause": "other"}, {"keys": 1}, {"keys": [1]},
    {"keys": [["b"]]}, {"keys": [["b", 1, None]]}, {"keys": [["b", "\ud800", None]]}, {"all": 1},
    {"ranges": [["b", "p", "x" * 2000]]}, {"ranges": [["b", "p", "*", "", -1]]}, {"tags": [1]}, {"etag": 1},
]  # fmt: skip
GARBAGE = [b"", b"\xff", b"{}", b"[]", b"null", b"1", b"[" * 100_000, b"x" * (MAX_NOTICE_BYTES + 1)]


@each_row("data", [*GARBAGE, *(json.dumps(GOOD | wrong).encode() for wrong in WRONG)])
def test_garbage_is_unreadable(data: bytes) -> None:
    """Whatever a program adds to the stream is read or refused, and raises nothing else."""
    with pytest.raises(UnreadableNotice):
        decoded(data)


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(UnreadableNotice):
        decoded(data)


def test_keys_that_are_not_known_are_ignored() -> None:
    """A later release may add facts that an earlier one need not read."""
    assert decoded(json.dumps(GOOD | {"later": 1}).encode()) == decoded(json.dumps(GOOD).encode())


@given(st.lists(INVALIDATIONS | st.sampled_from(Signal), max_size=6))
def test_merging_loses_nothing(notices: list[Notice]) -> None:
    """The merged notices select the same keys, in the same manner, and all else stays."""

    def keys_of(found: list[Notice]) -> set[object]:
        return {
            (key, notice.is_soft, notice.cause, notice.etag, notice.selection.versions)
            for notice in found
            if isinstance(notice, Invalidation)
            for key in notice.selection.keys
        }

    found = merged(notices)
    assert keys_of(found) == keys_of(notices)
    rest = [notice for notice in notices if not isinstance(notice, Invalidation) or notice.selection.ranges]
    assert all(notice in found for notice in rest)
