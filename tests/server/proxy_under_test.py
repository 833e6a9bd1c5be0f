"""A whole proxy in this event loop, with its origin behind a relay, and a wall clock that the test sets."""

import asyncio
import json
import os
import shutil
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from relay import Relay
from stopwatch import HANG_S
from wire import Connection, Response, connected, fetch

from bucketfront.app import App
from bucketfront.config.settings import Settings

KIB = 1 << 10
WORKERS = int(os.environ.get("TEST_WORKERS", "1"))  # of the proxies: `server.workers`
BLOCK = 64 * KIB
PART = 2 * BLOCK
PATTERN_STEP = 2654435761  # odd and near 2**32 divided by the golden ratio: neighbours have no bytes in common


class WallClock:
    """A wall clock that begins an hour ahead, so that Last-Modified counts as a strong validator for objects stored
    now. `advance` lets time pass. `jump` sets this clock alone, as an operator would, and does not change `passed`.
    """

    def __init__(self) -> None:
        self.now = time.time() + 3600
        self._passed = 1000.0

    def __call__(self) -> float:
        return self.now

    def passed(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        self._passed += seconds

    def jump(self, seconds: float) -> None:
        self.now += seconds


class S3:
    """The origin without the relay: one bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client = client
        self.bucket = bucket

    def put(self, key: str, body: bytes, **parameters: Any) -> str:
        """Store an object. Returns its ETag."""
        return str(self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **parameters)["ETag"])

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def head(self, key: str) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.bucket, Key=key))

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in found.get("Contents", ())]

    @property
    def unfinished(self) -> int:
        """Return the number of multipart uploads that were begun, and neither completed nor aborted."""
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ()))


class Proxy:
    def __init__(self, app: App, relay: Relay, clock: WallClock) -> None:
        self.app = app
        self.relay = relay
        self.clock = clock

    @property
    def address(self) -> str:
        return self.app.address

    @property
    def figures(self) -> dict[str, Any]:
        """Return `Cache.statistics()` by name."""
        found = self.app.cache.statistics()
        return {name: getattr(found, name) for name in found.__slots__}

    async def get(self, target: str, **headers: str) -> Response:
        """Send a GET. `headers` have `_` in place of `-`."""
        return await self.request("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})

    async def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        await self.app.catch_up()  # front ends learn what the clock of the test shows
        response = await fetch(self.address, target, method=method, headers=headers, body=body)
        await self.app.catch_up()
        return response

    async def admin(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        kind = {} if body is None else {"Content-Type": "application/json"}
        return await fetch(
            self.app.admin_address, target, method=method, headers={**kind, **(headers or {})}, body=body
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with connected(self.address) as connection:
            yield connection

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the access log. A line is written once its request has ended."""
        assert self.app.telemetry.drain(timeout_s=10)
        lines = Path(self.app.settings.access_log.path).read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def files(self) -> list[Path]:
        """Return the files of objects in the cache folder."""
        return sorted((self.app.settings.cache.dir / "objects").glob("*/*"))

    async def step(self) -> None:
        """Run one round of the upkeep."""
        await self.app.cache_assembly.housekeeper.step()

    async def stop(self) -> None:
        """Stop the proxy cleanly. The fixture's own stop then has nothing left to do."""
        await self.app.__aexit__(None, None, None)

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the loop run until `holds()` is true of figures that front ends have part of."""
        async with asyncio.timeout(HANG_S):
            while not holds():
                await self.app.catch_up()
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """Wait until no part fetch runs, and all new bytes are compared with S3's checksums."""
        await until(lambda: not self.app.cache_assembly.fetch_context.tasks)


StartProxy = Callable[..., Awaitable[Proxy]]


def settings_of(folder: Path, endpoint: str, bucket: str, **sections: Any) -> Settings:
    """Return settings with small blocks and free ports.

    A dict of `sections` adds keys to its section, any other value replaces it.
    """
    tree: dict[str, Any] = {
        "server": {"port": 0, "workers": WORKERS},
        "admin": {"port": 0},
        "origin": {
            "endpoint_url": endpoint,
            "addressing_style": "path",
            "credentials": {"access_key_id": "any", "secret_access_key": "any"},
            "connect_timeout": "10s",
            "read_timeout": "30s",
            "part_size": PART,
        },
        "mounts": [{"path": "/", "bucket": bucket, "methods": ["GET", "HEAD", "PUT", "POST", "DELETE"]}],
        "uploads": {},
        "cache": {"dir": str(folder / "cache"), "block_size": BLOCK, "max_size": "64MiB", "min_free": 0},
        "access_log": {"path": str(folder / "access.log")},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return Settings.model_validate(tree)


def copy_cache(proxy: Proxy, folder: Path) -> None:
    """Copy the cache folder of a running proxy, as a kill would leave it, apart from sockets, which no copy has."""
    shutil.copytree(proxy.app.settings.cache.dir, folder, ignore=shutil.ignore_patterns("*.sock"))


async def until(holds: Callable[[], object], within: float = HANG_S) -> None:
    """Let the loop run until `holds()` is true. For conditions that have no event to wait for.

    Raises AssertionError if that takes too long, because then what the test says does not hold.
    """
    try:
        async with asyncio.timeout(within):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"the condition has not come to hold within {within:g} s") from None


def descriptors_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def pattern(size: int, seed: int = 1) -> bytes:
    """Return `size` bytes in which each block differs from every other."""
    count = -(-size // 8)
    return array("Q", range(seed, seed + count * PATTERN_STEP, PATTERN_STEP)).tobytes()[:size]
