"""The wall clock is set by a day, while the proxy runs or between two runs.

No response is fresh for longer (I7), no entry becomes idle by that, and ages and dates are right.
"""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from proxy_under_test import S3, StartProxy, WallClock, pattern

DAY = 86400.0
JUMPS = [-DAY, DAY]


@pytest.mark.parametrize("fast_path", [True, False])
async def test_set_back_while_running(start: StartProxy, s3: S3, clock: WallClock, fast_path: bool) -> None:
    """Freshness ends at the same moment as without the change, and the age increases as before."""
    proxy = await start(server={"fast_path": fast_path}, freshness={"stale_while_revalidate": 0})
    s3.put("x", b"old")
    await proxy.get("/x")
    s3.put("x", b"new")
    clock.advance(100)
    clock.jump(-DAY)
    response = await proxy.get("/x")
    assert (response.body, response.headers["Age"], response.cache_status) == (b"old", "100", "hit; ttl=200")
    clock.advance(200)
    response = await proxy.get("/x")
    assert (response.body, response.headers["Age"]) == (b"new", "0")
    clock.jump(DAY)
    clock.advance(10)
    assert (await proxy.get("/x")).headers["Age"] == "10"


@pytest.mark.parametrize("fast_path", [True, False])
async def test_set_ahead_while_running(start: StartProxy, s3: S3, clock: WallClock, fast_path: bool) -> None:
    """The machine may have been suspended for that time.

    An entry that is too old by that is revalidated, and then fresh as usual.
    """
    proxy = await start(server={"fast_path": fast_path}, freshness={"stale_while_revalidate": 0})
    s3.put("x", b"old")
    await proxy.get("/x")
    s3.put("x", b"new")
    clock.jump(DAY)
    response = await proxy.get("/x")
    assert (response.body, response.headers["Age"]) == (b"new", "0")
    assert (await proxy.get("/x")).cache_status == "hit; ttl=300"
    clock.jump(-DAY)
    clock.advance(10)
    response = await proxy.get("/x")
    assert (response.headers["Age"], response.cache_status) == ("10", "hit; ttl=290")


@pytest.mark.parametrize("jump", JUMPS)
async def test_nothing_is_idle_for_it(start: StartProxy, s3: S3, clock: WallClock, jump: float) -> None:
    """The idle timer counts the time that passed."""
    proxy = await start(cache={"idle_timeout": "1h"})
    for key in ("a", "b"):
        s3.put(key, b"data")
        await proxy.get(f"/{key}")
    clock.advance(1800)
    clock.jump(jump)
    await proxy.step()
    assert len(proxy.files) == 2
    await proxy.get("/a")
    clock.advance(1801)
    await proxy.step()
    assert proxy.figures["entries"] == 1
    assert len(proxy.files) == 1
    clock.advance(1801)
    await proxy.step()
    assert proxy.files == []


@pytest.mark.parametrize("jump", JUMPS)
async def test_between_two_runs(start: StartProxy, s3: S3, clock: WallClock, jump: float) -> None:
    """After a restart with another clock each entry is revalidated once, by a 304, and none is lost."""
    proxy = await start(cache={"idle_timeout": "1h"}, freshness={"default_ttl": "1h", "stale_while_revalidate": 0})
    body = pattern(100_000)
    s3.put("x", body)
    s3.put("y", b"old")
    await proxy.get("/x")
    await proxy.get("/y")
    await proxy.settled()
    clock.advance(100)
    await proxy.get("/x")
    await proxy.stop()
    s3.put("y", b"new")
    clock.jump(jump)

    proxy = await start(cache={"idle_timeout": "1h"}, freshness={"default_ttl": "1h", "stale_while_revalidate": 0})
    await proxy.step()
    assert proxy.figures["entries"] == 2
    proxy.relay.reset()
    response = await proxy.get("/x")
    assert (response.body, response.headers["Age"]) == (body, "0")
    assert response.cache_status == "fwd=stale; fwd-status=304"
    assert proxy.relay.body_bytes == 0
    assert (await proxy.get("/y")).body == b"new"
    assert (await proxy.get("/x")).cache_status == "hit; ttl=3600"
    clock.advance(3601)
    await proxy.step()
    assert proxy.files == []


async def test_set_back_and_again(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """A validation after a restart with a clock set back counts as usual, also after the next restart."""
    proxy = await start()
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.stop()
    clock.jump(-DAY)
    proxy = await start()
    await proxy.get("/x")
    await proxy.stop()
    clock.jump(DAY)
    clock.advance(10)
    proxy = await start()
    response = await proxy.get("/x")
    assert (response.headers["Age"], response.cache_status) == ("10", "hit; ttl=290")


@pytest.mark.parametrize("jump", JUMPS)
async def test_expires(start: StartProxy, s3: S3, clock: WallClock, jump: float) -> None:
    """`Expires` is a time of S3's clock.

    If the proxy's clock is wrong, a response is fresh for a shorter time, never for a longer one.
    """
    proxy = await start(freshness={"stale_while_revalidate": 0})
    clock.jump(jump)
    end = datetime.fromtimestamp(clock.now - jump + 300, UTC)
    s3.put("x", b"old", Expires=end)
    await proxy.get("/x")
    s3.put("x", b"new")
    clock.advance(301)
    assert (await proxy.get("/x")).body == b"new"


async def test_date_is_the_wall_clock(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """`Date` and `Age` add up to the wall clock's time, whatever the cache's clock is."""
    proxy = await start()
    s3.put("x", b"data")
    await proxy.get("/x")
    clock.advance(100)
    response = await proxy.get("/x")
    now = parsedate_to_datetime(response.headers["Date"]).timestamp() + int(response.headers["Age"])
    assert abs(now - time.time()) < 10
