"""The circuit breaker: it takes load off an origin that fails, and gives it back in steps.

Theory of operation
-------------------
Every attempt of a read is an attempt here, and so is every body that came too slowly. `admit` begins it, and
`succeeded`, `failed` or `withdrawn` ends it. `BreakerState` changes only in `_advance`, by this table. A pair that is
not in it changes nothing.

    CLOSED      TRIP        -> OPEN
    OPEN        PAUSE_OVER  -> PROBING
    PROBING     SUCCESS     -> RECOVERING
    PROBING     FAILURE     -> OPEN
    RECOVERING  FULL_LOAD   -> CLOSED
    RECOVERING  TRIP        -> OPEN

A failure is an origin out of reach, or a 5xx. TRIP is a failure that is at least the MAX_FAILURES-th since the last
success, unless all of them are 5xx for one key. One sick object must not make all others unavailable. The first
`check` or `admit` after a pause finds PAUSE_OVER. A pause is random between half and all of a length that doubles up
to MAX_PAUSE_S, and that a success resets. A longer Retry-After of the origin replaces it. FULL_LOAD is the success that
would raise the bound on attempts beyond MAX_BOUND.

Each OPEN begins a new term. An attempt knows the term in which it began, and an outcome from an earlier term changes
nothing. Neither a late failure nor a late success shows how the origin is now.

All of it is synchronous. Clock and chance are parameters, so that tests control both.
"""

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
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginUnavailable,
    RangeUnsatisfiable,
    RequestRefused,
)
from bucketfront.keys import ObjectKey
from bucketfront.s3.error_translation import VersionUnchanged

MAX_FAILURES = 5  # without a success between them; more than the READ_ATTEMPTS of one request
FIRST_PAUSE_S = 1.0  # the first length; a pause is half to all of it
MAX_PAUSE_S = 30.0  # an origin that is back is in use half a minute later
PROBE_WAIT_S = 1.0  # the Retry-After of requests that come while others test the origin
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
    OPEN = auto()  # no attempt until the pause is over
    PROBING = auto()  # one attempt at a time
    RECOVERING = auto()  # a bounded number of attempts; each success doubles the bound


class BreakerEvent(Enum):
    SUCCESS = auto()
    FULL_LOAD = auto()
    FAILURE = auto()
    TRIP = auto()
    PAUSE_OVER = auto()


TRANSITIONS = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.PAUSE_OVER): BreakerState.PROBING,
    (BreakerState.PROBING, BreakerEvent.SUCCESS): BreakerState.RECOVERING,
    (BreakerState.PROBING, BreakerEvent.FAILURE): BreakerState.OPEN,
    (BreakerState.RECOVERING, BreakerEvent.FULL_LOAD): BreakerState.CLOSED,
    (BreakerState.RECOVERING, BreakerEvent.TRIP): BreakerState.OPEN,
}


class Breaker:
    """The state of one origin. `clock` is monotonic, in seconds. `chance` is uniform in [0, 1)."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._state = BreakerState.CLOSED
        self._term = 0  # counts the changes to OPEN
        self._failures = 0  # since the last success
        self._failing_key: ObjectKey | None = None  # the key, if all these failures are 5xx for it
        self._open_until = 0.0  # by the clock; in OPEN
        self._next_pause = FIRST_PAUSE_S  # at most
        self._bound = 1  # attempts at once; in PROBING and RECOVERING
        self._running = 0  # attempts of this term
        self.opened = 0  # changes to OPEN, except after a failed probe
        self.last_error = ""  # of the last failure
        self.refused = 0  # attempts and checks that ended with OriginCircuitOpen

    def __repr__(self) -> str:
        match self._state:
            case BreakerState.OPEN if (left := self._open_until - self._clock()) > 0:
                return f"<Breaker open for {left:.1f} s>"
            case BreakerState.OPEN | BreakerState.PROBING:
                return f"<Breaker open, {self._running} probes>"
            case BreakerState.RECOVERING:
                return f"<Breaker recovering, {self._failures} failures, {self._running}/{self._bound} attempts>"
            case _:
                return f"<Breaker closed, {self._failures} failures>"

    @property
    def is_open(self) -> bool:
        """Return whether no probe has succeeded since the breaker opened."""
        return self._state in (BreakerState.OPEN, BreakerState.PROBING)

    def check(self) -> None:
        """Raise OriginCircuitOpen during a pause, so that a caller fails before it waits for a connection."""
        if self._state is BreakerState.OPEN:
            left = self._open_until - self._clock()
            if left > 0:
                raise self._refusal(left)
            self._advance(BreakerEvent.PAUSE_OVER)

    def admit(self) -> int:
        """Begin an attempt. Return its term, to be passed with its one outcome.

        Raises OriginCircuitOpen during a pause, and while as many attempts run as the bound allows.
        """
        self.check()
        if self._state is not BreakerState.CLOSED and self._running >= self._bound:
            raise self._refusal(PROBE_WAIT_S)
        self._running += 1
        return self._term

    def succeeded(self, term: int) -> None:
        """End an attempt to which the origin gave a valid response."""
        if not self._end(term):
            return
        self._advance(BreakerEvent.FULL_LOAD if self._bound >= MAX_BOUND else BreakerEvent.SUCCESS)
        self._bound = min(2 * self._bound, MAX_BOUND)
        self._failures = 0
        self._next_pause = FIRST_PAUSE_S

    def failed(self, term: int, key: ObjectKey, error: OriginUnavailable) -> None:
        """End an attempt for `key` to which the origin gave no response, or a 5xx (OriginServerError)."""
        if not self._end(term):
            return
        failed_key = key if isinstance(error, OriginServerError) else None
        self._failing_key = failed_key if self._failures == 0 or failed_key == self._failing_key else None
        self._failures += 1
        self.last_error = str(error)
        if self.is_open:
            self._advance(BreakerEvent.FAILURE)
            self._pause(error)
        elif self._failures >= MAX_FAILURES and self._failing_key is None:
            self.opened += 1
            self._advance(BreakerEvent.TRIP)
            self._pause(error)

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
            self.succeeded(term)
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
        self.succeeded(term)

    def _advance(self, event: BreakerEvent) -> None:
        self._state = TRANSITIONS.get((self._state, event), self._state)

    def _end(self, term: int) -> bool:
        """Count an attempt as ended. Returns False if it began in an earlier term."""
        if term != self._term:
            return False
        self._running -= 1
        return True

    def _pause(self, error: OriginUnavailable) -> None:
        """Begin a term with a pause."""
        pause = self._next_pause * (1 + self._chance()) / 2
        if isinstance(error, OriginServerError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        self._open_until = self._clock() + pause
        self._next_pause = min(MAX_PAUSE_S, 2 * self._next_pause)
        self._term += 1
        self._running = 0
        self._bound = 1

    def _refusal(self, wait: float) -> OriginCircuitOpen:
        self.refused += 1
        message = f"the origin kept failing and gets no requests for {wait:.1f} s; the last failure: {self.last_error}"
        return OriginCircuitOpen(message, wait)
