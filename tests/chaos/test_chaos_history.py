"""The history checker finds each kind of violation, and accepts a valid history."""

from dataclasses import replace

import chaos_content as content
from chaos_content import Finding
from chaos_origin import Change
from history import Record, violations
from rows import each_row

KEY = "o"
SIZE = 1000


def change(version: int | None, at: float, size: int = SIZE) -> Change:
    return Change(KEY, version, size, "" if version is None else content.etag(KEY, version, size), at)


def read(version: int | None, start: float, end: float | None = None, *, connection: int = 1) -> Record:
    """Return the record of a whole GET that got that version, or a 404 for None."""
    return Record(
        client=connection,
        connection=connection,
        operation="GET",
        key=KEY,
        start=start,
        end=start + 0.5 if end is None else end,
        outcome="absent" if version is None else "done",
        status=404 if version is None else 200,
        version=version,
        etag="" if version is None else content.etag(KEY, version, SIZE),
        received=0 if version is None else SIZE,
        finding=Finding() if version is None else Finding((version,)),
    )


def write(version: int | None, start: float, end: float, *, size: int = SIZE) -> Record:
    """Return the record of an acknowledged PUT, or of a DELETE for None."""
    return Record(
        client=9,
        connection=9,
        operation="DELETE" if version is None else "PUT",
        key=KEY,
        start=start,
        end=end,
        outcome="done",
        status=204 if version is None else 201,
        version=version,
        received=0 if version is None else size,
    )


HISTORY = [change(1, 0.0), change(2, 10.0), change(None, 20.0), change(3, 30.0)]


def rules(*records: Record, history: list[Change] = HISTORY, staleness: float = float("inf")) -> list[str]:
    return [violation.rule for violation in violations(records, history, staleness)]


def test_a_clean_history_passes() -> None:
    """A valid history passes: each version in its time, stale reads, writes, deletes, ranges and failed requests."""
    ranged = replace(read(2, 12.0), span=(990, 2000), status=206, received=10)
    assert not rules(
        read(None, -1.0),
        read(1, 1.0),
        read(1, 10.5),  # permitted for a cache
        write(2, 9.0, 11.0),
        read(2, 11.5),
        ranged,
        replace(ranged, span=(995, None), received=5),
        write(None, 19.0, 21.0),
        read(None, 22.0),
        read(3, 31.0),
        replace(read(3, 32.0), operation="HEAD", finding=Finding()),
        replace(read(None, 33.0), outcome="failed", status=502),
        replace(read(3, 34.0), outcome="cut", received=7),
        replace(write(7, 35.0, 36.0), outcome="failed", status=502),
        replace(write(8, 35.0, 36.0), outcome="aborted", status=0),
    )


@each_row(
    ("finding", "rule"),
    [
        (Finding((1, 2)), "I1"),
        (Finding((2,)), "I1"),  # another version than in its head
        (Finding((1,), wrong_at=5), "I1"),
        (Finding((1,), wrong_at=5, is_hole=True), "I2"),
    ],
)
def test_bodies(finding: Finding, rule: str) -> None:
    """A body is found that is mixed, wrong, with a hole or not of its head's version, complete or not."""
    assert rules(replace(read(1, 1.0), finding=finding)) == [rule]
    assert rules(replace(read(1, 1.0), finding=finding, outcome="cut")) == [rule]


def test_short_bodies() -> None:
    """A body that ended cleanly has all bytes of its version and range (I3), and a cut one need not."""
    short = replace(read(1, 1.0), received=SIZE - 1)
    assert rules(short) == ["I3"]
    assert rules(replace(short, outcome="cut")) == []
    assert rules(replace(short, outcome="aborted")) == []
    assert rules(replace(read(1, 1.0), status=206, span=(10, 20), received=9)) == ["I3"]
    assert rules(replace(read(1, 1.0), operation="HEAD", received=5)) == ["I3"]
    assert rules(replace(read(1, 1.0), outcome="garbled", version=None)) == ["I3"]


def test_metadata_of_another_version() -> None:
    """ETag and version are of one origin response (I4), unless the script made the ETag up."""
    assert rules(replace(read(1, 1.0), etag=content.etag(KEY, 2, SIZE))) == ["I4"]
    assert rules(replace(read(1, 1.0), etag='"lie-5"')) == []


def test_no_response() -> None:
    """A request without a response is a violation (I20)."""
    assert rules(replace(read(None, 1.0), outcome="hung")) == ["I20"]


def test_versions_that_never_were() -> None:
    """A version is a violation if it was never written or was written later, and so is absence before any existed."""
    assert rules(read(77, 1.0)) == ["I1"]
    assert rules(read(2, 1.0)) == ["I1"]
    assert rules(read(None, 11.0), history=[change(1, 0.0), change(None, 20.0)]) == []
    assert rules(read(None, 11.0), write(1, -1.0, 1.0), history=[change(1, 0.0), change(None, 20.0)]) == ["I5"]


def test_stale_after_a_write() -> None:
    """A read that begins after the response to a write gives that version or a newer one (I5), and an earlier read need
    not.
    """
    assert rules(write(2, 9.0, 11.0), read(1, 11.1)) == ["I5"]
    assert rules(write(2, 9.0, 11.0), read(1, 10.9, 12.0)) == []
    assert rules(write(2, 9.0, 11.0), read(3, 31.0)) == []
    assert rules(write(None, 19.0, 21.0), read(2, 21.5)) == ["I5"]
    assert rules(write(None, 19.0, 21.0), write(3, 29.0, 31.0), read(None, 32.0)) == ["I5"]
    assert rules(write(3, 29.0, 31.0), replace(read(2, 32.0), operation="HEAD", finding=Finding())) == ["I5"]
    assert rules(replace(write(2, 9.0, 11.0), outcome="failed"), read(1, 11.1)) == [], "an unknown outcome"
    assert rules(write(2, 9.0, 11.0), replace(read(1, 11.1), key="other"))[0] == "I1"


def test_versions_never_go_backwards_on_a_connection() -> None:
    """Versions never go backwards on one connection (I7), but may on another one."""
    assert rules(read(2, 11.0), read(1, 12.0)) == ["I7"]
    assert rules(read(2, 11.0), read(1, 12.0, connection=2)) == []
    assert rules(read(None, 21.0), read(2, 22.0)) == []  # the object was absent before its first version as well
    assert rules(read(2, 19.0), read(None, 21.0), read(2, 22.0)) == ["I7"]


def test_bounded_staleness() -> None:
    """A version may be served for a limited time after another one replaced it (I7)."""
    assert rules(read(1, 12.9), staleness=3.0) == []
    assert rules(read(1, 13.1), staleness=3.0) == ["I7"]
    assert rules(read(None, 33.1), staleness=3.0) == ["I7"]


def test_failed_writes() -> None:
    """A refused or aborted write changes nothing, and an acknowledged one took place (I8)."""
    put = write(2, 9.0, 11.0)
    assert rules(replace(put, outcome="refused", status=400)) == ["I8"]
    assert rules(replace(put, outcome="aborted")) == ["I8"]
    assert rules(replace(put, outcome="failed", status=502)) == []
    assert rules(replace(put, outcome="cut")) == []
    assert rules(write(5, 9.0, 11.0)) == ["I8"]
    assert rules(write(2, 10.5, 11.0)) == ["I8"], "it took place before"
    assert rules(write(None, 22.0, 23.0)) == ["I8"]


def test_a_shorter_object() -> None:
    """A stored object has the length that was sent, whatever response the client got (I8)."""
    for outcome in ("done", "failed", "cut"):
        assert rules(replace(write(2, 9.0, 11.0, size=SIZE + 1), outcome=outcome)) == ["I8"]
