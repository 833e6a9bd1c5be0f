"""The proxy over real sockets: an S3 for the session, and a bucket, a relay and a proxy for each test."""

import asyncio
import functools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.loaders import JSONFileLoader
from proxy_under_test import S3, Proxy, StartProxy, WallClock, settings_of
from relay import Relay
from ulid import ULID

from bucketfront.app import App
from bucketfront.s3.embedded import moto_server
from bucketfront.server.http1.event_loop import new_event_loop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """The loop that `bucketfront serve` runs in; the fast path's own tests also run in asyncio's (I26)."""
    factories: dict[str, LoopFactory] = {"serve": new_event_loop}
    if item.path.name.startswith("test_fast_path"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """An in-memory S3 of its own process; it ends when its stdin does."""
    command = [sys.executable, "-P", moto_server.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())
        child.kill()


@pytest.fixture(scope="session", autouse=True)
def _service_models_read_once() -> Iterator[None]:
    """Each new client makes botocore parse a megabyte of JSON; one copy serves all of them here."""
    with pytest.MonkeyPatch.context() as patched:
        load = functools.cache(JSONFileLoader().load_file)
        patched.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


@pytest.fixture(scope="session")
def s3_client(s3_port: int) -> Iterator[Any]:
    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
    )
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    )
    yield client
    client.close()


@pytest.fixture
def s3(s3_client: Any) -> S3:
    bucket = f"b-{ULID()}".lower()
    s3_client.create_bucket(Bucket=bucket)
    return S3(s3_client, bucket)


@pytest.fixture
async def relay(s3_port: int) -> AsyncIterator[Relay]:
    running = Relay(s3_port)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def start(tmp_path: Path, s3: S3, relay: Relay, clock: WallClock) -> AsyncIterator[StartProxy]:
    """Start a proxy with some settings changed; all of them end with the test."""
    async with AsyncExitStack() as stack:

        async def started(**sections: Any) -> Proxy:
            settings = settings_of(tmp_path, relay.url, s3.bucket, **sections)
            runtime = App(settings, clock=clock, elapsed=clock.passed)
            return Proxy(await stack.enter_async_context(runtime), relay, clock)

        yield started


@pytest.fixture
async def proxy(start: StartProxy) -> Proxy:
    return await start()
