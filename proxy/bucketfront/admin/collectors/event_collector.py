"""The metrics of S3's events."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront.s3_events.assembly import S3Events
from bucketfront.s3_events.figures import BOUNDS_S
from bucketfront.server.telemetry.metric_family import counter, gauge, histogram
from bucketfront.warm.refresher import Refresher

_BOUNDS = tuple(map(floatToGoString, (*BOUNDS_S, float("inf"))))

_EVENTS = counter(
    "s3_events",
    "Events of S3 by kind and outcome: `expired` if an object of the cache is revalidated at its next use, `unchanged`"
    " if the cache has no such object or has that version, `outdated` behind a later event, `foreign` if no mount shows"
    " it, `ignored` if it is about no bytes. Without `invalidation` there is no series of `s3_event`.",
    "kind",
    "outcome",
)
_MESSAGES = counter(
    "s3_event_messages",
    "Messages with events of S3 by source and outcome: `applied`, `test`, `subscription` of SNS, `unreadable`, `failed`"
    " at the disk so that they come again, `unauthorized` without the webhook's token.",
    "source",
    "outcome",
)
_DELAY = histogram("s3_event_delay_seconds", "Time from a change at S3, by S3's clock, until it was applied here.")
_FAILURES = counter("s3_event_queue_failures", "Calls of the queue that failed.")
_RESTARTS = counter("s3_event_reader_restarts", "Times at which the reader of the queue failed and began again.")
_LOSSES = counter("s3_event_losses", "Times at which events may have been lost, so that all objects were marked stale.")
_BACKLOG = gauge("s3_event_queue_backlog", "Messages in the queue, about, read every five minutes.")
_REFRESHES = counter(
    "s3_event_refreshes",
    "Objects with a new version, by what their refresh came to: `fetched`, `fresh` if a client's request came first,"
    " `unread` if the cache had not all of it or no client has read it since it last changed, `no-room`, `not-stored`,"
    " `failed`. Without `invalidation.refresh_rate` there is no series.",
    "outcome",
)
_READ = gauge("s3_event_queue_read_timestamp_seconds", "Time of the last call that read the queue.")
_NEWEST = gauge("s3_event_newest_timestamp_seconds", "The latest time of S3 in an applied event.")

FAMILIES = (_EVENTS, _MESSAGES, _DELAY, _FAILURES, _RESTARTS, _LOSSES, _BACKLOG, _REFRESHES, _READ, _NEWEST)


class EventCollector(Collector):
    """`events` takes events, and `refresher` fetches new versions. Each is None if the settings do not ask for it."""

    def __init__(self, registry: CollectorRegistry, events: S3Events | None, refresher: Refresher | None) -> None:
        self._events = events
        self._refresher = refresher
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        running = self._events
        if running is None:
            return
        figures, reader = running.applier.figures, running.reader
        yield _EVENTS.values(
            ((kind.value, outcome.value), count) for (kind, outcome), count in list(figures.events.items())
        )
        yield _MESSAGES.values(
            ((source.value, outcome.value), count) for (source, outcome), count in list(figures.messages.items())
        )
        delay = _DELAY.histogram()
        delay.add_metric((), list(zip(_BOUNDS, accumulate(figures.delays.counts), strict=True)), figures.delays.sum)
        yield delay
        yield _LOSSES.value(figures.losses)
        if self._refresher is not None:
            yield _REFRESHES.values(((outcome.value,), count) for outcome, count in self._refresher.outcomes.items())
        if figures.newest_at is not None:
            yield _NEWEST.value(figures.newest_at)
        if reader is not None:
            yield _FAILURES.value(figures.queue_failures)
            yield _RESTARTS.value(figures.reader_restarts)
            yield _BACKLOG.value(reader.backlog)
            if reader.read_at is not None:
                yield _READ.value(reader.read_at)
