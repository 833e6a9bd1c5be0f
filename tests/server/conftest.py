"""The proxy over real sockets: an S3 for the session, and a bucket, a relay and a proxy for each test."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from proxy_under_test import S3, WORKERS, Proxy, StartProxy, WallClock, settings_of
from relay import Relay
from stopwatch import HANG_S
from ulid import ULID

from bucketfront.admin import tokens
from bucketfront.app import App
from bucketfront.cache import housekeeper
from bucketfront.cache.fetch import body_stream
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.front_end.nursery import Nursery
from bucketfront.s3 import breaker
from bucketfront.server.http1.event_loop import new_event_loop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Return the loop of `bucketfront serve`. Tests of the fast path also run in asyncio's loop (I26)."""
    factories: dict[str, LoopFactory] = {"serve": new_event_loop}
    if item.path.name.startswith("test_fast_path"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests that need the process which serves to be this one, if others do."""
    if WORKERS > 1:
        for item in items:
            if (marker := item.get_closest_marker("one_process")) is not None:
                item.add_marker(pytest.mark.skip(reason=marker.args[0]))


@pytest.fixture(scope="session")
def origin_server(moto_s3: OriginSettings) -> OriginSettings:
    """The S3 behind the relay. A module that tests against another S3 overrides this fixture."""
    return moto_s3


@pytest.fixture(autouse=True)
def _no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that takes a second have the same requests as a quick one, and keep the entries that it made idle.

    Tests of hedges and of recovery set their own times, and tests of the upkeep call `Proxy.step`. Wrong tokens do not
    wait, except where a test is about that.
    """
    monkeypatch.setattr(body_stream, "HEDGE_AFTER_S", 10 * HANG_S)
    monkeypatch.setattr(housekeeper, "INTERVAL_S", 10 * HANG_S)
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", breaker.MAX_PAUSE_S)
    monkeypatch.setattr(tokens, "WRONG_TOKEN_PAUSE_S", 0.0)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Callable[[], Nursery]]:
    """Return a function that returns what forks the front ends of all tests. It starts with the first call."""
    running = functools.cache(Nursery)
    yield running
    if running.cache_info().currsize:
        running().close()


@pytest.fixture
def s3(origin_server: OriginSettings, client_of: Callable[[OriginSettings], Any]) -> S3:
    client, bucket = client_of(origin_server), f"b-{ULID()}".lower()
    client.create_bucket(Bucket=bucket)
    return S3(client, bucket)


@pytest.fixture
async def relay(origin_server: OriginSettings) -> AsyncIterator[Relay]:
    assert origin_server.endpoint_url is not None
    running = Relay(origin_server.endpoint_url)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def start(
    tmp_path: Path, s3: S3, relay: Relay, clock: WallClock, nursery: Callable[[], Nursery]
) -> AsyncIterator[StartProxy]:
    """Start a proxy with some settings changed. It stops with the test."""
    async with AsyncExitStack() as stack:

        async def started(**sections: Any) -> Proxy:
            settings = settings_of(tmp_path, relay.url, s3.bucket, **sections)
            forks = nursery() if settings.front_ends else None
            app = App(settings, clock=clock, elapsed=clock.passed, nursery=forks)
            return Proxy(await stack.enter_async_context(app), relay, clock)

        yield started


@pytest.fixture
async def proxy(start: StartProxy) -> Proxy:
    return await start()


@pytest.fixture
def start_two(start: StartProxy) -> StartProxy:
    """Start a proxy with two front ends."""

    async def started(**sections: Any) -> Proxy:
        return await start(**{**sections, "server": {"workers": 2, **sections.get("server", {})}})

    return started


@pytest.fixture
async def two(start_two: StartProxy) -> Proxy:
    return await start_two()
