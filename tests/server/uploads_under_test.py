"""A proxy in front of a chaos origin, for uploads in small parts, so that few bytes cause many events."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos_origin import ChaosOrigin
from proxy_under_test import BLOCK, WallClock, descriptors_open, pattern, settings_of, until
from wire import Response, chunked, fetch

from bucketfront.app import App
from bucketfront.s3.upload import multipart, parts

PART = 2 * BLOCK
BODY, OLD = pattern(5 * PART + 7, 2), pattern(3 * BLOCK, 1)
PERCENTS = range(101)


@dataclass
class Setup:
    """A proxy in front of a chaos origin. `before` and `tasks` are the descriptors and tasks at rest."""

    app: App
    origin: ChaosOrigin
    before: int = 0
    tasks: int = 0

    async def request(
        self, method: str, body: bytes | None = None, target: str = "/x", headers: Mapping[str, str] | None = None
    ) -> Response:
        return await fetch(self.app.address, target, method=method, headers=headers, body=body)

    async def put(self, body: bytes = BODY, *, is_chunked: bool = False, target: str = "/x") -> Response:
        headers, sent = framed(body, is_chunked=is_chunked)
        return await self.request("PUT", sent, target, headers)

    @property
    def files(self) -> list[Path]:
        return list((self.app.settings.cache.dir / "objects").glob("*/*"))

    async def at_rest(self) -> None:
        """Check that no upload, connection, task or extra file is left, and that only entries are charged (I12,
        I17).
        """
        cache, assembly, origin = self.app.cache, self.app.cache_assembly, self.app.origin
        await until(lambda: not self.app.connection_limit.open)
        await until(lambda: origin.free_slots == self.app.settings.origin.max_connections)
        await until(lambda: not origin.background and not assembly.lookups.tasks)
        await until(lambda: not assembly.disposal.tasks and not assembly.fetch_context.tasks)
        entries = assembly.entries._hot
        await until(lambda: len(self.files) == cache.statistics().entries)
        await until(lambda: cache.statistics().bytes_used == sum(entry.bytes for entry in entries.values()))
        await until(lambda: not self.origin.uploads.running and not self.app.upload_journal._uploads)
        assert [entry for entry in entries.values() if entry.pins] == []
        assert sum(file.stat().st_blocks * 512 for file in self.files) <= cache.statistics().bytes_used
        opened = sum(entry.file is not None for entry in entries.values())
        # The pool keeps some connections.
        await until(lambda: descriptors_open() - opened <= self.before + 10)
        await until(lambda: len(asyncio.all_tasks()) <= self.tasks + 20)

    async def is_whole(self, *versions: bytes | None, target: str = "/x") -> None:
        """Return whether the object is one of `versions`, and a read through the proxy has what S3 has (I5, I8, I9)."""
        stored = self.origin.stored(target[1:])
        assert stored in versions
        response = await self.request("GET", target=target)
        assert (response.status, response.body) == (200, stored) if stored is not None else response.status == 404


@asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, max_size: int = 64 << 20, part_size: int = PART
) -> AsyncIterator[Setup]:
    monkeypatch.setattr(parts, "PART_SIZE", part_size)
    monkeypatch.setattr(parts, "MAX_BUFFER_BYTES", part_size)
    monkeypatch.setattr(parts, "MAX_GATHER_BYTES", BLOCK - 1000)
    monkeypatch.setattr(multipart, "RETRY_PAUSE_S", 0.0)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(ChaosOrigin())
        origin.store_bytes("x", OLD, {})
        clock = WallClock()
        settings = settings_of(
            folder, origin.endpoint_url, origin.bucket, origin={"max_connections": 8}, cache={"max_size": max_size}
        )
        app = await stack.enter_async_context(App(settings, clock=clock, elapsed=clock.passed))
        yield Setup(app, origin, descriptors_open(), len(asyncio.all_tasks()))


def framed(body: bytes, *, is_chunked: bool) -> tuple[dict[str, str], bytes]:
    """Return the header that frames the body, and the bytes that follow the head."""
    if not is_chunked:
        return {"Content-Length": str(len(body))}, body
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    return {"Transfer-Encoding": "chunked"}, chunked(*pieces)
