"""The pure rules of warm jobs: the pace, the allowance, and the file of a manifest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.warm import manifest
from bucketfront.warm.allowance import OBJECT_BYTES, Allowance
from bucketfront.warm.manifest import BadManifest, Wanted
from bucketfront.warm.pace import Meter, Pace

MIB = 1 << 20


def test_pace() -> None:
    """Pieces follow each other at the rate, whichever worker brings them, and an idle time is not made up for."""
    pace = Pace(100)
    assert pace.take(50, 10.0) == 0.5
    assert pace.take(100, 10.0) == 1.5
    assert pace.take(100, 11.0) == 1.5
    assert pace.take(100, 60.0) == 1.0
    assert Pace(None).take(1 << 60, 0.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 3)), min_size=1))
def test_no_burst_passes_the_rate(pieces: list[tuple[int, float]]) -> None:
    """The last of any pieces ends no earlier than the rate allows for all of them."""
    pace, now, end, total = Pace(100), 0.0, 0.0, 0
    for count, pause in pieces:
        now += pause
        total += count
        end = now + pace.take(count, now)
    assert end >= total / 100 - 1e-6


def test_meter() -> None:
    """The measured rate is that of the last seconds, and of the time so far at the begin."""
    meter = Meter(0.0)
    assert meter.rate(0, 0.0) == 0.0
    assert meter.rate(100, 2.0) == 50.0
    for second in range(1, 60):
        meter.note(1000 * min(second, 30), float(second))
    assert meter.rate(30_000, 60.0) == 0.0


def test_room_of_a_cache_with_free_space() -> None:
    """A job takes what is free but for a fiftieth, and counts what is on its way once."""
    allowance = Allowance(100 * MIB)
    assert allowance.take(40 * MIB, 60 * MIB)
    assert not allowance.take(40 * MIB, 60 * MIB)
    allowance.landed(40 * MIB)
    assert allowance.take(40 * MIB, 60 * MIB)
    assert not allowance.take(MIB, 2 * MIB)


def test_room_of_a_full_cache() -> None:
    """In a full cache, a job's objects may take a tenth in all, those that were there included."""
    allowance = Allowance(100 * MIB)
    assert allowance.take(6 * MIB, 0)
    allowance.note_present(2 * MIB)
    assert not allowance.take(3 * MIB, 0)
    assert allowance.take(2 * MIB - 2 * OBJECT_BYTES, 0)
    assert not allowance.take(1, 0)


def test_manifest() -> None:
    """What is written is read, also among comments and plain paths."""
    wanted = [Wanted("/a/ü%20b"), Wanted("/c", "bytes=0-9,20-")]
    lines = [manifest.header("1.2"), "", "# a comment", *(one.line() for one in wanted), "/plain?x=1"]
    assert list(manifest.read(lines)) == [*wanted, Wanted("/plain?x=1")]
    assert list(manifest.read([])) == []


@each_row(
    ("line", "reason"),
    [
        ("a/b", "line 2 is neither a path"),
        ('{"path": "/a"', "was the file cut"),
        ("[1]", "no JSON object"),
        ('{"bucketfront-manifest": 2}', "reads version 1"),
        ('{"path": "a"}', "begins with /"),
        ('{"range": "bytes=0-1"}', 'must have "path"'),
        ('{"path": "/a", "range": 1}', 'may have "range"'),
        ("/" + "x" * 20_000, "more than 16384"),
    ],
)
def test_a_manifest_of_no_use(line: str, reason: str) -> None:
    """A line that is of no use is named with its number and the cure."""
    with pytest.raises(BadManifest, match=reason):
        list(manifest.read(["/fine", line]))
