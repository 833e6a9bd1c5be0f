"""The breaker: when it opens, how long it pauses, how it finds that the origin is back. Tests control its clock."""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from fakes import FakeClock, Head, RawConnection, RawServer, answering, response
from held_port import held_port
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from rows import each_row
from stopwatch import HANG_S

from bucketfront.cache.origin import OriginResponse
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import (
    AccessDenied,
    DeleteMarker,
    Fault,
    InvalidOriginResponse,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
    RequestRefused,
)
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo
from bucketfront.http.response_fields import ResponseFields
from bucketfront.keys import ObjectKey
from bucketfront.s3 import breaker, pace
from bucketfront.s3.breaker import (
    FIRST_PAUSE_S,
    MAX_BOUND,
    MAX_FAILURES,
    MAX_PAUSE_S,
    WINDOW_KEYS,
    Breaker,
    BreakerEvent,
    BreakerState,
)
from bucketfront.s3.client import READ_ATTEMPTS, S3Origin
from bucketfront.s3.error_translation import VersionUnchanged

A, B = ObjectKey("bucket", "a"), ObjectKey("bucket", "b")
GONE = OriginUnavailable("connection refused")
LATE = OriginTimeout("no answer")
SICK = OriginServerError("503 SlowDown")


class Subject:
    """A breaker whose time and chance the test controls. `chance` 1 gives the longest pauses, which tests rely on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.chance = 1.0
        self.breaker = Breaker(self.clock, lambda: self.chance)

    def outcome(self, error: Exception | None = None, key: ObjectKey = A) -> None:
        """Run one attempt that raises `error`."""
        if error is None:
            with self.breaker.attempt(key):
                return
        with pytest.raises(type(error)) as raised, self.breaker.attempt(key):
            raise error
        assert raised.value is error, "it was let through"

    def probe(self, error: Exception | None = None) -> None:
        """Run the probe that is due, which raises `error`."""
        self.breaker.begin_probe()
        with suppress(type(error or Exception())), self.breaker.probe():
            if error is not None:
                raise error

    def open(self) -> None:
        """Let attempts fail until a probe is due, and let that fail."""
        for _ in range(MAX_FAILURES):
            self.outcome(GONE)
        self.probe(GONE)
        assert self.breaker.is_open

    def recover(self) -> None:
        self.rest()
        self.probe()

    def refusal(self) -> float:
        """Return the seconds after which a refused attempt may be repeated."""
        with pytest.raises(OriginCircuitOpen) as raised:
            self.breaker.admit()
        return raised.value.retry_after

    def rest(self) -> None:
        """Advance the clock until the next probe is due."""
        self.clock.advance(self.refusal() + 1e-6)


@pytest.fixture
def subject() -> Subject:
    return Subject()


# --- suspicion -----------------------------------------------------------------------------------------------


KEYS = [ObjectKey("bucket", str(number)) for number in range(100)]


@each_row(
    ("outcomes", "is_due"),
    [
        ([(A, GONE)] * MAX_FAILURES, True),
        ([(A, LATE)] * MAX_FAILURES, True),
        ([(A, GONE)] * (MAX_FAILURES - 1), False),
        ([(A, SICK)] * 100, False),
        ([(A, SICK), (B, SICK)] * 100, False),
        ([(key, SICK) for key in KEYS[: MAX_FAILURES - 1]], False),
        ([(key, SICK) for key in KEYS[:MAX_FAILURES]], True),
        ([(A, SICK)] + [(A, GONE)] * (MAX_FAILURES - 1), True),
        ([(key, SICK if number % 3 else None) for number, key in enumerate(KEYS)], True),
        ([(key, None if number % 3 else SICK) for number, key in enumerate(KEYS)], False),
        ([(A, SICK if number % 2 else None) for number in range(100)], False),
    ],
)
def test_when_a_probe_is_due(outcomes: Iterable[tuple[ObjectKey, Exception | None]], is_due: bool) -> None:
    """Half of the latest outcomes are failures, of enough keys. A failure without a response is of no key."""
    subject = Subject()
    for key, error in outcomes:
        subject.outcome(error, key)
    assert subject.breaker.is_probe_due is is_due
    assert not subject.breaker.is_open


@dataclass(frozen=True)
class Event:
    key: ObjectKey
    error: OriginError | None


events = st.builds(
    Event, st.sampled_from(KEYS[:8]), st.sampled_from((None, GONE, LATE, SICK, ObjectNotFound("x"), OriginBusy("x")))
)


@given(st.lists(events, max_size=60))
def test_suspicion_is_a_share_of_the_latest_outcomes(happened: list[Event]) -> None:
    """In any history it counts the latest outcome of each key, and each failure without a response."""
    subject = Subject()
    latest: list[tuple[ObjectKey | None, bool]] = []
    for event in happened:
        subject.outcome(event.error, event.key)
        if isinstance(event.error, OriginBusy):
            continue
        key = None if event.error in (GONE, LATE) else event.key
        latest = [one for one in latest if key is None or one[0] != key]
        latest.append((key, event.error in (GONE, LATE, SICK)))
        latest = latest[-WINDOW_KEYS:]
        is_due = sum(failed for _, failed in latest) >= MAX_FAILURES
        assert subject.breaker.is_probe_due is is_due
        if is_due:
            return


@each_row("number", range(1, 20))
def test_sick_keys_do_not_close_the_origin(number: int) -> None:
    """I35: whatever the number of keys with a 5xx, no other request is refused while the probe works."""
    subject = Subject()
    for _ in range(3):
        for key in KEYS[:number]:
            subject.outcome(SICK, key)
            if subject.breaker.is_probe_due:
                subject.probe()
            subject.outcome(None, B)
    assert (subject.breaker.opened, subject.breaker.refused) == (0, 0)


def test_a_probe_that_works_forgets_the_failures(subject: Subject) -> None:
    """The next probe needs MAX_FAILURES new failures, so sick keys cause few probes."""
    for _ in range(3):
        for number, key in enumerate(KEYS[:MAX_FAILURES], 1):
            subject.outcome(SICK, key)
            assert subject.breaker.is_probe_due is (number == MAX_FAILURES)
        subject.probe()


def test_requests_go_on_while_a_probe_verifies(subject: Subject) -> None:
    """A suspicion refuses no request, and starts one probe."""
    for _ in range(MAX_FAILURES):
        subject.outcome(GONE)
    subject.outcome(None)
    subject.breaker.begin_probe()
    subject.outcome(GONE)
    subject.outcome(None)
    assert not subject.breaker.is_probe_due


@each_row(
    "answer",
    [
        None,
        VersionUnchanged(ResponseFields(())),  # 304
        ObjectNotFound("404"),
        AccessDenied("403"),
        RequestRefused("400 KeyTooLongError"),
        ObjectChanged("412"),
        RangeUnsatisfiable("416"),
        NoSuchVersion("400"),
        DeleteMarker("405"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_successes(answer: Exception | None) -> None:
    """I13: a response that states a fact is a success, whatever the fact, and replaces a failure of its key."""
    subject = Subject()
    for key in KEYS:
        subject.outcome(SICK, key)
        subject.outcome(answer, key)
    assert repr(subject.breaker) == "<Breaker closed, 0 failures>"


@each_row(
    "error",
    [
        InvalidOriginResponse("no ETag"),
        OriginBusy("no slot"),
        OriginRefused("InvalidAccessKeyId", Fault.CREDENTIALS),
        OriginThrottled("SlowDown"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_outcomes_that_do_not_count(error: BaseException) -> None:
    """Errors that a client can cause, and our own, are neither failures nor successes (I35)."""
    subject = Subject()

    def neither() -> None:
        with pytest.raises(type(error)), subject.breaker.attempt(A):
            raise error

    for _ in range(2 * MAX_FAILURES):
        neither()
    assert not subject.breaker.is_probe_due
    for _ in range(MAX_FAILURES - 1):
        subject.outcome(GONE)
        neither()
    subject.outcome(GONE)
    assert subject.breaker.is_probe_due


# --- pausing -------------------------------------------------------------------------------------------------


def test_all_attempts_are_refused_during_a_pause(subject: Subject) -> None:
    """During a pause no request reaches the origin. Each refusal has the time left, and is counted."""
    subject.open()
    for left in (1.0, 0.75, 0.25):
        assert subject.refusal() == pytest.approx(left)
        with pytest.raises(OriginCircuitOpen) as raised:
            subject.breaker.check()
        assert raised.value.retry_after == pytest.approx(left)
        assert not subject.breaker.is_probe_due
        subject.clock.advance(0.5 if left == 0.75 else 0.25)
    assert subject.breaker.refused == 6
    assert subject.breaker.is_probe_due


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80))
def test_pauses_have_jitter_and_grow(chances: list[float]) -> None:
    """The n-th pause lies between half and the whole of min(30 s, 2^n s), for any chance."""
    subject = Subject()
    subject.chance = chances[0]
    subject.open()
    for number, chance in enumerate([*chances[1:], 0.5]):
        whole = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0**number)
        left = subject.refusal()
        assert whole / 2 <= left + 1e-6
        assert left <= whole + 1e-6
        assert left == pytest.approx(whole * (1 + subject.chance) / 2, abs=1e-6)
        subject.chance = chance
        subject.rest()
        subject.probe(LATE)
    assert subject.breaker.opened == 1


def test_pauses_stay_bounded_through_a_long_outage(subject: Subject) -> None:
    """After a day of failed probes the pause is still MAX_PAUSE_S."""
    subject.open()
    for _ in range(3000):
        subject.rest()
        subject.probe(GONE)
    assert subject.refusal() == pytest.approx(MAX_PAUSE_S)


@each_row(("asked", "rests"), [(None, 1.0), (0.25, 1.0), (40.0, 40.0)])
def test_a_pause_is_at_least_the_origins_retry_after(asked: float | None, rests: float) -> None:
    """RFC 9110 section 10.2.3: the pause is at least as long as the origin's Retry-After."""
    subject = Subject()
    for key in KEYS[:MAX_FAILURES]:
        subject.outcome(SICK, key)
    subject.probe(OriginServerError("503 ServiceUnavailable", asked))
    assert subject.refusal() == pytest.approx(rests)


# --- coming back ---------------------------------------------------------------------------------------------


def test_one_probe_at_a_time(subject: Subject) -> None:
    """After the pause one probe runs. Attempts that come meanwhile are refused for a second."""
    subject.open()
    subject.rest()
    subject.breaker.begin_probe()
    assert not subject.breaker.is_probe_due
    assert 0 < subject.refusal() <= 1
    assert subject.breaker.is_open


def test_a_probe_that_succeeds_closes_it_and_forgets(subject: Subject) -> None:
    """The next outage needs MAX_FAILURES failures again, and begins with the shortest pause."""
    subject.open()
    for _ in range(4):
        subject.rest()
        subject.probe(GONE)
    subject.rest()
    subject.probe(ObjectNotFound("404"))
    assert not subject.breaker.is_open
    for _ in range(MAX_FAILURES - 1):
        subject.outcome(GONE)
    assert not subject.breaker.is_probe_due
    subject.outcome(GONE)
    subject.probe(GONE)
    assert subject.refusal() == pytest.approx(FIRST_PAUSE_S)
    assert subject.breaker.opened == 2


@each_row(
    "error",
    [
        InvalidOriginResponse("not S3"),
        OriginRefused("ExpiredToken", Fault.CREDENTIALS),
        OriginThrottled("SlowDown"),
        RequestRefused("400"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_probe_with_any_response_shows_that_the_origin_is_there(error: OriginError) -> None:
    """I35: an origin that refuses our credentials or configuration is back, so requests get its own reason."""
    subject = Subject()
    subject.open()
    subject.rest()
    subject.probe(error)
    assert not subject.breaker.is_open


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("ours")])
def test_a_probe_without_an_outcome_is_due_again(subject: Subject, error: BaseException) -> None:
    """I12: a probe that is cancelled neither opens the breaker nor closes it."""
    for _ in range(MAX_FAILURES):
        subject.outcome(GONE)
    for is_open in (False, True):
        subject.breaker.begin_probe()
        with pytest.raises(type(error)), subject.breaker.probe():
            raise error
        assert subject.breaker.is_open is is_open
        assert subject.breaker.is_probe_due
        subject.probe(GONE)
        subject.rest()


def test_load_comes_back_in_steps(subject: Subject) -> None:
    """After the probe two attempts may run at once, then four. Each success doubles the bound, up to its end."""
    subject.open()
    subject.recover()
    bound = 2
    while bound <= MAX_BOUND:
        terms = [subject.breaker.admit() for _ in range(bound)]
        assert subject.refusal() == pytest.approx(1.0)
        for term in terms[1:]:
            subject.breaker.withdrawn(term)
        subject.breaker.succeeded(terms[0], A)
        bound *= 2
    for _ in range(10 * MAX_BOUND):
        subject.breaker.admit()


def test_an_origin_that_fails_again_while_it_recovers(subject: Subject) -> None:
    """Failures during the recovery make a probe due, which opens the breaker again."""
    subject.open()
    subject.recover()
    for _ in range(MAX_FAILURES):
        subject.outcome(GONE)
    subject.probe(GONE)
    assert subject.breaker.is_open
    assert subject.breaker.opened == 2


def test_outcomes_of_an_earlier_term_do_not_count(subject: Subject) -> None:
    """A late success of an attempt from an earlier term raises no bound; a late failure is no new suspicion."""
    early = [subject.breaker.admit() for _ in range(30)]
    subject.open()
    subject.breaker.succeeded(early.pop(), A)
    assert subject.breaker.is_open
    subject.recover()
    for term in early[:20]:
        subject.breaker.failed(term, B, GONE)
    for term in early[20:]:
        subject.breaker.succeeded(term, B)
    assert repr(subject.breaker) == "<Breaker recovering, 0 failures, 0/2 attempts>"
    assert subject.breaker.opened == 1


def test_a_refusal_has_the_last_failure(subject: Subject) -> None:
    """A refused request has the reason why the breaker is open."""
    subject.open()
    with pytest.raises(OriginCircuitOpen, match="connection refused"):
        subject.breaker.check()


def test_repr(subject: Subject) -> None:
    """The text names the state and its counters."""
    assert repr(subject.breaker) == "<Breaker closed, 0 failures>"
    for _ in range(MAX_FAILURES):
        subject.outcome(GONE)
    assert repr(subject.breaker) == "<Breaker suspected, 5 failures>"
    subject.probe(GONE)
    assert repr(subject.breaker) == "<Breaker open for 1.0 s>"
    subject.recover()
    assert repr(subject.breaker) == "<Breaker recovering, 0 failures, 0/2 attempts>"


def test_the_table_is_the_documented_one() -> None:
    """The transitions in the module's docstring are those of the code, and all states are reached."""
    rows = [line.split() for line in (breaker.__doc__ or "").splitlines() if "->" in line]
    documented = {(BreakerState[state], BreakerEvent[event]): BreakerState[to] for state, event, _, to in rows}
    assert documented == breaker.TRANSITIONS
    assert set(documented.values()) == set(BreakerState)


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
    """Make retries follow at once: the jitter is 0."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)


@pytest.mark.usefixtures("_no_pauses")
async def test_an_unreachable_origin_gets_few_attempts(subject: Subject, attempts: list[str]) -> None:
    """MAX_FAILURES attempts and a probe reach it, over any number of calls. Further calls fail without an attempt."""
    with held_port() as port:
        async with (
            asyncio.timeout(HANG_S),
            S3Origin(settings(f"http://127.0.0.1:{port}"), None, subject.breaker) as one,
        ):
            assert one.breaker is subject.breaker
            with pytest.raises(OriginUnavailable) as raised:
                await one.get(A, FromTo(0, 10))
            assert not isinstance(raised.value, OriginCircuitOpen | OriginServerError)
            for call in (one.head(B), one.get(B, FromTo(0)), one.head(A)):
                with pytest.raises(OriginCircuitOpen) as refused:
                    await call
                assert refused.value.retry_after == pytest.approx(FIRST_PAUSE_S)
            assert len(attempts) == MAX_FAILURES + 1
            subject.rest()
            with pytest.raises(OriginCircuitOpen) as refused:
                await one.head(A)
            assert len(attempts) == MAX_FAILURES + 2
            assert refused.value.retry_after == pytest.approx(2 * FIRST_PAUSE_S)
            assert subject.breaker.refused == 5, "a refusal is not tried again"


UNAVAILABLE = response("503 Service Unavailable", b"<Error><Code>ServiceUnavailable</Code></Error>")
WELL = response("206 Partial Content", b"0123456789", ETag='"e"', Content_Range="bytes 0-9/10")


@pytest.mark.usefixtures("_no_pauses")
async def test_a_recovery(subject: Subject) -> None:
    """I31: the request that finds the pause over gets its response, and the origin is in use again."""
    is_well = False

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(WELL if is_well else UNAVAILABLE)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        for key in KEYS[: MAX_FAILURES - 1]:
            with pytest.raises(OriginServerError):
                await origin.get(key, FromTo(0, 10))
        with pytest.raises(OriginCircuitOpen):
            await origin.get(KEYS[MAX_FAILURES], FromTo(0, 10))
        seen, is_well = len(server.heads), True
        with pytest.raises(OriginCircuitOpen):
            await origin.get(B, FromTo(0, 10))
        assert len(server.heads) == seen
        subject.rest()
        answer = await origin.get(B, FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        answer.body.close()
        assert len(server.heads) == seen + 2, "a probe, and the request"
        assert not subject.breaker.is_open


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.usefixtures("_no_pauses")
async def test_sick_objects_shut_out_no_other(subject: Subject, warm: bool) -> None:
    """I13, I35: a client that requests many objects with a 5xx closes the origin to no healthy miss."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(UNAVAILABLE if "/sick" in head.target else WELL)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):

        async def miss(number: int) -> None:
            answer = await origin.get(KEYS[number], FromTo(0, 10))
            assert isinstance(answer, OriginResponse)
            await answer.body.read()
            answer.body.close()

        if warm:
            await miss(0)
        for number in range(3 * MAX_FAILURES):
            with pytest.raises(OriginUnavailable) as raised:
                await origin.get(ObjectKey("bucket", f"sick{number}"), FromTo(0, 10))
            assert isinstance(raised.value, OriginServerError)
        for number in range(95):
            await miss(number)
        assert (subject.breaker.opened, subject.breaker.refused) == (0, 0)
        references = [head for head in server.heads if "range" in head.headers and "-65535" in head.headers["range"]]
        assert 1 <= len(references) <= 3


@pytest.mark.usefixtures("_no_pauses")
async def test_one_sick_object_shuts_out_no_other(subject: Subject) -> None:
    """I13: however often a client requests the object with the 5xx, the other keys get their responses."""
    sick = response("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(sick if head.target == "/bucket/a" else response("200 OK", ETag='"e"', length=10))

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        for _ in range(MAX_FAILURES):
            with pytest.raises(OriginServerError):
                await origin.get(A, FromTo(0, 10))
        assert await origin.head(B) == Metadata('"e"', 10)
        assert len(server.heads) == MAX_FAILURES * READ_ATTEMPTS + 1


@pytest.mark.usefixtures("_no_pauses")
async def test_a_timeout_is_a_failure_and_a_cancellation_is_not(subject: Subject) -> None:
    """I12, I20: both cancel the same wait, but only the deadline shows the origin's health."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(answering(None)) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as patient,
        S3Origin(settings(server.endpoint_url, "100ms"), None, subject.breaker) as hasty,
    ):
        for _ in range(2):
            server.head_received.clear()
            waiting = asyncio.create_task(patient.head(A))
            await server.head_received.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert repr(subject.breaker) == "<Breaker closed, 0 failures>"
        with pytest.raises(OriginTimeout):
            await hasty.head(A)
        assert "0 failures" not in repr(subject.breaker)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_probe_goes_on_without_its_client(subject: Subject) -> None:
    """I12: if the client leaves whose request found the pause over, the probe ends, and others are served."""
    subject.open()
    subject.rest()
    is_let = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await is_let.wait()
        await connection.send(WELL)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url, "60s"), None, subject.breaker) as origin,
    ):
        waiting = asyncio.create_task(origin.get(A, FromTo(0, 10)))
        await server.head_received.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(OriginCircuitOpen):
            await origin.get(A, FromTo(0, 10))
        is_let.set()
        await origin._probes.wait()
        answer = await origin.get(A, FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        answer.body.close()


@pytest.mark.usefixtures("_no_pauses")
async def test_a_read_fails_at_once_while_the_breaker_is_open(subject: Subject) -> None:
    """I31: with all connections in use and the breaker open, a miss fails at once, not after the wait for a slot."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(answering(None)) as server,
        S3Origin(settings(server.endpoint_url, "60s"), None, subject.breaker) as origin,
        origin.connection(A.bucket),
    ):
        subject.open()
        with pytest.raises(OriginCircuitOpen):
            await origin.get(A, FromTo(0, 10))
        with pytest.raises(OriginCircuitOpen):
            await origin.head(A)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_timeout_for_a_slot_is_our_own_congestion(subject: Subject) -> None:
    """I20: any number of OriginBusy does not open the breaker."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(answering(response("200 OK", ETag='"e"', length=10))) as server,
        S3Origin(settings(server.endpoint_url, "10ms"), None, subject.breaker) as origin,
        origin.connection(A.bucket),
    ):
        for _ in range(MAX_FAILURES):
            with pytest.raises(OriginBusy):
                await origin.head(A)
        assert not subject.breaker.is_open


@pytest.mark.usefixtures("_no_pauses")
async def test_the_breaker_refuses_no_write(subject: Subject) -> None:
    """I9: the breaker refuses no delete, and its outcome does not count there."""
    subject.open()
    async with (
        asyncio.timeout(HANG_S),
        RawServer(answering(response("204 No Content"))) as server,
        S3Origin(settings(server.endpoint_url), None, subject.breaker) as origin,
    ):
        await origin.delete(A)
        assert len(server.heads) == 1
        assert subject.breaker.is_open


async def test_an_origin_has_a_breaker_of_its_own() -> None:
    """Without an argument each origin creates a closed breaker, with the real clock and chance."""
    first, second = S3Origin(settings("http://127.0.0.1:9")), S3Origin(settings("http://127.0.0.1:9"))
    assert not first.breaker.is_open
    assert first.breaker is not second.breaker
