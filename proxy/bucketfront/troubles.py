"""Reports of failures for operators: a warning for each kind, and one more for its end.

Theory of operation
-------------------
Every failure and every success of a kind comes here, and `Troubles` reports few of them. `TroubleState` changes only in
`_advance`, by this table. A pair that is not in it changes nothing.

    FINE        FAILURE  -> FAILING
    FAILING     SUCCESS  -> RECOVERING
    RECOVERING  FAILURE  -> FAILING
    RECOVERING  SETTLED  -> FINE

SETTLED is SETTLE_S without a failure after a success, which `tick` or a further success finds. The first failure is
reported at once, and the others at most every INTERVAL_S, with their number. An end is reported if the failure was.
So a kind that comes and goes has one warning and one end within INTERVAL_S.

Kinds come from closed sets, so there is a bounded number of them. All of it is synchronous.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

INTERVAL_S = 60.0  # between two warnings of one kind: a log of a day of failures stays readable
SETTLE_S = 5.0  # without a failure after a success, until a trouble is over: an origin that fails now and then is not


class Reason(Enum):
    """Why the proxy is degraded. The values are stable, for programs."""

    ORIGIN_UNREACHABLE = "origin-unreachable"  # the circuit breaker is open
    ORIGIN_FAILING = "origin-failing"
    ORIGIN_THROTTLES = "origin-throttles"
    CREDENTIALS_REFUSED = "credentials-refused"
    CLOCK_REFUSED = "clock-refused"
    CONFIGURATION_REFUSED = "configuration-refused"
    ACCESS_DENIED = "access-denied"
    DISK_FAILING = "disk-failing"
    INODES_USED_UP = "inodes-used-up"
    INDEX_FAILING = "index-failing"
    ACCESS_LOG_FAILING = "access-log-failing"
    BUS_UNREACHABLE = "bus-unreachable"  # changes on other proxies may be missed
    TLS_UNUSABLE = "tls-unusable"  # new certificates; the old ones are served
    EVENTS_NOT_READ = "events-not-read"  # of S3: changes show only when lifetimes end
    EVENTS_UNREADABLE = "events-unreadable"
    TLS_INVALID = "tls-invalid"  # clients refuse a certificate, because of its dates


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of failure. `name` is S3's code or a cause, and `bucket` is empty if no single bucket is concerned.

    `failing` and `works_again` are clauses for people. `what_failed` names what is counted. If `has_own_warning` is
    true, the failing part warns by itself, and only the end is reported here.
    """

    reason: Reason
    name: str
    failing: str
    works_again: str
    bucket: str = ""
    what_failed: str = "requests failed"
    has_own_warning: bool = False


class TroubleState(Enum):
    FINE = auto()
    FAILING = auto()
    RECOVERING = auto()  # the last outcome was a success


class TroubleEvent(Enum):
    FAILURE = auto()
    SUCCESS = auto()
    SETTLED = auto()


TRANSITIONS = {
    (TroubleState.FINE, TroubleEvent.FAILURE): TroubleState.FAILING,
    (TroubleState.FAILING, TroubleEvent.SUCCESS): TroubleState.RECOVERING,
    (TroubleState.RECOVERING, TroubleEvent.FAILURE): TroubleState.FAILING,
    (TroubleState.RECOVERING, TroubleEvent.SETTLED): TroubleState.FINE,
}


@dataclass(eq=False, slots=True)
class Trouble:
    """The present state of one kind. Times are by the clock of `Troubles`, and counts begin with the trouble."""

    kind: Kind
    state: TroubleState = TroubleState.FINE
    since: float = 0.0
    failed_at: float = 0.0  # the last time
    worked_at: float = 0.0  # the first success after that; in RECOVERING
    count: int = 0
    detail: str = ""  # of the last failure
    unreported: int = 0  # failures since the last warning
    warned_at: float | None = None  # the last warning, also of an earlier trouble of this kind
    is_reported: bool = False


class Troubles:
    """All troubles of the process. `clock` is monotonic, in seconds. `report` takes a line for the operator."""

    def __init__(self, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._clock = clock
        self._report = report
        self._troubles: dict[Kind, Trouble] = {}
        self._present: dict[Kind, Trouble] = {}  # those that are not FINE, so that a success costs nothing if all is

    @property
    def failing(self) -> list[Trouble]:
        """Return what fails now: no success has come since the last failure."""
        return [trouble for trouble in self._present.values() if trouble.state is TroubleState.FAILING]

    def lasted(self, trouble: Trouble) -> float:
        """Return for how many seconds a trouble has lasted."""
        return self._clock() - trouble.since

    def failed(self, kind: Kind, detail: str, count: int = 1) -> None:
        """Count failures, and report them if a report is due."""
        trouble, now = self._troubles.setdefault(kind, Trouble(kind)), self._clock()
        if trouble.state is TroubleState.FINE:
            trouble.since, trouble.count, trouble.unreported, trouble.is_reported = now, 0, 0, False
            self._present[kind] = trouble
        self._advance(trouble, TroubleEvent.FAILURE)
        trouble.failed_at, trouble.detail = now, detail
        trouble.count += count
        trouble.unreported += count
        self._warn_if_due(trouble, now)

    def succeeded(self, includes: Callable[[Kind], bool]) -> None:
        """Take a success, which shows that the kinds of `includes` need not fail."""
        if not self._present:
            return
        now = self._clock()
        for kind, trouble in list(self._present.items()):
            if includes(kind):
                if trouble.state is TroubleState.FAILING:
                    trouble.worked_at = now
                self._advance(trouble, TroubleEvent.SUCCESS)
                self._end_if_settled(trouble, now)

    def tick(self) -> None:
        """Report what has become due. Call it about once a second."""
        now = self._clock()
        for trouble in list(self._present.values()):
            if trouble.state is TroubleState.FAILING:
                self._warn_if_due(trouble, now)
            self._end_if_settled(trouble, now)

    def _advance(self, trouble: Trouble, event: TroubleEvent) -> None:
        trouble.state = TRANSITIONS.get((trouble.state, event), trouble.state)

    def _warn_if_due(self, trouble: Trouble, now: float) -> None:
        if trouble.warned_at is not None and now - trouble.warned_at < INTERVAL_S:
            return
        kind = trouble.kind
        if kind.has_own_warning:
            trouble.is_reported = True
            return
        if trouble.is_reported and not trouble.unreported:
            return
        if trouble.is_reported:
            lasted = _duration(now - trouble.since)
            number = f"; {trouble.unreported} {kind.what_failed} since the last line of this kind"
            self._report(f"{kind.failing}, for {lasted} now: {trouble.detail}{number}")
        else:
            number = f"; {trouble.count} {kind.what_failed}" if trouble.count > 1 else ""
            self._report(f"{kind.failing}: {trouble.detail}{number}")
        trouble.warned_at, trouble.unreported, trouble.is_reported = now, 0, True

    def _end_if_settled(self, trouble: Trouble, now: float) -> None:
        if trouble.state is not TroubleState.RECOVERING or now - trouble.failed_at < SETTLE_S:
            return
        self._advance(trouble, TroubleEvent.SETTLED)
        del self._present[trouble.kind]
        if trouble.is_reported:
            lasted = _duration(trouble.worked_at - trouble.since)
            number = f", {trouble.count} {trouble.kind.what_failed}" if trouble.count > 1 else ""
            self._report(f"{trouble.kind.works_again} after {lasted}{number}")


def _duration(seconds: float) -> str:
    """Return a duration as people write it: `12 s`, `3 min`, `5 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
