"""Check what clients saw against what the origin did. It does no I/O and runs over the records of every concurrent
test.

Times are monotonic and comparable between all processes of a machine. The versions of an object are in the order of the
origin's history, for writes of any client. A read may return any version that no rule below excludes.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chaos_content import Finding
from chaos_origin import Change

Operation = Literal["GET", "HEAD", "PUT", "DELETE"]
Outcome = Literal[
    "done",  # a 2xx with a complete body
    "absent",  # 404
    "refused",  # 4xx: the origin did not write
    "failed",  # 5xx: the outcome of a write is unknown
    "cut",  # the connection ended before the response did; the outcome is unknown as well
    "aborted",  # this client left in the middle of its upload
    "garbled",  # the bytes received are no HTTP response
    "hung",  # no byte came within the client's timeout
]
LIE = '"lie-'  # the beginning of an ETag that the origin's script made up

_BEFORE = -1  # the place in an object's history that stands for the time before its first version


@dataclass(frozen=True, slots=True)
class Record:
    """One operation of one client.

    `version` is from the response's head or, for a write, from the request. None means absent. `span` is the range of a
    GET, with end None for the object's end. `received` counts body bytes, for HEAD and writes the declared length.
    """

    client: int
    connection: int
    operation: Operation
    key: str
    start: float
    end: float
    outcome: Outcome
    status: int = 0
    version: int | None = None
    etag: str = ""
    span: tuple[int, int | None] | None = None
    received: int = 0
    finding: Finding = Finding()  # noqa: RUF009 - frozen
    error_body: str = ""  # the body of an error response

    @property
    def is_read(self) -> bool:
        return self.operation in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str  # an alias in INVARIANTS, such as "I5"
    what: str
    record: Record


class _Timeline:
    """The changes of one key in their order."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.places: defaultdict[int | None, list[int]] = defaultdict(list, {None: [_BEFORE]})

    def add(self, change: Change) -> None:
        self.places[change.version].append(len(self.changes))
        self.changes.append(change)

    def at(self, place: int) -> float:
        return float("-inf") if place == _BEFORE else self.changes[place].at

    def first(self, version: int | None, start: float, end: float) -> int | None:
        """Return the version's first place within these times, None if there is none."""
        places = self.places.get(version, [])
        found = bisect.bisect_left(places, start, key=self.at)
        return places[found] if found < len(places) and self.at(places[found]) <= end else None

    def left_at(self, place: int) -> float:
        """Return the time of the next change."""
        return self.changes[place + 1].at if place + 1 < len(self.changes) else float("inf")


def violations(
    records: Iterable[Record],
    changes: Iterable[Change],
    staleness: float = float("inf"),
    known: Iterable[tuple[float, Record]] | None = None,
) -> list[Violation]:
    """Return all violations. `staleness` is how many seconds a version may be served after its replacement.

    `known` are writes, each with the time from which on no older version may be served. By default these are the
    successful writes of the records, from their responses on.
    """
    timelines: defaultdict[str, _Timeline] = defaultdict(_Timeline)
    for change in changes:
        timelines[change.key].add(change)
    ordered = sorted(records, key=lambda record: record.start)
    found = [
        Violation(rule, what, record)
        for record in ordered
        for rule, what in (*_of_itself(record), *_of_write(record, timelines[record.key]))
    ]
    if known is None:
        known = [(record.end, record) for record in ordered if not record.is_read and record.outcome == "done"]
    return found + list(_of_reads(ordered, timelines, staleness, known))


def _of_itself(record: Record) -> Iterator[tuple[str, str]]:
    """Check one record without the history."""
    finding = record.finding
    if record.outcome == "garbled":
        yield "I3", "what came is no answer: the connection is out of step"
    if record.outcome == "hung":
        yield "I20", "no answer came"
    if not record.is_read:
        return
    if finding.is_hole:
        yield "I2", f"a hole at {finding.wrong_at}"
    elif finding.wrong_at is not None:
        yield "I1", f"a wrong byte at {finding.wrong_at}"
    if len(finding.versions) > 1:
        yield "I1", f"a body of versions {finding.versions}"
    elif finding.versions and record.version is not None and finding.versions != (record.version,):
        yield "I1", f"a head of version {record.version} with a body of version {finding.versions[0]}"


def _of_write(record: Record, timeline: _Timeline) -> Iterator[tuple[str, str]]:
    if record.is_read:
        return
    if record.outcome == "done" and timeline.first(record.version, record.start, record.end) is None:
        yield "I8", "a write that was answered did not take place while it ran"
    if record.operation != "PUT":
        return
    places = timeline.places.get(record.version, [])
    written = [timeline.changes[place] for place in places if place != _BEFORE]
    if record.outcome in ("refused", "aborted") and written:
        yield "I8", f"a write that was {record.outcome} changed the object"
    if any(change.size != record.received for change in written):
        yield "I8", f"{[change.size for change in written]} bytes of {record.received} were stored"


def _of_reads(
    ordered: Sequence[Record],
    timelines: Mapping[str, _Timeline],
    staleness: float,
    known: Iterable[tuple[float, Record]],
) -> Iterator[Violation]:
    floors = _floors(known, timelines)
    seen: dict[tuple[int, str], int] = {}  # last place read, by connection and key
    for record in ordered:
        if not record.is_read or not (record.version is not None or record.outcome == "absent"):
            continue
        timeline = timelines[record.key]
        floor = floors[record.key].before(record.start)
        last = seen.get((record.connection, record.key), _BEFORE)
        # Each rule narrows the range of places that the version may have had. The first rule that empties it is broken.
        places = timeline.places.get(record.version, [])
        until = bisect.bisect_right(places, record.end, key=timeline.at)
        since = 0
        for rule, what, begin, stop in (
            ("I1", "a version that was never written", 0, len(places)),
            ("I1", "a version that came later", 0, until),
            ("I5", "a version older than one written before", bisect.bisect_left(places, floor), until),
            (
                "I7",
                f"a version that went more than {staleness:g} s before",
                bisect.bisect_left(places, record.start, key=lambda at: timeline.left_at(at) + staleness),
                until,
            ),
            (
                "I7",
                "a version older than one read before on this connection",
                bisect.bisect_left(places, last),
                until,
            ),
        ):
            since = max(since, begin)
            if since >= stop:
                yield Violation(rule, what, record)
                break
        else:
            place = places[since]
            seen[record.connection, record.key] = place
            if record.version is not None:
                yield from _of_size(record, timeline.changes[place])


def _of_size(record: Record, change: Change) -> Iterator[Violation]:
    """Check length and ETag of a response whose version is known."""
    if record.etag not in ("", change.etag) and not record.etag.startswith(LIE):
        yield Violation("I4", f"ETag {record.etag}, of version {change.version} it is {change.etag}", record)
    start, stop = (0, None) if record.status == 200 or record.span is None else record.span
    whole = (change.size if stop is None else min(stop, change.size)) - start
    if record.outcome == "done" and record.received != whole:
        yield Violation("I3", f"{record.received} bytes ended cleanly, version and range make {whole}", record)


class _Floor:
    """The places of acknowledged writes, by time."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._places: list[int] = []

    def add(self, time: float, place: int) -> None:
        self._times.append(time)
        self._places.append(max(place, self._places[-1] if self._places else _BEFORE))

    def before(self, time: float) -> int:
        count = bisect.bisect_left(self._times, time)
        return self._places[count - 1] if count else _BEFORE


def _floors(known: Iterable[tuple[float, Record]], timelines: Mapping[str, _Timeline]) -> Mapping[str, _Floor]:
    floors: defaultdict[str, _Floor] = defaultdict(_Floor)
    for at, write in sorted(known, key=lambda found: found[0]):
        # The first place that fits, because two concurrent deletes cannot be told apart.
        place = timelines[write.key].first(write.version, write.start, write.end)
        if place is not None:
            floors[write.key].add(at, place)
    return floors


def bytes_checked(records: Iterable[Record]) -> int:
    return sum(record.received for record in records if record.operation == "GET")
