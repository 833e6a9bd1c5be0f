"""A new process takes the place of the running one: sockets, cache, and what is under way.

Both are in this event loop. `test_takeover_processes.py` has real processes.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, WallClock, pattern, settings_of, until
from relay import Relay, Seen
from s3_clients import RawClient, endpoint
from wire import connected, fetch, message

from bucketfront.app import App
from bucketfront.descriptor_channel import DescriptorChannel, connect
from bucketfront.errors import CannotListen, ProxyError, StoreError, UnusableSetting
from bucketfront.fair_share import Resource
from bucketfront.takeover import incumbent, messages
from bucketfront.takeover.messages import SOCKET_NAME, Step
from bucketfront.takeover.messages import message as to_other
from bucketfront.takeover.successor import TakeOverFailed

TakeOver = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def take_over(tmp_path: Path, s3: S3, relay: Relay, clock: WallClock) -> AsyncIterator[TakeOver]:
    """Start a proxy that takes over from the one before, if there is one. They stop with the test."""
    async with AsyncExitStack() as stack:

        async def started(**sections: Any) -> Proxy:
            settings = settings_of(tmp_path, relay.url, s3.bucket, **sections)
            app = App(settings, clock=clock, elapsed=clock.passed, takes_over=True)
            return Proxy(await stack.enter_async_context(app), relay, clock)

        yield started


def names_in(proxy: Proxy) -> set[str]:
    return {path.name for path in proxy.app.settings.cache.dir.iterdir()}


async def test_sockets_and_cache_pass(take_over: TakeOver, s3: S3) -> None:
    """The new process serves the same addresses, and what was cached is a hit. The old one ends."""
    body = pattern(3 * BLOCK + 5)
    s3.put("x", body)
    old = await take_over()
    await old.get("/x")
    await old.settled()
    old.relay.reset()
    new = await take_over()
    assert (new.app.address, new.app.admin_address) == (old.app.address, old.app.admin_address)
    assert old.app.incumbent.has_handed_over.is_set()
    await old.stop()
    response = await new.get("/x")
    assert (response.body, response.cache_status) == (body, "hit; ttl=300")
    assert new.relay.seen == []
    assert (await new.admin("GET", "/readyz")).status == 200


async def test_ten_in_a_row(take_over: TakeOver, s3: S3) -> None:
    """Take-overs follow each other, and leave nothing behind."""
    s3.put("x", b"data")
    first = last = await take_over()
    await first.get("/x")
    for _ in range(10):
        before, last = last, await take_over()
        await before.stop()
        assert (await last.get("/x")).cache_status.startswith("hit")
    assert first.app.address == last.app.address
    names = names_in(last)
    await last.stop()
    assert names - names_in(last) == {SOCKET_NAME, "index.db-wal", "index.db-shm"}
    with pytest.raises(ConnectionError):
        await last.get("/x")


async def test_a_download_goes_on(take_over: TakeOver, s3: S3) -> None:
    """A response that began before goes on from its open file, even if the new process removes the object (I1)."""
    body = pattern(200 * BLOCK)
    s3.put("x", body)
    old = await take_over()
    await old.get("/x")
    await old.settled()
    async with old.connection() as client:
        await client.send(message("GET", "/x"))
        await client.head()
        new = await take_over()
        await new.app.cache.purge([], [], soft=False)
        assert (await new.request("DELETE", "/x")).status == 204
        old.relay.reset()
        assert await client.reader.readexactly(len(body)) == body
        assert [seen.method for seen in old.relay.seen] == []


async def test_a_cold_download_goes_on(take_over: TakeOver, s3: S3) -> None:
    """A response that lacks bytes gets the rest from S3, and each byte is right (I1, I3)."""
    body = pattern(64 * BLOCK + 9)
    s3.put("x", body)
    old = await take_over()
    goes_on, reached = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.sent >= BLOCK:
            reached.set()
            await goes_on.wait()

    old.relay.on_body = hold
    reading = asyncio.create_task(old.get("/x"))
    await reached.wait()
    new = await take_over()
    goes_on.set()
    response = await reading
    assert (response.is_complete, response.body == body) == (True, True)
    assert (await new.get("/x")).body == body


async def test_requests_that_come_late(take_over: TakeOver, s3: S3) -> None:
    """A request whose head arrives after the take-over gets the object of S3, and its connection ends (I5)."""
    s3.put("x", b"old")
    old = await take_over()
    await old.get("/x")
    head = message("GET", "/x")
    async with old.connection() as late:
        await late.send(head[:9])
        await until(lambda: old.app.connection_limit.open == 1)
        new = await take_over()
        assert (await new.request("PUT", "/x", body=b"new")).status in (200, 201)
        await late.send(head[9:])
        response = await late.response()
        assert (response.body, response.headers["Connection"]) == (b"new", "close")
        assert response.cache_status.startswith("fwd=miss")
        assert (await late.rest()) == b""


async def test_a_write_of_the_old_process_is_read_from_the_new_one(take_over: TakeOver, s3: S3) -> None:
    """An upload that runs across a take-over ends, and later reads of it find the new version (I5)."""
    s3.put("x", b"old")
    old = await take_over()
    body = pattern(4 * BLOCK)
    head = message("PUT", "/x", {"Content-Length": str(len(body))})
    async with old.connection() as writer:
        await writer.send(head + body[:BLOCK])
        await until(lambda: old.app.connection_limit.open == 1)
        new = await take_over()
        assert (await new.get("/x")).body == b"old"
        assert (await new.get("/x")).cache_status.startswith("hit")
        await writer.send(body[BLOCK:])
        assert (await writer.response("PUT")).status in (200, 201)
    assert (await new.get("/x")).body == body
    assert s3.unfinished == 0


async def test_a_resumable_upload_goes_on(take_over: TakeOver, s3: S3) -> None:
    """The bytes of a resumable upload that came before are those of the new process, also of a request that ran."""
    body = pattern(3 * BLOCK)
    tus = {"Tus-Resumable": "1.0.0"}
    old = await take_over()
    created = await old.request("POST", "/upload", {**tus, "Upload-Length": str(len(body))}, b"")
    location = created.headers["Location"]
    fields = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    async with old.connection() as writer:
        await writer.send(message("PATCH", location, {**fields, "Content-Length": str(len(body))}) + body[:BLOCK])
        await until(lambda: old.app.upload_manager.unfinished[1] or old.app.connection_limit.open)
        new = await take_over()
        interrupted = await writer.response("PATCH")
        assert interrupted.status == 409
    offset = int((await new.request("HEAD", location, tus)).headers["Upload-Offset"])
    assert offset <= BLOCK
    rest = {**fields, "Upload-Offset": str(offset)}
    ended = await new.request("PATCH", location, rest, body[offset:])
    assert (ended.status, ended.headers["Upload-Offset"]) == (204, str(len(body)))
    assert [s3.get(key) for key in s3.keys()]  # noqa: SIM118 - no dict == [body]


async def test_running_multipart_uploads_are_not_aborted(take_over: TakeOver, s3: S3) -> None:
    """The new process aborts no multipart upload of a request that the old one still serves (I8)."""
    body = pattern(20 << 20)
    old = await take_over()
    async with old.connection() as writer:
        await writer.send(message("PUT", "/x", {"Content-Length": str(len(body))}) + body[: 17 << 20])
        await until(lambda: s3.unfinished)
        new = await take_over()
        await until(lambda: not new.app.upload_journal.abandoned)
        await writer.send(body[17 << 20 :])
        assert (await writer.response("PUT")).status in (200, 201)
    assert s3.get("x") == body
    await old.stop()
    assert not [name for name in names_in(new) if name.startswith("uploads-")]


# --- failures --------------------------------------------------------------------------------------------------


class Other:
    """A process that takes over step by step, and ends at any."""

    def __init__(self, proxy: Proxy) -> None:
        folder = os.open(proxy.app.settings.cache.dir, os.O_DIRECTORY)
        channel = connect(folder, SOCKET_NAME)
        os.close(folder)
        assert channel is not None
        self.channel: DescriptorChannel = channel

    async def get(self) -> dict[str, Any]:
        reply = await self.channel.receive()
        reply.close()
        return dict(reply.fields)

    async def hello(self, version: int = messages.VERSION) -> list[dict[str, Any]]:
        await self.channel.send(to_other(Step.HELLO, version=version))
        found = [await self.get()]
        while found[-1].get("name") is not None:
            found.append(await self.get())
        return found

    async def release(self) -> dict[str, Any]:
        await self.channel.send(to_other(Step.RELEASE))
        return await self.get()


@pytest.mark.parametrize("steps", range(4))
async def test_the_new_process_dies(take_over: TakeOver, s3: S3, steps: int) -> None:
    """Wherever the conversation breaks, the running process goes on as before, with its cache and its connections."""
    s3.put("x", b"data")
    proxy = await take_over()
    await proxy.get("/x")
    before = names_in(proxy)
    other = Other(proxy)
    if steps >= 1:
        await other.hello()
    if steps >= 2:
        asking = asyncio.create_task(other.release())
        if steps == 2:
            await until(lambda: proxy.app.connection_limit.is_draining)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            assert (await asking)["step"] == "released"
            waiting = asyncio.create_task(proxy.get("/x"))
    other.channel.close()
    await until(lambda: proxy.app.incumbent._at_rest.is_set() and not proxy.app.incumbent._tasks)
    if steps == 3:
        assert (await waiting).body == b"data"
    async with proxy.connection() as client:
        for _ in range(2):
            response = await client.request("GET", "/x")
            assert (response.body, response.cache_status[:3]) == (b"data", "hit")
            assert "Connection" not in response.headers
    assert (await proxy.request("PUT", "/x", body=b"new")).status in (200, 201)
    assert (await proxy.get("/x")).body == b"new"
    assert (await proxy.admin("GET", "/readyz")).status == 200
    assert names_in(proxy) == before


async def test_another_version(take_over: TakeOver, s3: S3) -> None:
    """A process with another version of the conversation is refused with both numbers, and nothing changes."""
    s3.put("x", b"data")
    proxy = await take_over()
    other = Other(proxy)
    (refused,) = await other.hello(version=99)
    assert refused["step"] == "refused"
    assert "99" in refused["reason"]
    other.channel.close()
    assert (await proxy.get("/x")).body == b"data"


async def test_one_at_a_time(take_over: TakeOver) -> None:
    """While one process takes over, another one is refused."""
    proxy = await take_over()
    first = Other(proxy)
    await first.hello()
    with pytest.raises(TakeOverFailed, match="another process is taking over"):
        await take_over()
    first.channel.close()
    await until(proxy.app.incumbent._at_rest.is_set)
    await take_over()


async def test_a_stranger(take_over: TakeOver, s3: S3) -> None:
    """What is no message of a take-over changes nothing."""
    s3.put("x", b"data")
    proxy = await take_over()
    for fields in ({}, {"step": "x"}, {"step": "serving"}, {"step": "invalidate", "keys": 1}):
        other = Other(proxy)
        await other.channel.send(fields)
        with pytest.raises(ProxyError):
            await other.get()
        other.channel.close()
    assert (await proxy.get("/x")).body == b"data"


async def test_a_process_without_an_end(
    take_over: TakeOver, s3: S3, monkeypatch: pytest.MonkeyPatch, clock: WallClock
) -> None:
    """A new process that does not serve in time is refused later, and the running one serves meanwhile."""
    monkeypatch.setattr(incumbent, "SERVE_TIMEOUT_S", 0.01)
    s3.put("x", b"data")
    proxy = await take_over()
    other = Other(proxy)
    await other.hello()
    assert (await other.release())["step"] == "released"
    assert (await other.get())["step"] == "withdrawn"
    other.channel.close()
    assert (await proxy.get("/x")).body == b"data"


async def test_the_lock_stays_taken(
    take_over: TakeOver, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While a new process that failed holds the lock, the running one serves without its cache, and then with it."""
    monkeypatch.setattr(incumbent, "SERVE_UNCACHED_AFTER_S", 0.0)
    s3.put("x", b"data")
    proxy = await take_over()
    await proxy.get("/x")
    other = Other(proxy)
    await other.hello()
    assert (await other.release())["step"] == "released"
    with (proxy.app.settings.cache.dir / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other.channel.close()
        assert (await proxy.get("/x")).cache_status.startswith("fwd=miss")
        assert (await proxy.get("/x")).cache_status.startswith("fwd=miss")
    await until(lambda: proxy.app.cache_assembly.store.ownership.is_held)
    assert (await proxy.get("/x")).cache_status.startswith("hit")


@pytest.mark.parametrize("kind", ["port", "certificate"])
async def test_a_new_process_that_cannot_start(take_over: TakeOver, s3: S3, tmp_path: Path, kind: str) -> None:
    """What the new process cannot use is found before the running one stops anything."""
    s3.put("x", b"data")
    proxy = await take_over()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        none = str(tmp_path / "none.pem")
        sections: dict[str, Any] = {
            "port": {"listeners": [{"host": "127.0.0.1", "port": port}]},
            "certificate": {"listeners": [{"port": 0, "host": "::1", "tls": {"certificate": none, "key": none}}]},
        }
        with pytest.raises(CannotListen if kind == "port" else UnusableSetting):
            await take_over(server=sections[kind])
    assert not proxy.app.connection_limit.is_draining
    assert (await proxy.get("/x")).body == b"data"


async def test_a_new_process_that_fails_late(
    take_over: TakeOver, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process that fails after it has the cache gives all back, also the file of a Unix socket."""
    s3.put("x", b"data")
    path = tmp_path / "clients.sock"
    unix = {"listeners": [{"unix": str(path)}]}
    proxy = await take_over(server=unix)

    def fail(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(App, "_start_watching_certificates", fail)
        with pytest.raises(OSError, match="no space"):
            await take_over(server=unix)
    await until(proxy.app.incumbent._at_rest.is_set)
    for address in (proxy.app.address, f"unix:{path}"):
        assert (await fetch(address, "/x")).body == b"data"
    new = await take_over(server=unix)
    await proxy.stop()
    assert (await fetch(f"unix:{path}", "/x")).body == b"data"
    await new.stop()
    assert not path.exists()


async def test_a_cache_that_does_not_come_to_rest(take_over: TakeOver, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the running process cannot bring its cache to rest, the new one fails, and the running one goes on."""
    s3.put("x", b"data")
    proxy = await take_over()
    await proxy.get("/x")

    async def fail(_: object) -> None:
        raise StoreError("the disk does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(proxy.app.cache_assembly.store, "settle", lambda: fail(0))
        with pytest.raises(TakeOverFailed, match="the disk does not answer"):
            await take_over()
    await until(proxy.app.incumbent._at_rest.is_set)
    assert (await proxy.get("/x")).body == b"data"
    await take_over()


async def test_listeners_that_differ(take_over: TakeOver, s3: S3, tmp_path: Path) -> None:
    """A listener that only the new configuration has is bound, and one that it lacks ends with the old process."""
    s3.put("x", b"data")
    paths = [tmp_path / "one.sock", tmp_path / "two.sock"]
    old = await take_over(server={"listeners": [{"unix": str(paths[0])}]})
    new = await take_over(server={"listeners": [{"unix": str(paths[1])}]})
    await old.stop()
    assert (await fetch(f"unix:{paths[1]}", "/x")).body == b"data"
    assert not paths[0].exists()
    assert new.app.address == old.app.address


async def test_the_s3_endpoint_passes(take_over: TakeOver, s3: S3, clock: WallClock) -> None:
    """Clients of S3 find the same address, and a PutObject under way ends and is what both listeners serve (I5)."""
    clock.jump(-3600)  # to the time of the signatures
    s3.put("x", b"old")
    old = await take_over(**endpoint())
    assert (await old.get("/x")).body == b"old"
    client, body = RawClient(old, clock), b"n" * 1000
    fields = client.signer.fields("PUT", f"{client.address}/{s3.bucket}/x", {}, body)
    async with connected(client.address) as connection:
        await connection.send(message("PUT", f"/{s3.bucket}/x", fields, body)[:-500])
        await until(lambda: old.app.fair_shares.shares[Resource.UPLOADS].used == 1)
        new = await take_over(**endpoint())
        assert RawClient(new, clock).address == client.address
        assert (await new.get("/x")).body == b"old"
        await connection.send(body[-500:])
        assert (await connection.response("PUT")).status == 200
    await old.stop()
    assert (await new.get("/x")).body == s3.get("x") == body
    assert (await RawClient(new, clock).send("GET", f"/{s3.bucket}/x")).body == body
