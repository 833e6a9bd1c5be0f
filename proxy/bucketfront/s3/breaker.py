"""The circuit breaker: it takes load off an origin that fails, and gives it back in steps.

Theory of operation
-------------------
Every attempt of a read is an attempt here, and so is every body that came too slowly. `admit` begins it, and
`succeeded`, `failed` or `withdrawn` ends it. Failed attempts make the breaker suspicious, and only a probe opens or
closes it. A probe reads an object that no client chose (see `reference`), so a client with sick keys cannot close the
origin to others. `BreakerState` changes only in `_advance`, by this table. A pair that is not in it changes nothing.

    CLOSED      SUSPICION  -> SUSPECTED
    SUSPECTED   PROBE      -> VERIFYING
    VERIFYING   SUCCESS    -> CLOSED
    VERIFYING   FAILURE    -> OPEN
    VERIFYING   WITHDRAWN  -> SUSPECTED
    OPEN        PROBE      -> PROBING
    PROBING     SUCCESS    -> RECOVERING
    PROBING     FAILURE    -> OPEN
    PROBING     WITHDRAWN  -> OPEN
    RECOVERING  FULL_LOAD  -> CLOSED
    RECOVERING  SUSPICION  -> SUSPECTED

A failure is an origin out of reach, or a 5xx. SUSPICION is a failure after which MAX_FAILURES of the latest
WINDOW_KEYS outcomes are failures. A 5xx counts once for its key, because it may be of that object alone. A failure
without a response counts each time. A probe whose origin works clears them.

A pause is random between half and all of a length that doubles up to MAX_PAUSE_S, and that a success resets. A longer
Retry-After of the origin replaces it. After the pause a probe is due again. FULL_LOAD is the success that would raise
the bound on attempts beyond MAX_BOUND.

Each OPEN begins a new term. An attempt knows the term in which it began, and an outcome from an earlier term changes
nothing. Neither a late failure nor a late success shows how the origin is now.

All of it is synchronous. Clock and chance are parameters, so that tests control both.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

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
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginUnavailable,
    RangeUnsatisfiable,
    RequestRefused,
)
from bucketfront.keys import ObjectKey
from bucketfront.s3.error_translation import VersionUnchanged

WINDOW_KEYS = 10  # small, so that an outage after good times is noticed soon
MAX_FAILURES = 5  # half of them; more than the READ_ATTEMPTS of one request
FIRST_PAUSE_S = 1.0  # the first length; a pause is half to all of it
MAX_PAUSE_S = 30.0  # an origin that is back is in use half a minute later
PROBE_WAIT_S = 1.0  # the Retry-After of requests that come while a probe tests the origin
MAX_BOUND = 64  # attempts at once while recovering; above it `origin.max_connections` is the bound

# The origin works: it responds, and its response is a fact about the object or about our permissions.
_SUCCESSES = (
    VersionUnchanged,
    ObjectNotFound,
    ObjectChanged,
    RangeUnsatisfiable,
    AccessDenied,
    NoSuchVersion,
    DeleteMarker,
    RequestRefused,
)
# A client's request can cause an invalid response, OriginBusy is our own congestion, and OriginRefused our own fault. A
# throttled request slows its bucket down instead. None of these shows the origin's health.
_NEUTRAL = (InvalidOriginResponse, OriginBusy, OriginRefused, OriginThrottled)


class BreakerState(Enum):
    CLOSED = auto()  # any number of attempts
    SUSPECTED = auto()  # any number of attempts, and a probe is due
    VERIFYING = auto()  # any number of attempts, and a probe runs
    OPEN = auto()  # no attempt, and after the pause a probe is due
    PROBING = auto()  # no attempt, and a probe runs
    RECOVERING = auto()  # a bounded number of attempts; each success doubles the bound


class BreakerEvent(Enum):
    SUSPICION = auto()
    PROBE = auto()
    SUCCESS = auto()  # this and the next two are outcomes of a probe
    FAILURE = auto()
    WITHDRAWN = auto()
    FULL_LOAD = auto()


TRANSITIONS = {
    (BreakerState.CLOSED, BreakerEvent.SUSPICION): BreakerState.SUSPECTED,
    (BreakerState.SUSPECTED, BreakerEvent.PROBE): BreakerState.VERIFYING,
    (BreakerState.VERIFYING, BreakerEvent.SUCCESS): BreakerState.CLOSED,
    (BreakerState.VERIFYING, BreakerEvent.FAILURE): BreakerState.OPEN,
    (BreakerState.VERIFYING, BreakerEvent.WITHDRAWN): BreakerState.SUSPECTED,
    (BreakerState.OPEN, BreakerEvent.PROBE): BreakerState.PROBING,
    (BreakerState.PROBING, BreakerEvent.SUCCESS): BreakerState.RECOVERING,
    (BreakerState.PROBING, BreakerEvent.FAILURE): BreakerState.OPEN,
    (BreakerState.PROBING, BreakerEvent.WITHDRAWN): BreakerState.OPEN,
    (BreakerState.RECOVERING, BreakerEvent.FULL_LOAD): BreakerState.CLOSED,
    (BreakerState.RECOVERING, BreakerEvent.SUSPICION): BreakerState.SUSPECTED,
}


class _Window:
    """The latest outcomes, at most WINDOW_KEYS. `failures` counts those that are failures."""

    def __init__(self) -> None:
        self._failed: OrderedDict[ObjectKey | int, bool] = OrderedDict()
        self._unkeyed = 0
        self.failures = 0

    def add(self, key: ObjectKey | None, *, failed: bool) -> None:
        """Replace the outcome of `key`, or with None add one that no later outcome replaces."""
        if key is None:
            self._unkeyed += 1
        name = self._unkeyed if key is None else key
        self.failures += failed - self._failed.pop(name, False)
        self._failed[name] = failed
        if len(self._failed) > WINDOW_KEYS:
            self.failures -= self._failed.popitem(last=False)[1]

    def clear(self) -> None:
        self._failed.clear()
        self.failures = 0


class Breaker:
    """The state of one origin. `clock` is monotonic, in seconds. `chance` is uniform in [0, 1)."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._state = BreakerState.CLOSED
        self._term = 0  # counts the changes to OPEN
        self._window = _Window()
        self._open_until = 0.0  # by the clock; in OPEN
        self._next_pause = FIRST_PAUSE_S  # at most
        self._bound = 1  # attempts at once; in RECOVERING
        self._running = 0  # attempts of this term
        self.opened = 0  # changes to OPEN, except after a failed probe of an open breaker
        self.last_error = ""  # of the last failure
        self.refused = 0  # attempts and checks that ended with OriginCircuitOpen

    def __repr__(self) -> str:
        match self._state:
            case BreakerState.OPEN if (left := self._open_until - self._clock()) > 0:
                return f"<Breaker open for {left:.1f} s>"
            case BreakerState.OPEN | BreakerState.PROBING:
                return "<Breaker open>"
            case BreakerState.RECOVERING:
                return f"<Breaker recovering, {self._window.failures} failures, {self._running}/{self._bound} attempts>"
            case state:
                return f"<Breaker {state.name.lower()}, {self._window.failures} failures>"

    @property
    def is_open(self) -> bool:
        """Return whether no probe has succeeded since the breaker opened."""
        return self._state in (BreakerState.OPEN, BreakerState.PROBING)

    @property
    def is_probe_due(self) -> bool:
        """Return whether only a probe can show the origin's health, and none runs."""
        if self._state is BreakerState.OPEN:
            return self._clock() >= self._open_until
        return self._state is BreakerState.SUSPECTED

    def begin_probe(self) -> None:
        """Begin the probe that is due. `probe` takes its outcome."""
        assert self.is_probe_due
        self._advance(BreakerEvent.PROBE)

    @contextmanager
    def probe(self) -> Iterator[None]:
        """Run the probe that has begun, and take its outcome from what the block raises.

        No client chose the object. So each response shows that the origin can be reached, also a refusal.
        """
        try:
            yield
        except OriginError as error:
            if isinstance(error, OriginUnavailable) and not isinstance(error, _NEUTRAL):
                self._probe_failed(error)
            else:
                self._probe_succeeded()
            raise
        except BaseException:
            self._advance(BreakerEvent.WITHDRAWN)
            raise
        self._probe_succeeded()

    def check(self) -> None:
        """Raise OriginCircuitOpen if no attempt may run, so that a caller fails before it waits for a connection."""
        if self.is_open:
            raise self._refusal(max(self._open_until - self._clock(), 0.0) or PROBE_WAIT_S)

    def admit(self) -> int:
        """Begin an attempt. Return its term, to be passed with its one outcome.

        Raises OriginCircuitOpen while the breaker is open, and while as many attempts run as the bound allows.
        """
        self.check()
        if self._state is BreakerState.RECOVERING and self._running >= self._bound:
            raise self._refusal(PROBE_WAIT_S)
        self._running += 1
        return self._term

    def succeeded(self, term: int, key: ObjectKey) -> None:
        """End an attempt to which the origin gave a valid response."""
        if not self._end(term):
            return
        self._window.add(key, failed=False)
        if self._state is BreakerState.RECOVERING:
            if self._bound >= MAX_BOUND:
                self._advance(BreakerEvent.FULL_LOAD)
            self._bound = min(2 * self._bound, MAX_BOUND)

    def failed(self, term: int, key: ObjectKey, error: OriginUnavailable) -> None:
        """End an attempt for `key` to which the origin gave no response, or a 5xx (OriginServerError)."""
        if not self._end(term):
            return
        self._window.add(key if isinstance(error, OriginServerError) else None, failed=True)
        self.last_error = str(error)
        if self._window.failures >= MAX_FAILURES:
            self._advance(BreakerEvent.SUSPICION)

    def withdrawn(self, term: int) -> None:
        """End an attempt that was cancelled, or whose end does not show the origin's health."""
        self._end(term)

    @contextmanager
    def attempt(self, key: ObjectKey) -> Iterator[None]:
        """Run one attempt for `key`, and take its outcome from what the block raises. Raises OriginCircuitOpen."""
        term = self.admit()
        try:
            yield
        except _SUCCESSES:
            self.succeeded(term, key)
            raise
        except OriginUnavailable as error:
            if isinstance(error, _NEUTRAL):
                self.withdrawn(term)
            else:
                self.failed(term, key, error)
            raise
        except BaseException:
            self.withdrawn(term)
            raise
        self.succeeded(term, key)

    def _advance(self, event: BreakerEvent) -> None:
        self._state = TRANSITIONS.get((self._state, event), self._state)

    def _end(self, term: int) -> bool:
        """Count an attempt as ended. Returns False if it began in an earlier term."""
        if term != self._term:
            return False
        self._running -= 1
        return True

    def _probe_succeeded(self) -> None:
        self._window.clear()
        self._next_pause = FIRST_PAUSE_S
        self._bound = 2
        self._advance(BreakerEvent.SUCCESS)

    def _probe_failed(self, error: OriginUnavailable) -> None:
        """Begin a term with a pause."""
        self.opened += self._state is BreakerState.VERIFYING
        self.last_error = str(error)
        self._advance(BreakerEvent.FAILURE)
        pause = self._next_pause * (1 + self._chance()) / 2
        if isinstance(error, OriginServerError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        self._open_until = self._clock() + pause
        self._next_pause = min(MAX_PAUSE_S, 2 * self._next_pause)
        self._term += 1
        self._running = 0

    def _refusal(self, wait: float) -> OriginCircuitOpen:
        self.refused += 1
        message = f"the origin kept failing and gets no requests for {wait:.1f} s; the last failure: {self.last_error}"
        return OriginCircuitOpen(message, wait)
