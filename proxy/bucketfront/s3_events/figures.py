"""What was done with events, in closed sets: for metrics and tests."""

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum

from bucketfront.s3_events.event import EventKind

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
"""The upper bounds of the histogram, from a webhook nearby to a queue that was not read for a day."""


class EventOutcome(Enum):
    """What an event led to. The values are labels of metrics, so they are stable."""

    EXPIRED = "expired"  # an object of the cache is revalidated at its next use
    UNCHANGED = "unchanged"  # the cache has no such object, or has the version that the event is about
    OUTDATED = "outdated"  # a later event of the key, or the same one, came before
    FOREIGN = "foreign"  # no mount shows the bucket and the key
    IGNORED = "ignored"  # it is about no bytes, metadata or access


class MessageOutcome(Enum):
    """What became of a message. The values are labels of metrics, so they are stable."""

    APPLIED = "applied"
    TEST = "test"
    SUBSCRIPTION = "subscription"  # of SNS, which waits for a confirmation
    UNREADABLE = "unreadable"  # it, or a record of it, is no event of a known sender
    FAILED = "failed"  # the disk refused; it comes again
    UNAUTHORIZED = "unauthorized"  # a post without the webhook's token


class MessageSource(Enum):
    """Where a message came from. The values are labels of metrics, so they are stable."""

    QUEUE = "queue"
    WEBHOOK = "webhook"


@dataclass(slots=True)
class Delays:
    """A histogram: the seconds from S3's time of an event until it was applied."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class EventFigures:
    """Counts since the start. `newest_at` is the latest time of S3 in an applied event, None before the first."""

    events: dict[tuple[EventKind, EventOutcome], int] = field(default_factory=dict)
    messages: dict[tuple[MessageSource, MessageOutcome], int] = field(default_factory=dict)
    delays: Delays = field(default_factory=Delays)
    newest_at: float | None = None
    queue_failures: int = 0
    reader_restarts: int = 0
    losses: int = 0  # times at which messages may have been lost, so that all objects were marked stale

    def count(self, kind: EventKind, outcome: EventOutcome) -> None:
        self.events[kind, outcome] = self.events.get((kind, outcome), 0) + 1

    def count_message(self, source: MessageSource, outcome: MessageOutcome) -> None:
        self.messages[source, outcome] = self.messages.get((source, outcome), 0) + 1
