"""Live requests are selected, added up and handed on with bounds (I19), and cost nothing if no reader wants them."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from rows import each_row

from bucketfront.http.glob import Glob
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry import live_feed, request_filter
from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest, json_lines
from bucketfront.server.telemetry.live_feed import EventKind, LiveFeed, Subscription
from bucketfront.server.telemetry.logged_fields import NOTHING
from bucketfront.server.telemetry.request_filter import RequestFilter
from bucketfront.server.telemetry.request_metrics import RequestMetrics, RequestTotals
from bucketfront.server.telemetry.request_ranking import (
    LARGE_BYTES,
    MAX_SAMPLES_PER_S,
    MAX_SLOW,
    SLOW_PERIOD_S,
    RequestRanking,
    SlowestRequests,
)

NOON = 1_790_000_000.0
REQUESTS = frozenset({EventKind.REQUEST})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def request(path: str = "/x", *, sent: int = 10, seconds: float = 0.001, **facts: Any) -> FinishedRequest:
    record = AccessRecord(path=path, **{"method": "GET", "status": 200, "cache": "hit", "outcome": "hit", **facts})
    return record, sent, "127.0.0.1", NOON, seconds, NOTHING


def events(text: str) -> list[tuple[str, Any]]:
    """Return the events of a stream by name and data, as a browser reads them (WHATWG HTML, section 9.2.6)."""
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


@each_row(
    ("wanted", "paths"),
    [
        (RequestFilter(), ["/a.mp4", "/live/b.ts", "/c%20d", "/e"]),
        (RequestFilter(path=Glob("*.mp4")), ["/a.mp4"]),
        (RequestFilter(path=Glob("/live/**")), ["/live/b.ts"]),
        (RequestFilter(path=Glob("/c d")), ["/c%20d"]),
        (RequestFilter(statuses=frozenset({404})), ["/live/b.ts"]),
        (RequestFilter(classes=frozenset({4, 5})), ["/live/b.ts", "/c%20d"]),
        (RequestFilter(decisions=frozenset({"miss"})), ["/e"]),
        (RequestFilter(slow_s=0.5), ["/a.mp4"]),
        (RequestFilter(slow_s=0.5, decisions=frozenset({"miss"})), []),
    ],
)
def test_filter(wanted: RequestFilter, paths: list[str]) -> None:
    """Each condition selects the requests for which it holds, and several of them those for which all hold."""
    batch = [
        request("/a.mp4", seconds=0.5),
        request("/live/b.ts", status=404),
        request("/c%20d", status=502),
        request("/e", outcome="miss"),
    ]
    for _ in range(2):  # the second time from memory
        assert [found[0].path for found in wanted.select(batch)] == paths


def test_filter_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter remembers a bounded number of paths of bounded length, and selects the same all the while (I19)."""
    monkeypatch.setattr(request_filter, "MAX_REMEMBERED", 3)
    wanted = RequestFilter(path=Glob("*.a"))
    paths = [f"/{number}.{'ab'[number % 2]}" for number in range(10)] + ["/" + "x" * 600 + ".a"]
    for _ in range(3):
        assert [found[0].path for found in wanted.select([request(path) for path in paths])] == [
            path for path in paths if path.endswith(".a")
        ]
        assert len(wanted._remembered) <= 3


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=6), min_size=1, max_size=5))
def test_events_are_the_lines_of_the_log(paths: list[str]) -> None:
    """Each event of a request has the line of the access log as its data, whatever the client sent."""
    batch = [request(path) for path in paths]
    subscription = Subscription(REQUESTS, RequestFilter(), Clock())
    subscription.put_requests(batch)
    assert events(subscription.take()) == [("request", json.loads(line)) for line in json_lines(batch).splitlines()]


def test_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription gets so many requests a second, and once a second the number of those that were dropped."""
    monkeypatch.setattr(live_feed, "MAX_REQUESTS_PER_S", 10)
    clock = Clock()
    subscription = Subscription(REQUESTS, RequestFilter(), clock)
    subscription.put_requests([request(f"/{number}") for number in range(25)])
    assert [kind for kind, _ in events(subscription.take())] == ["request"] * 10 + ["dropped"]
    clock.now += 0.5
    subscription.put_requests([request(f"/{number}") for number in range(25)])
    assert [kind for kind, _ in events(subscription.take())] == ["request"] * 5
    clock.now += 0.5
    assert events(subscription.take()) == [("dropped", {"events": 20})]
    assert subscription.take() == ""


def test_only_wanted_requests_count_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter comes before the rate, so that a rare request is seen among many others."""
    monkeypatch.setattr(live_feed, "MAX_REQUESTS_PER_S", 1)
    subscription = Subscription(REQUESTS, RequestFilter(statuses=frozenset({404})), Clock())
    subscription.put_requests([request()] * 50 + [request("/rare", status=404)])
    assert [(kind, data["path"]) for kind, data in events(subscription.take())] == [("request", "/rare")]


def test_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue of a reader that takes nothing has a bound. What comes later is dropped and counted (I19)."""
    monkeypatch.setattr(live_feed, "MAX_QUEUE_BYTES", 2000)
    subscription = Subscription(REQUESTS, RequestFilter(), Clock())
    for number in range(100):
        subscription.put_requests([request(f"/{number}")])
    found = events(subscription.take())
    assert found[-1] == ("dropped", {"events": 100 - (len(found) - 1)})
    assert [data["path"] for _, data in found[:-1]] == [f"/{number}" for number in range(len(found) - 1)]
    subscription.put_requests([request("/later")])
    assert events(subscription.take())[0][1]["path"] == "/later"


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reader of requests no line is formatted and no figures are made."""
    monkeypatch.setattr(live_feed, "json_lines", None)
    feed = LiveFeed(Clock())
    feed.add([request()])
    subscription = feed.subscribe(frozenset({EventKind.FIGURES}), RequestFilter())
    assert subscription is not None
    feed.add([request()])
    assert subscription.take() == ""
    feed.unsubscribe(subscription)
    feed.publish(EventKind.FIGURES, lambda: pytest.fail("made for no reader"))


def test_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are at most so many subscriptions. One that ends makes room, and none begins after the close (I19)."""
    monkeypatch.setattr(live_feed, "MAX_SUBSCRIPTIONS", 2)
    feed = LiveFeed(Clock())
    first, second = (feed.subscribe(REQUESTS, RequestFilter()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert feed.subscribe(REQUESTS, RequestFilter()) is None
    feed.unsubscribe(first)
    assert feed.subscribe(REQUESTS, RequestFilter()) is not None
    feed.close()
    feed.unsubscribe(second)
    assert feed.subscribe(REQUESTS, RequestFilter()) is None


def test_the_end_is_the_last_event() -> None:
    """At the close a subscription has its events, the number of those dropped, and the end."""
    feed = LiveFeed(Clock())
    subscription = feed.subscribe(REQUESTS, RequestFilter())
    assert subscription is not None
    feed.add([request()] * (live_feed.MAX_REQUESTS_PER_S + 1))
    subscription.take()
    feed.add([request()])
    feed.close()
    assert [kind for kind, _ in events(subscription.take())] == ["dropped", "end"]
    assert subscription.is_over


async def test_wait_is_woken() -> None:
    """A reader that waits sees an event, and the end, at once, and goes on after its timeout without one."""
    subscription = Subscription(REQUESTS, RequestFilter(), asyncio.get_running_loop().time)
    await subscription.wait(0.001)
    waiting = asyncio.create_task(subscription.wait(1000))
    await asyncio.sleep(0)
    subscription.put_requests([request()])
    await waiting
    subscription.take()
    waiting = asyncio.create_task(subscription.wait(1000))
    await asyncio.sleep(0)
    subscription.end()
    await waiting


MIXED = (
    request("/a", sent=100),
    request("/a", sent=100),
    request("/b", sent=5, outcome="miss", cut=Cut.ORIGIN),
    request("/c", status=404, sent=0),
    request("/d", method="PUT", outcome="method", sent=0, received=7, status=201),
    request("/b", status=304),
)


def test_totals() -> None:
    """The counters add up by decision and by status, whatever their other labels are."""
    metrics = RequestMetrics(CollectorRegistry(), lambda: None, lambda: 0)
    metrics.add(MIXED[:3])
    metrics.add(MIXED[3:])
    assert metrics.totals() == RequestTotals(
        {"hit": 4, "miss": 1, "method": 1}, {"hit": 210, "miss": 5, "method": 0}, 7, 1, 0, 1
    )


def test_ranking() -> None:
    """Hot objects are those that clients got."""
    ranking = RequestRanking(Clock())
    ranking.add(MIXED)
    assert [(hot.key, hot.weight) for hot in ranking.by_requests.top(9)] == [("/a", 2), ("/b", 2)]
    assert [(hot.key, hot.weight) for hot in ranking.by_bytes.top(9)] == [("/a", 200), ("/b", 15)]


def test_a_busy_proxy_samples() -> None:
    """Batches beyond the rate are not noted one by one, and the next one counts for them. Large ones always count."""
    clock = Clock()
    ranking = RequestRanking(clock)
    batches = int(MAX_SAMPLES_PER_S)
    for _ in range(batches):
        ranking.add([request("/a", sent=1)] * 4)
    assert ranking.by_requests.weight("/a") == 4 * batches
    for _ in range(9):
        ranking.add([request("/b", sent=1), request("/large", sent=LARGE_BYTES)])
    assert ranking.by_requests.weight("/b") == 0
    assert ranking.by_bytes.weight("/large") == 9 * LARGE_BYTES
    clock.now += 1.5 / MAX_SAMPLES_PER_S
    ranking.add([request("/b", sent=1), request("/large", sent=LARGE_BYTES)])
    assert ranking.by_requests.weight("/b") == pytest.approx(10, rel=0.001)
    assert ranking.by_bytes.weight("/b") == pytest.approx(10, rel=0.001)
    assert ranking.by_bytes.weight("/large") == pytest.approx(10 * LARGE_BYTES, rel=0.01)


@given(st.lists(st.integers(0, 100), max_size=60))
def test_slowest(durations: list[int]) -> None:
    """The slowest requests of a period are exact."""
    slowest = SlowestRequests(Clock())
    for seconds in durations:
        if seconds > slowest.least_s:
            slowest.add(request(seconds=seconds))
    found = [kept[4] for kept in slowest.top()]
    assert found == sorted((seconds for seconds in durations if seconds), reverse=True)[:MAX_SLOW]


def test_slowest_are_forgotten() -> None:
    """A slow request is shown for one period at least, and for two at most."""
    clock = Clock()
    slowest = SlowestRequests(clock)
    slowest.add(request("/slow", seconds=9))
    clock.now += SLOW_PERIOD_S
    slowest.add(request("/next", seconds=1))
    assert [found[0].path for found in slowest.top()] == ["/slow", "/next"]
    clock.now += SLOW_PERIOD_S
    assert [found[0].path for found in slowest.top()] == ["/next"]
    clock.now += 10 * SLOW_PERIOD_S
    assert slowest.top() == []
    assert slowest.least_s == 0
