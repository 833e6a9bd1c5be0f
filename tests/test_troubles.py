"""What an operator is told of failures: few lines, at once, with their number and their end."""

import itertools

import pytest
from fakes import FakeClock
from rows import each_row

from bucketfront.troubles import (
    INTERVAL_S,
    SETTLE_S,
    TRANSITIONS,
    Kind,
    Reason,
    Troubles,
    TroubleState,
)

KEYS = Kind(Reason.CREDENTIALS_REFUSED, "ExpiredToken", "the keys are refused", "the keys are accepted again")
DISK = Kind(Reason.DISK_FAILING, "disk", "the disk fails", "the disk works again", what_failed="calls failed")


class Subject:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lines: list[str] = []
        self.troubles = Troubles(self.clock, self.lines.append)

    def taken(self) -> list[str]:
        lines, self.lines[:] = list(self.lines), []
        return lines

    def works(self, kind: Kind = KEYS) -> None:
        self.troubles.succeeded(kind.__eq__)

    def passes(self, seconds: float) -> None:
        """Let time pass, with a tick each second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.troubles.tick()


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_the_first_failure_is_told_at_once(subject: Subject) -> None:
    """The first failure of a kind is reported at once, with its detail, and each kind for itself."""
    subject.troubles.failed(KEYS, "403")
    subject.troubles.failed(DISK, "EIO", 3)
    assert subject.taken() == ["the keys are refused: 403", "the disk fails: EIO; 3 calls failed"]
    assert [trouble.kind for trouble in subject.troubles.failing] == [KEYS, DISK]


def test_one_line_a_minute(subject: Subject) -> None:
    """While a kind fails, it has one line a minute with the number of failures, and none if nothing failed since."""
    for _ in range(10 * int(INTERVAL_S)):
        subject.troubles.failed(KEYS, "403")
        subject.clock.advance(1)
    lines = subject.taken()
    assert len(lines) == 10
    assert lines[2] == "the keys are refused, for 2 min now: 403; 60 requests failed since the last line of this kind"
    subject.passes(10 * INTERVAL_S)
    assert len(subject.taken()) == 1  # the failures of the last minute


def test_a_burst_is_counted_without_a_further_failure(subject: Subject) -> None:
    """The number of a burst is reported after a minute, also if no further failure comes."""
    for _ in range(214):
        subject.troubles.failed(KEYS, "403")
    subject.taken()
    subject.passes(INTERVAL_S)
    assert subject.taken() == [
        "the keys are refused, for 60 s now: 403; 213 requests failed since the last line of this kind"
    ]


def test_the_end_is_told(subject: Subject) -> None:
    """The end is reported with duration and number, once no failure came for a while after a success."""
    for _ in range(3 * 60):
        subject.troubles.failed(KEYS, "403")
        subject.clock.advance(1)
    subject.taken()
    subject.works()
    assert subject.troubles.failing == []
    assert subject.taken() == []
    subject.passes(SETTLE_S)
    assert subject.taken() == ["the keys are accepted again after 3 min, 180 requests failed"]
    subject.works()
    subject.passes(2 * INTERVAL_S)
    assert subject.taken() == []


def test_silence_is_no_success(subject: Subject) -> None:
    """Without a success, a trouble does not end."""
    subject.troubles.failed(KEYS, "403")
    subject.works(DISK)
    subject.taken()
    subject.passes(10 * INTERVAL_S)
    assert [trouble.kind for trouble in subject.troubles.failing] == [KEYS]
    assert subject.taken() == []


def test_a_failure_now_and_then_does_not_flicker(subject: Subject) -> None:
    """A kind that fails and works in turns has one warning a minute and no end."""
    for _ in range(300):
        subject.troubles.failed(KEYS, "403")
        subject.works()
        subject.clock.advance(SETTLE_S - 1)
        subject.troubles.tick()
    lines = subject.taken()
    assert len(lines) == 300 * (SETTLE_S - 1) // INTERVAL_S
    assert all(line.startswith("the keys are refused") for line in lines)


def test_an_end_belongs_to_a_warning(subject: Subject) -> None:
    """A kind that comes and goes has at most one warning and one end a minute."""
    for _ in range(60):
        subject.troubles.failed(KEYS, "403")
        subject.works()
        subject.passes(SETTLE_S)
    lines = subject.taken()
    starts = [line for line in lines if line.startswith("the keys are refused")]
    assert len(starts) == 60 * SETTLE_S // INTERVAL_S
    assert len(lines) == 2 * len(starts)


def test_a_part_that_warns_itself(subject: Subject) -> None:
    """Of a part with warnings of its own, only the end is reported."""
    kind = Kind(Reason.ACCESS_LOG_FAILING, "log", "lines are lost", "no more lines are lost", has_own_warning=True)
    subject.troubles.failed(kind, "")
    subject.works(kind)
    subject.passes(SETTLE_S)
    assert subject.taken() == ["no more lines are lost after less than 1 s"]


@each_row("events", map("".join, itertools.product("fst", repeat=5)))
def test_what_fails_now(events: str) -> None:
    """A kind fails now if its last outcome is a failure, whatever came before and however long ago that is."""
    subject = Subject()
    for event in events:
        match event:
            case "f":
                subject.troubles.failed(KEYS, "403")
            case "s":
                subject.works()
            case _:
                subject.passes(SETTLE_S)
    assert bool(subject.troubles.failing) == events.replace("t", "").endswith("f")


def test_the_table() -> None:
    """Each state has a way out of it."""
    assert {state for state, _ in TRANSITIONS} == set(TroubleState) == set(TRANSITIONS.values())
