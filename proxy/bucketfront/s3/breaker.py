"""Keeps load off an origin that fails, and brings it back in steps (the circuit breaker pattern).

Rule 1: it opens after LIMIT failures without a success between them. A failure is an origin out of reach or a 5xx.
Rule 2: 5xx answers for one and the same key alone never open it: one sick object must not shut out all others.
Rule 3: while it rests nothing is asked. Then one attempt is, and if that fails it rests again, for longer.
Rule 4: attempts begun before it opened have no say any more: neither their late failures nor late successes count.

All of it is synchronous; clock and chance are given, so that tests decide both.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bucketfront.errors import (
    AccessDenied,
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginServerError,
    OriginUnavailable,
    RangeUnsatisfiable,
)
from bucketfront.keys import ObjectKey
from bucketfront.s3.error_translation import VersionUnchanged

LIMIT = 5  # failures without a success between them
FIRST_PAUSE = 1.0  # seconds, the longest first rest; doubled each time it opens again without a success
LONGEST_PAUSE = 30.0
SHORT_WAIT = 1.0  # seconds: what those hear who come while others try whether the origin is back
FULL_ROOM = 64  # attempts at once: beyond, the number of connections is bound enough

# The origin works: it answers, and what it says is a fact about the object or about our rights.
_ANSWERS = (
    VersionUnchanged,
    ObjectNotFound,
    ObjectChanged,
    RangeUnsatisfiable,
    AccessDenied,
    NoSuchVersion,
    DeleteMarker,
)
# What a client can bring about by what it asks for, or is our own congestion, tells nothing about the origin's health.
_NEITHER = (InvalidOriginResponse, OriginBusy)

log = logging.getLogger(__name__)


class Breaker:
    """`clock`: seconds, monotonic. `chance`: uniform in [0, 1)."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._failures = 0  # since the last success
        self._suspect: ObjectKey | None = None  # whose 5xx all of these failures are
        self._rests_until: float | None = None  # None: closed
        self._longest = FIRST_PAUSE  # seconds, of the next rest
        self._term = 0  # one more each time it opens
        self._room: int | None = None  # attempts that may run at once; None: any number
        self._running = 0  # of this term
        self.opened = 0  # changes from closed to open; a probe that fails is none
        self.refused = 0  # gets and heads that ended with OriginCircuitOpen

    def __repr__(self) -> str:
        if self._rests_until is not None:
            left = self._rests_until - self._clock()
            return f"<Breaker open, rests for {left:.1f} s>" if left > 0 else f"<Breaker open, {self._running} probes>"
        room = "" if self._room is None else f", {self._running}/{self._room} attempts"
        return f"<Breaker closed, {self._failures} failures{room}>"

    @property
    def is_open(self) -> bool:
        """From opening until a probe has succeeded."""
        return self._rests_until is not None

    def check(self) -> None:
        """For those who would wait for a connection first. Raises OriginCircuitOpen while the origin rests."""
        if self._rests_until is not None and (left := self._rests_until - self._clock()) > 0:
            raise self._refusal(left)

    def admit(self) -> int:
        """Begin an attempt. Returns the term it belongs to, which its one outcome is told with.

        Raises OriginCircuitOpen: while the origin rests, and while as many attempts run as it may be given.
        """
        self.check()
        if self._room is not None and self._running >= self._room:
            raise self._refusal(SHORT_WAIT)
        self._running += 1
        return self._term

    def succeeded(self, term: int) -> None:
        """The origin gave an answer that stands."""
        if not self._end(term):
            return
        if self.is_open:
            log.info("the origin answers again")
        self._rests_until = None
        self._failures = 0
        self._longest = FIRST_PAUSE
        if self._room is not None:
            self._room = self._room * 2 if self._room < FULL_ROOM else None

    def failed(self, term: int, key: ObjectKey, error: OriginUnavailable) -> None:
        """The origin did not answer, or with 5xx (OriginServerError)."""
        if not self._end(term):
            return
        culprit = key if isinstance(error, OriginServerError) else None
        self._suspect = culprit if self._failures == 0 or culprit == self._suspect else None
        self._failures += 1
        if self.is_open:
            self._rest(error)
        elif self._failures >= LIMIT and self._suspect is None:
            self.opened += 1
            pause = self._rest(error)
            log.warning("the origin failed %d times in a row and rests for %.1f s: %s", self._failures, pause, error)

    def withdrawn(self, term: int) -> None:
        """It ended as neither: cancelled, or in a way that tells nothing about the origin."""
        self._end(term)

    @contextmanager
    def attempt(self, key: ObjectKey) -> Iterator[None]:
        """One attempt, whose outcome is told by what it raises. Raises OriginCircuitOpen itself."""
        term = self.admit()
        try:
            yield
        except _ANSWERS:
            self.succeeded(term)
            raise
        except OriginUnavailable as error:
            if isinstance(error, _NEITHER):
                self.withdrawn(term)
            else:
                self.failed(term, key, error)
            raise
        except BaseException:
            self.withdrawn(term)
            raise
        self.succeeded(term)

    def _end(self, term: int) -> bool:
        """False for an attempt of an earlier term (rule 4)."""
        if term != self._term:
            return False
        self._running -= 1
        return True

    def _rest(self, error: OriginUnavailable) -> float:
        """Returns for how many seconds."""
        pause = self._longest * (1 + self._chance()) / 2
        if isinstance(error, OriginServerError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        self._rests_until = self._clock() + pause
        self._longest = min(LONGEST_PAUSE, 2 * self._longest)
        self._term += 1
        self._running = 0
        self._room = 1
        return pause

    def _refusal(self, wait: float) -> OriginCircuitOpen:
        self.refused += 1
        return OriginCircuitOpen(f"the origin kept failing; it is not asked for {wait:.1f} s", wait)
