"""The breaker: when it opens, how long it rests, how it finds out that the origin is back. No clock runs."""

import asyncio
import logging
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from fakes import FakeClock, Head, RawConnection, RawServer, answering, response
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import (
    AccessDenied,
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginServerError,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
    WriteRefused,
)
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3.breaker import FIRST_PAUSE, FULL_ROOM, LIMIT, LONGEST_PAUSE, Breaker
from bucketfront.s3.client import ATTEMPTS, S3Origin
from bucketfront.s3.error_translation import VersionUnchanged

A, B = ObjectKey("bucket", "a"), ObjectKey("bucket", "b")
GONE = OriginUnavailable("connection refused")
LATE = OriginTimeout("no answer")
SICK = OriginServerError("503 SlowDown")
GENEROUS = 20.0  # seconds: a test that waits that long has failed


class Subject:
    """A breaker whose time and chance the test decides; `chance` 1 gives the longest rests, which tests count on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.chance = 1.0
        self.breaker = Breaker(self.clock, lambda: self.chance)

    def outcome(self, error: Exception | None = None, key: ObjectKey = A) -> None:
        """One attempt, and what it raises."""
        if error is None:
            with self.breaker.attempt(key):
                return
        with pytest.raises(type(error)) as raised, self.breaker.attempt(key):
            raise error
        assert raised.value is error, "it was let through"

    def open(self) -> None:
        for _ in range(LIMIT):
            self.outcome(GONE)
        assert self.breaker.is_open

    def refusal(self) -> float:
        """Seconds after which to come again."""
        with pytest.raises(OriginCircuitOpen) as raised:
            self.breaker.admit()
        return raised.value.retry_after

    def rest(self) -> None:
        """Until the next probe is due."""
        self.clock.advance(self.refusal() + 1e-6)


@pytest.fixture
def subject() -> Subject:
    return Subject()


# --- opening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "opens"),
    [
        ([(A, GONE)] * LIMIT, True),
        ([(A, LATE)] * LIMIT, True),
        ([(A, GONE)] * (LIMIT - 1), False),
        ([(A, SICK)] * 100, False),
        ([(A, SICK)] * (LIMIT - 1) + [(B, SICK)], True),
        ([(A, SICK)] * (LIMIT - 1) + [(A, GONE)], True),
        ([(A, SICK), (B, SICK), (A, SICK), (A, SICK)], False),
        ([(A, SICK), (B, SICK), (A, SICK), (A, SICK), (A, SICK)], True),
        ([(A, GONE), (A, SICK), (A, SICK), (A, SICK), (A, SICK)], True),
    ],
)
def test_when_it_opens(subject: Subject, failures: Iterable[tuple[ObjectKey, OriginError]], opens: bool) -> None:
    """LIMIT failures in a row open it, unless all of them are 5xx answers for one key."""
    for key, error in failures:
        subject.outcome(error, key)
    assert subject.breaker.is_open is opens
    assert subject.breaker.opened == opens


@dataclass(frozen=True)
class Event:
    key: ObjectKey
    error: OriginError | None


events = st.builds(
    Event, st.sampled_from((A, B)), st.sampled_from((None, GONE, LATE, SICK, ObjectNotFound("x"), OriginBusy("x")))
)


@given(st.lists(events, max_size=40))
def test_opening_is_a_matter_of_the_failures_since_the_last_success(happened: list[Event]) -> None:
    """The rule, told over whole histories: of the failures at their end there are LIMIT, and more than one sick key."""
    subject = Subject()
    tail: list[Event] = []
    for event in happened:
        subject.outcome(event.error, event.key)
        if event.error is None or isinstance(event.error, ObjectNotFound):
            tail = []
        elif not isinstance(event.error, OriginBusy):
            tail.append(event)
        one_sick_key = all(one.error is SICK for one in tail) and len({one.key for one in tail}) == 1
        due = len(tail) >= LIMIT and not one_sick_key
        assert subject.breaker.is_open is due
        if due:
            return


@pytest.mark.parametrize(
    "answer",
    [
        None,
        VersionUnchanged({}),  # 304
        ObjectNotFound("404"),
        AccessDenied("403"),
        ObjectChanged("412"),
        RangeUnsatisfiable("416"),
        NoSuchVersion("400"),
        DeleteMarker("405"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_what_counts_as_a_success(subject: Subject, answer: Exception | None) -> None:
    """I13: whatever fact S3 states, it works: the row of failures ends there."""
    for _ in range(3):
        for _ in range(LIMIT - 1):
            subject.outcome(GONE)
        subject.outcome(answer)
    assert not subject.breaker.is_open


@pytest.mark.parametrize(
    "error",
    [InvalidOriginResponse("no ETag"), OriginBusy("no slot"), WriteRefused("bad header"), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_what_counts_as_neither(subject: Subject, error: BaseException) -> None:
    """What a client can bring about, our own congestion and cancellation neither open it nor end a row of failures."""

    def neither() -> None:
        with pytest.raises(type(error)), subject.breaker.attempt(A):
            raise error

    for _ in range(2 * LIMIT):
        neither()
    assert not subject.breaker.is_open
    for _ in range(LIMIT - 1):
        subject.outcome(GONE)
        neither()
    subject.outcome(GONE)
    assert subject.breaker.is_open


# --- resting -------------------------------------------------------------------------------------------------


def test_all_are_refused_while_it_rests(subject: Subject) -> None:
    """Nothing reaches the origin, whatever the key; each is told the time left, and each refusal is counted."""
    subject.open()
    for left in (1.0, 0.75, 0.25):
        assert subject.refusal() == pytest.approx(left)
        with pytest.raises(OriginCircuitOpen) as raised:
            subject.breaker.check()
        assert raised.value.retry_after == pytest.approx(left)
        subject.clock.advance(0.5 if left == 0.75 else 0.25)
    assert subject.breaker.refused == 6
    subject.breaker.check()
    subject.breaker.admit()


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80))
def test_rests_are_jittered_and_grow(chances: list[float]) -> None:
    """The n-th rest is between half and the whole of min(30 s, 2^n s), wherever chance puts it."""
    subject = Subject()
    subject.chance = chances[0]
    subject.open()
    for number, chance in enumerate([*chances[1:], 0.5]):
        whole = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**number)
        left = subject.refusal()
        assert whole / 2 <= left + 1e-6
        assert left <= whole + 1e-6
        assert left == pytest.approx(whole * (1 + subject.chance) / 2, abs=1e-6)
        subject.chance = chance
        subject.rest()
        subject.outcome(LATE)
    assert subject.breaker.opened == 1


def test_rests_stay_bounded_through_a_long_outage(subject: Subject) -> None:
    """A day of failed probes: the rest is still LONGEST_PAUSE."""
    subject.open()
    for _ in range(3000):
        subject.rest()
        subject.outcome(GONE)
    assert subject.refusal() == pytest.approx(LONGEST_PAUSE)


@pytest.mark.parametrize(("asked", "rests"), [(None, 1.0), (0.25, 1.0), (40.0, 40.0)])
def test_the_origins_own_retry_after_is_the_least_pause(subject: Subject, asked: float | None, rests: float) -> None:
    """RFC 9110 section 10.2.3: an origin that says when to come again is not asked before."""
    for key in (A, B, A, B, A):
        subject.outcome(OriginServerError("503 SlowDown", asked), key)
    assert subject.refusal() == pytest.approx(rests)


# --- coming back ---------------------------------------------------------------------------------------------


def test_one_probe_at_a_time(subject: Subject) -> None:
    """After the rest one attempt is let through; whoever comes meanwhile is to come again soon."""
    subject.open()
    subject.rest()
    subject.breaker.admit()
    assert 0 < subject.refusal() <= 1
    assert subject.breaker.is_open


def test_a_probe_that_succeeds_closes_it_and_forgets(subject: Subject) -> None:
    """The next outage begins with the shortest rest and needs LIMIT failures again."""
    subject.open()
    for _ in range(4):
        subject.rest()
        subject.outcome(GONE)
    subject.rest()
    subject.outcome(ObjectNotFound("404"))
    assert not subject.breaker.is_open
    for _ in range(LIMIT - 1):
        subject.outcome(GONE)
    assert not subject.breaker.is_open
    subject.outcome(GONE)
    assert subject.refusal() == pytest.approx(FIRST_PAUSE)
    assert subject.breaker.opened == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), InvalidOriginResponse("not S3"), RuntimeError("ours")])
def test_a_probe_without_an_outcome_frees_its_place(subject: Subject, error: BaseException) -> None:
    """I12: a client that leaves in the middle of the probe does not leave the breaker waiting for it."""
    subject.open()
    subject.rest()
    with pytest.raises(type(error)), subject.breaker.attempt(A):
        raise error
    assert subject.breaker.is_open
    subject.outcome(None)
    assert not subject.breaker.is_open


def test_load_comes_back_in_steps(subject: Subject) -> None:
    """After the probe two attempts may run, then four, doubled by each success, until there is no bound."""
    subject.open()
    subject.rest()
    subject.outcome(None)
    room = 2
    while room <= FULL_ROOM:
        terms = [subject.breaker.admit() for _ in range(room)]
        assert subject.refusal() == pytest.approx(1.0)
        for term in terms[1:]:
            subject.breaker.withdrawn(term)
        subject.breaker.succeeded(terms[0])
        room *= 2
    for _ in range(10 * FULL_ROOM):
        subject.breaker.admit()


def test_attempts_from_before_have_no_say(subject: Subject) -> None:
    """A late success of an attempt begun before does not end the rest, and a late failure does not prolong it."""
    early = [subject.breaker.admit() for _ in range(30)]
    subject.open()
    subject.breaker.succeeded(early.pop())
    assert subject.breaker.is_open
    for term in early[:20]:
        subject.breaker.failed(term, B, GONE)
    subject.rest()
    probe = subject.breaker.admit()
    subject.breaker.withdrawn(early.pop())
    subject.refusal()
    subject.breaker.succeeded(probe)
    for term in early[20:]:
        subject.breaker.failed(term, B, GONE)
    assert not subject.breaker.is_open
    assert subject.breaker.opened == 1


def test_opening_and_closing_are_logged_once(subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is two lines, however many probes and refusals it has."""
    caplog.set_level(logging.INFO)
    subject.open()
    for _ in range(3):
        subject.rest()
        subject.outcome(GONE)
    subject.rest()
    subject.outcome(None)
    subject.outcome(None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "connection refused" in caplog.text


def test_repr(subject: Subject) -> None:
    """The operator's view: its state, and what it counts in it."""
    assert repr(subject.breaker) == "<Breaker closed, 0 failures>"
    subject.open()
    assert repr(subject.breaker) == "<Breaker open, rests for 1.0 s>"
    subject.rest()
    subject.breaker.succeeded(subject.breaker.admit())
    assert repr(subject.breaker) == "<Breaker closed, 0 failures, 0/2 attempts>"


# --- in the client -------------------------------------------------------------------------------------------


def settings(endpoint_url: str, timeout: str = "5s") -> OriginSettings:
    # The configuration's types take durations as they are written in the file.
    return OriginSettings.model_validate(
        {
            "endpoint_url": endpoint_url,
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "max_connections": 1,
            "credentials": StaticCredentials(access_key_id=SecretStr("key"), secret_access_key=SecretStr("secret")),
        }
    )


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once: the jitter is drawn as 0."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)


@pytest.mark.usefixtures("_no_pauses")
async def test_an_origin_that_is_gone_is_left_alone(subject: Subject) -> None:
    """LIMIT attempts reach it, whatever became of the calls that they belong to; further calls fail with no attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    attempts = []
    async with asyncio.timeout(GENEROUS), S3Origin(settings(f"http://127.0.0.1:{port}"), None, subject.breaker) as one:
        assert one.breaker is subject.breaker
        one.client.meta.events.register("before-send.s3", lambda **_: attempts.append(1))
        with pytest.raises(OriginUnavailable) as raised:
            await one.get(A, FromTo(0, 10))
        assert not isinstance(raised.value, OriginCircuitOpen | OriginServerError)
        for call in (one.head(B), one.get(B, FromTo(0)), one.head(A)):
            with pytest.raises(OriginCircuitOpen) as refused:
                await call
            assert refused.value.retry_after == pytest.approx(FIRST_PAUSE)
        assert len(attempts) == LIMIT
        subject.rest()
        with pytest.raises(OriginCircuitOpen) as refused:
            await one.head(A)
        assert len(attempts) == LIMIT + 1
        assert refused.value.retry_after == pytest.approx(2 * FIRST_PAUSE)
        assert subject.breaker.refused == 5, "a refusal is not tried again"


@pytest.mark.usefixtures("_no_pauses")
async def test_a_recovery(subject: Subject) -> None:
    """I31: the probe is a client's own request: it gets its answer, and the origin is in use again."""
    sick = response("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")
    well = response("200 OK", ETag='"e"', length=10)
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(*[sick] * LIMIT, well)) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        with pytest.raises(OriginServerError):
            await origin.head(A)
        with pytest.raises(OriginCircuitOpen):
            await origin.head(B)
        assert len(server.heads) == LIMIT
        subject.rest()
        assert await origin.head(B) == Metadata('"e"', 10)
        assert not subject.breaker.is_open


@pytest.mark.usefixtures("_no_pauses")
async def test_one_sick_object_shuts_out_no_other(subject: Subject) -> None:
    """I13: as often as its 5xx is asked for, the other keys are answered."""
    sick = response("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(sick if head.target == "/bucket/a" else response("200 OK", ETag='"e"', length=10))

    async with (
        asyncio.timeout(GENEROUS),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        for _ in range(LIMIT):
            with pytest.raises(OriginServerError):
                await origin.get(A, FromTo(0, 10))
        assert await origin.head(B) == Metadata('"e"', 10)
        assert len(server.heads) == LIMIT * ATTEMPTS + 1


@pytest.mark.usefixtures("_no_pauses")
async def test_a_deadline_is_a_failure_and_a_client_that_leaves_is_none(subject: Subject) -> None:
    """I12, I20: both cancel the same wait; only the deadline says something about the origin."""
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(None)) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as patient,
        S3Origin(settings(server.endpoint_url, "100ms"), None, subject.breaker) as hasty,
    ):
        for _ in range(2):
            server.asked.clear()
            waiting = asyncio.create_task(patient.head(A))
            await server.asked.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert repr(subject.breaker) == "<Breaker closed, 0 failures>"
        with pytest.raises(OriginTimeout):
            await hasty.head(A)
        assert "0 failures" not in repr(subject.breaker)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_probe_that_is_cancelled_lets_the_next_one_try(subject: Subject) -> None:
    """I12: the client whose request is the probe leaves; the next one is the probe."""
    subject.open()
    subject.rest()
    well = response("200 OK", ETag='"e"', length=10)
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(None, well)) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        waiting = asyncio.create_task(origin.head(A))
        await server.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await origin.head(A) == Metadata('"e"', 10)


@pytest.mark.usefixtures("_no_pauses")
async def test_nobody_waits_for_a_connection_to_an_origin_that_rests(subject: Subject) -> None:
    """I31: all connections are held and the breaker is open: the miss fails at once, not after the wait for a slot."""
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(None)) as server,
        S3Origin(settings(server.endpoint_url, "60s"), None, subject.breaker) as origin,
    ):
        await origin.take_slot()
        subject.open()
        with pytest.raises(OriginCircuitOpen):
            await origin.get(A, FromTo(0, 10))
        with pytest.raises(OriginCircuitOpen):
            await origin.head(A)
        origin.return_slot()


@pytest.mark.usefixtures("_no_pauses")
async def test_waiting_in_vain_for_a_connection_is_our_own_congestion(subject: Subject) -> None:
    """I20: OriginBusy, as often as it happens, does not open the breaker."""
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(response("200 OK", ETag='"e"', length=10))) as server,
        S3Origin(settings(server.endpoint_url, "10ms"), None, subject.breaker) as origin,
    ):
        await origin.take_slot()
        for _ in range(LIMIT):
            with pytest.raises(OriginBusy):
                await origin.head(A)
        origin.return_slot()
        assert not subject.breaker.is_open


@pytest.mark.usefixtures("_no_pauses")
async def test_writes_are_tried_all_the_same(subject: Subject) -> None:
    """I9: a delete is not refused by the breaker, and its outcome says nothing to it."""
    subject.open()
    async with (
        asyncio.timeout(GENEROUS),
        RawServer(answering(response("204 No Content"))) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        await origin.delete(A)
        assert len(server.heads) == 1
        assert subject.breaker.is_open


async def test_an_origin_has_a_breaker_of_its_own() -> None:
    """Without one given it has a closed one, with the real clock and chance."""
    first, second = S3Origin(settings("http://127.0.0.1:9")), S3Origin(settings("http://127.0.0.1:9"))
    assert not first.breaker.is_open
    assert first.breaker is not second.breaker
