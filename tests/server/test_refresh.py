"""With `invalidation.refresh_rate`, new versions of what clients read are fetched at once (docs/fleet.md#refresh)."""

import asyncio

import pytest
from messages import message, record
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from relay import Cut, Relay, Seen
from stopwatch import HANG_S

from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.warm import refresher
from bucketfront.warm.refresher import Refresher, RefreshOutcome

PATH = "/api/v1/s3-events"
TOKEN = "0123456789abcdef"
DAY = {"default_ttl": "1d", "negative_ttl": "1d"}
LARGE = 3 * BLOCK


@pytest.fixture
async def hooked(start: StartProxy) -> Proxy:
    """A proxy that takes events by its webhook, and refreshes."""
    return await start(freshness=DAY, invalidation={"webhook": {"token": TOKEN}, "refresh_rate": "1GB"})


def refresher_of(proxy: Proxy) -> Refresher:
    assert proxy.app.refresher is not None
    return proxy.app.refresher


def outcomes(proxy: Proxy) -> dict[str, int]:
    return {outcome.value: count for outcome, count in refresher_of(proxy).outcomes.items() if count}


async def read(proxy: Proxy, name: str, body: bytes, **headers: str) -> None:
    """Have a client read an object, and wait until the cache has it."""
    assert (await proxy.get(f"/{name}", **headers)).body == body
    await proxy.settled()


async def report(proxy: Proxy, s3: S3, *names: str, event: str = "ObjectCreated:Put") -> None:
    """Post the event of a change of some objects, and wait until nothing is to be refreshed any more."""
    events = message(*(record(name, event, bucket=s3.bucket) for name in names))
    response = await proxy.admin("POST", PATH, events.encode(), {"Authorization": f"Bearer {TOKEN}"})
    assert response.status == 200
    await refresher_of(proxy).wait()
    await proxy.settled()


async def is_hit(proxy: Proxy, name: str, body: bytes) -> bool:
    response = await proxy.get(f"/{name}")
    assert response.body == body
    return response.cache_status.split(";")[0] == "hit"


async def test_a_new_version_is_there_before_a_client_wants_it(hooked: Proxy, s3: S3) -> None:
    """An object that was whole in the cache is a hit with its new bytes, of any size."""
    for number, size in enumerate((0, 1, LARGE, 3)):
        s3.put("x", pattern(size, number))
        if number:
            await report(hooked, s3, "x")
            assert await is_hit(hooked, "x", pattern(size, number))
        else:
            await read(hooked, "x", pattern(size, number))
    assert outcomes(hooked) == {"fetched": 3}


async def test_what_no_client_wanted_is_not_fetched(hooked: Proxy, s3: S3, relay: Relay) -> None:
    """Nothing is sent to S3 for an object that is not cached, of which a part is cached, or that is gone."""
    for name in ("never", "part", "gone"):
        s3.put(name, pattern(LARGE, 1))
    await read(hooked, "part", pattern(10, 1), Range="bytes=0-9")
    await read(hooked, "gone", pattern(LARGE, 1))
    for name in ("never", "part"):
        s3.put(name, pattern(LARGE, 2))
    s3.client.delete_object(Bucket=s3.bucket, Key="gone")
    before = len(relay.seen)
    await report(hooked, s3, "never", "part")
    await report(hooked, s3, "gone", event="ObjectRemoved:Delete")
    assert len(relay.seen) == before
    assert outcomes(hooked) == {"unread": 1}


async def test_an_object_that_is_read_no_more_is_fetched_once(hooked: Proxy, s3: S3) -> None:
    """Until a client has read the new version, further ones are not fetched at once."""
    s3.put("x", b"one")
    await read(hooked, "x", b"one")
    for body in (b"two", b"three", b"four"):
        s3.put("x", body)
        await report(hooked, s3, "x")
    assert outcomes(hooked) == {"fetched": 1, "unread": 2}
    assert not await is_hit(hooked, "x", b"four")
    s3.put("x", b"five")
    await report(hooked, s3, "x")
    assert await is_hit(hooked, "x", b"five")


async def test_a_hit_of_the_fast_path_is_a_read(hooked: Proxy, s3: S3) -> None:
    """Hits alone keep an object refreshed, whichever path serves them."""
    s3.put("x", b"one")
    await read(hooked, "x", b"one")
    for body in (b"two!", b"three", b"four!!"):
        s3.put("x", body)
        await report(hooked, s3, "x")
        assert await is_hit(hooked, "x", body)
        assert await is_hit(hooked, "x", body)
    assert outcomes(hooked) == {"fetched": 3}


async def test_an_object_that_changes_during_its_refresh(hooked: Proxy, s3: S3, relay: Relay) -> None:
    """An event during the refresh leads to another one, and no request after it gets the version before (I6, I7)."""
    s3.put("x", pattern(LARGE, 1))
    await read(hooked, "x", pattern(LARGE, 1))
    s3.put("x", pattern(LARGE, 2))

    async def change(_: Seen) -> None:
        relay.on_body = None
        s3.put("x", pattern(LARGE, 3))
        events = message(record("x", "ObjectCreated:Put", bucket=s3.bucket))
        await hooked.admin("POST", PATH, events.encode(), {"Authorization": f"Bearer {TOKEN}"})
        assert (await hooked.get("/x")).body == pattern(LARGE, 3)

    relay.on_body = change
    await report(hooked, s3, "x")
    assert (await hooked.get("/x")).body == pattern(LARGE, 3)


async def test_a_failing_origin(hooked: Proxy, s3: S3, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that fails is counted, the object stays stale, and later refreshes work."""

    async def no_pause(_: float) -> None:
        return

    monkeypatch.setattr(refresher_of(hooked), "_sleep", no_pause)

    async def cut(_: Seen) -> bytes:
        raise Cut

    s3.put("x", b"one")
    await read(hooked, "x", b"one")
    relay.on_request = cut
    s3.put("x", b"two")
    await report(hooked, s3, "x")
    assert outcomes(hooked) == {"failed": 1}
    relay.on_request = None
    async with asyncio.timeout(HANG_S):
        while (await hooked.get("/x")).body != b"two":  # noqa: ASYNC110 - the circuit breaker may want a pause
            await asyncio.sleep(0.01)
    s3.put("x", b"three")
    await report(hooked, s3, "x")
    assert await is_hit(hooked, "x", b"three")


async def test_the_queue_has_a_bound(hooked: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds the bound is fetched by the next request of it (I19)."""
    monkeypatch.setattr(refresher, "MAX_QUEUED", 2)
    names = [f"o{number}" for number in range(5)]
    for name in names:
        s3.put(name, b"one")
        await read(hooked, name, b"one")
        s3.put(name, b"two!")
    await report(hooked, s3, *names)
    assert outcomes(hooked) == {"fetched": 2, "no-room": 3}
    assert [await is_hit(hooked, name, b"two!") for name in names].count(True) == 2


async def test_the_pace(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """All refreshes together bring no more bytes a second than the setting has."""
    proxy = await start(freshness=DAY, invalidation={"webhook": {"token": TOKEN}, "refresh_rate": "1KB"})
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(refresher_of(proxy), "_sleep", note)
    monkeypatch.setattr(refresher_of(proxy), "_clock", lambda: 0.0)
    for number in range(3):
        s3.put(f"o{number}", pattern(BLOCK, number))
        await read(proxy, f"o{number}", pattern(BLOCK, number))
        s3.put(f"o{number}", pattern(BLOCK, 9))
    await report(proxy, s3, "o0", "o1", "o2")
    assert sorted(waits) == [BLOCK / 1000, 2 * BLOCK / 1000, 3 * BLOCK / 1000]


async def test_a_rule_without_a_cache(start: StartProxy, s3: S3, relay: Relay) -> None:
    """The present rules decide, so that an object which they no longer store is not fetched."""
    proxy = await start(freshness=DAY, invalidation={"webhook": {"token": TOKEN}, "refresh_rate": "1GB"})
    s3.put("x", b"one")
    await read(proxy, "x", b"one")
    s3.put("x", b"two")
    settings = proxy.app.settings.freshness.model_validate({**DAY, "rules": [{"match": "**", "cache": False}]})
    proxy.app._in_force.freshness = FreshnessPolicy(settings)
    before = len(relay.seen)
    await report(proxy, s3, "x")
    assert (outcomes(proxy), len(relay.seen)) == ({RefreshOutcome.NOT_STORED.value: 1}, before)


async def test_the_metric(hooked: Proxy, start: StartProxy, s3: S3) -> None:
    """Each outcome has a series."""
    s3.put("x", b"one")
    await read(hooked, "x", b"one")
    s3.put("x", b"two")
    await report(hooked, s3, "x")
    text = (await hooked.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_s3_event_refreshes_total{outcome="fetched"} 1.0' in text
    assert 'bucketfront_s3_event_refreshes_total{outcome="failed"} 0.0' in text
