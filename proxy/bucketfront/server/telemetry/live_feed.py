"""Hands what happens to the operators who watch, as server-sent events (WHATWG HTML, section 9.2).

A subscription has a queue of bounded size and a bounded rate. What does not fit is dropped, and the next event but few
has its number. So neither a slow reader nor a busy proxy costs more than a bound (docs/invariants.md#memory).
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from enum import StrEnum

from bucketfront.server.telemetry.access_log import FinishedRequest, json_lines
from bucketfront.server.telemetry.request_filter import RequestFilter
from bucketfront.server.telemetry.request_ranking import RequestRanking

MAX_SUBSCRIPTIONS = 8  # a few people, each with a page or two
MAX_QUEUE_BYTES = 256 << 10  # of the events that wait for one reader
MAX_REQUESTS_PER_S = 1000  # of one subscription: more than people can read, and a few percent of what there may be
DROPPED_INTERVAL_S = 1.0  # between two events that have the number of those dropped


class EventKind(StrEnum):
    """The names of the events. Programs rely on them."""

    REQUEST = "request"  # a request has ended: its line of the access log
    FIGURES = "figures"  # once a second
    DROPPED = "dropped"  # how many events were dropped since the last one of these
    END = "end"  # the last event of a proxy that stops


def event(kind: EventKind, data: str) -> str:
    """Return one event. `data` is JSON on one line."""
    return f"event: {kind}\ndata: {data}\n\n"


class Subscription:
    """The events of `kinds` for one reader, and of the requests those that `wanted` selects.

    `clock` is in seconds. `is_over` is true once `take` has returned the last event.
    """

    def __init__(self, kinds: frozenset[EventKind], wanted: RequestFilter, clock: Callable[[], float]) -> None:
        self.kinds = kinds
        self.is_over = False
        self._is_ending = False
        self._wanted = wanted
        self._clock = clock
        self._queue: list[str] = []
        self._queued = 0  # characters, which are ASCII
        self._dropped = 0
        self._dropped_at = clock() - DROPPED_INTERVAL_S
        self._tokens = float(MAX_REQUESTS_PER_S)  # requests that there is room for
        self._tokens_at = clock()
        self._news = asyncio.Event()

    def put(self, text: str, events: int = 1) -> None:
        """Queue whole events, or drop them if the queue is full."""
        if self._queued + len(text) > MAX_QUEUE_BYTES:
            self._dropped += events
        else:
            self._queue.append(text)
            self._queued += len(text)
        self._news.set()

    def put_requests(self, requests: Sequence[FinishedRequest]) -> None:
        """Queue the requests that are wanted, as far as the rate permits."""
        wanted = self._wanted.select(requests)
        if not wanted:
            return
        now = self._clock()
        self._tokens = min(MAX_REQUESTS_PER_S, self._tokens + (now - self._tokens_at) * MAX_REQUESTS_PER_S)
        self._tokens_at = now
        count = min(len(wanted), int(self._tokens))
        self._tokens -= count
        self._dropped += len(wanted) - count
        if count:
            lines = json_lines(wanted[:count]).rstrip("\n")
            self.put(event(EventKind.REQUEST, lines.replace("\n", f"\n\nevent: {EventKind.REQUEST}\ndata: ")), count)

    def take(self) -> str:
        """Return the events that wait, as one text, and an event for those that were dropped if it is time."""
        texts, self._queue, self._queued = self._queue, [], 0
        self._news.clear()
        now = self._clock()
        if self._dropped and (self._is_ending or now - self._dropped_at >= DROPPED_INTERVAL_S):
            texts.append(event(EventKind.DROPPED, json.dumps({"events": self._dropped})))
            self._dropped, self._dropped_at = 0, now
        if self._is_ending:
            texts.append(event(EventKind.END, json.dumps({"reason": "the proxy stops"})))
            self.is_over = True
        return "".join(texts)

    async def wait(self, timeout_s: float) -> None:
        """Wait until `take` has something, or until `wake`, for at most so many seconds."""
        if self._dropped:
            timeout_s = min(timeout_s, DROPPED_INTERVAL_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def wake(self) -> None:
        self._news.set()

    def end(self) -> None:
        """Let no further event come."""
        self._is_ending = True
        self.wake()


class LiveFeed:
    """Adds finished requests to `ranking`, and hands them to the subscriptions. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ranking = RequestRanking(clock)
        self._clock = clock
        self._subscriptions: set[Subscription] = set()
        self._is_closed = False

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        self.ranking.add(requests)
        for subscription in self._subscriptions:
            if EventKind.REQUEST in subscription.kinds:
                subscription.put_requests(requests)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, kinds: frozenset[EventKind], wanted: RequestFilter) -> Subscription | None:
        """Return a subscription, until `unsubscribe`. Returns None if there are too many, or if the proxy stops."""
        if self._is_closed or len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            return None
        subscription = Subscription(kinds, wanted, self._clock)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, kind: EventKind, data: Callable[[], str]) -> None:
        """Queue one event for all who want its kind. `data` is called if there is one."""
        wanting = [subscription for subscription in self._subscriptions if kind in subscription.kinds]
        if wanting:
            text = event(kind, data())
            for subscription in wanting:
                subscription.put(text)

    def close(self) -> None:
        """End all subscriptions, and refuse further ones."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.end()
