"""A handler that is cancelled at any of its `await`s changes no other response, and leaks nothing (I12)."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from interruption import How, Interruption
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, descriptors_open, pattern, until
from wire import Response, connected, message

from bucketfront.admin.purges import Purges
from bucketfront.server.application import Application

pytestmark = pytest.mark.long

MARK = "X-Interrupted"
BODY, NEW, OTHER = pattern(5 * BLOCK + 7, 1), pattern(3 * BLOCK, 2), pattern(2 * BLOCK + 1, 3)
MOST = 150  # suspensions that a handler may have here


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and the state in which it finds the object `key`. `others` request the same object meanwhile."""

    method: str
    state: str = "cold"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    is_chunked: bool = False


CASES = {
    "miss": Case("GET"),
    "hit while it is filled": Case("GET", "filling"),
    "range": Case("GET", headers=(("Range", f"bytes={BLOCK + 5}-{4 * BLOCK}"),)),
    "suffix": Case("GET", headers=(("Range", "bytes=-100"),)),
    "several ranges": Case("GET", headers=(("Range", f"bytes=0-99,{2 * BLOCK}-{3 * BLOCK}"),)),
    "several ranges of what is here": Case("GET", "warm", (("Range", f"bytes=0-99,{2 * BLOCK}-{3 * BLOCK}"),)),
    "hit": Case("GET", "warm"),
    "file not open": Case("GET", "cool"),
    "stale": Case("GET", "stale"),
    "changed": Case("GET", "changed"),
    "past the cache": Case("GET", "no-store"),
    "absent": Case("GET", "absent"),
    "head": Case("HEAD"),
    "put": Case("PUT", "warm", body=NEW),
    "put without a length": Case("PUT", "warm", body=NEW, is_chunked=True),
    "post": Case("POST", "absent", body=NEW),
    "delete": Case("DELETE", "warm"),
    "purge": Case("PURGE", "warm"),
}
HOWS: tuple[How, ...] = ("asleep", "woken")


class Interrupter:
    """Interrupts the request that carries the mark."""

    def __init__(self) -> None:
        self.interruption = Interruption(0, "asleep")
        self.ended = asyncio.Event()

    async def handled(
        self, request: web.BaseRequest, work: Coroutine[Any, Any, web.StreamResponse]
    ) -> web.StreamResponse:
        if MARK not in request.headers:
            return await work
        try:
            response: web.StreamResponse = await self.interruption.around(work)
            return response
        finally:
            self.ended.set()


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Interrupter:
    made = Interrupter()
    respond, purge = Application.__call__, Purges._purge

    async def answered(self: Application, request: web.BaseRequest) -> web.StreamResponse:
        return await made.handled(request, respond(self, request))

    async def purged(self: Purges, request: web.Request) -> web.StreamResponse:
        return await made.handled(request, purge(self, request))

    monkeypatch.setattr(Application, "__call__", answered)
    monkeypatch.setattr(Purges, "_purge", purged)
    return made


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", CASES)
async def test_cancelled_at_every_await(
    start: StartProxy, s3: S3, interrupter: Interrupter, name: str, how: How
) -> None:
    """A request is cancelled at its k-th suspension, for each k.

    Requests that share the object get the right bytes, and the next request succeeds. Tasks, descriptors, files, pins
    and connections to the origin return to their baseline.
    """
    case = CASES[name]
    proxy = await start(server={"fast_path": False}, freshness={"stale_while_revalidate": 0})
    s3.put("other", OTHER)
    assert (await proxy.get("/other")).body == OTHER
    before = await baseline(proxy)
    for at in range(1, MOST):
        interrupter.interruption = Interruption(at, how)
        interrupter.ended.clear()
        await attempt(proxy, s3, case, f"{name.replace(' ', '-')}-{at}", interrupter)
        await at_rest(proxy, before)
        if not interrupter.interruption.is_done:
            assert at > 1, "a handler that never waits cannot be interrupted"
            return
    raise AssertionError(f"more than {MOST} suspensions")


async def attempt(proxy: Proxy, s3: S3, case: Case, key: str, interrupter: Interrupter) -> None:
    right = await prepared(proxy, s3, case, key)
    sharing = [asyncio.create_task(proxy.get(f"/{key}")) for _ in range(1 + (case.state == "filling"))]
    if case.state == "filling":
        await until(lambda: proxy.figures["flights_running"])
    address = proxy.address
    target = f"/upload/{key}" if case.method == "POST" else f"/{key}"
    request = message(case.method, target, {MARK: "yes", **dict(case.headers)}, case.body)
    if case.is_chunked:
        head = message(case.method, f"/{key}", {MARK: "yes", "Transfer-Encoding": "chunked"})
        request = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(case.body or b""), case.body)
    if case.method == "PURGE":
        address = proxy.app.admin_address
        request = message(
            "POST",
            "/api/v1/purge",
            {MARK: "yes", "Content-Type": "application/json"},
            b'{"paths": ["/%s"]}' % key.encode(),
        )
    async with connected(address) as client:
        await client.send(request)
        await interrupter.ended.wait()
        await client.rest() if interrupter.interruption.is_done else await client.response(case.method)
    for response in await asyncio.gather(*sharing):
        assert is_right(response, right)
        assert response.is_complete or len(right) > 1  # a version that goes meanwhile may end its response early
    async with proxy.connection() as client:
        assert (await client.request("GET", "/other")).body == OTHER
        response = await client.request("GET", f"/{key}")
        assert is_right(response, right)
        assert response.is_complete


def is_right(response: Response, right: tuple[bytes, ...]) -> bool:
    if response.status == 404:
        return b"" in right
    whole = [body for body in right if body.startswith(response.body)]
    return response.status == 200 and (response.body in right if response.is_complete else bool(whole))


async def prepared(proxy: Proxy, s3: S3, case: Case, key: str) -> tuple[bytes, ...]:
    """Bring the object into the state of the case.

    Returns the bodies that are right from then on, b"" for no object.
    """
    if case.state == "absent":
        return (b"", NEW) if case.body else (b"",)
    s3.put(key, BODY, **({"CacheControl": "no-store"} if case.state == "no-store" else {}))
    if case.state in ("warm", "cool", "stale", "changed"):
        assert (await proxy.get(f"/{key}")).body == BODY
        await proxy.settled()
    if case.state == "cool":
        await proxy.app.cache_assembly.flusher.flush()
        entries = proxy.app.cache_assembly.entries
        entries.hot_limit, limit = 0, entries.hot_limit
        for entry in entries.cool():
            assert entry.file is not None
            await proxy.app.cache_assembly.store.close_file(entry.file)
            entry.file = None
        entries.hot_limit = limit
    if case.state in ("stale", "changed"):
        proxy.clock.advance(1000)
    if case.state == "changed":
        s3.put(key, NEW)
        return (NEW,)
    match case.method:
        case "PUT":
            return BODY, NEW
        case "DELETE":
            return BODY, b""
    return (BODY,)


@dataclass(frozen=True, slots=True)
class Baseline:
    tasks: int
    descriptors: int  # beside those of the cache's files


async def baseline(proxy: Proxy) -> Baseline:
    await proxy.settled()
    await until(lambda: not proxy.relay.running and not proxy.app.connection_limit.open)
    return Baseline(len(asyncio.all_tasks()), descriptors_open() - hot_files(proxy))


def hot_files(proxy: Proxy) -> int:
    return sum(entry.file is not None for entry in proxy.app.cache_assembly.entries.hot_entries())


async def at_rest(proxy: Proxy, before: Baseline) -> None:
    assembly, origin = proxy.app.cache_assembly, proxy.app.origin
    await proxy.settled()
    await until(lambda: not proxy.relay.running)  # closed, where they were not read to the end
    await until(lambda: not proxy.app.connection_limit.open)
    await until(lambda: len(asyncio.all_tasks()) <= before.tasks)
    await until(lambda: descriptors_open() - hot_files(proxy) <= before.descriptors)
    assert origin.free_slots == proxy.app.settings.origin.max_connections
    sessions = origin.client._endpoint.http_session._sessions.values()
    assert [session.connector for session in sessions if session.connector._acquired] == []
    assert [entry for entry in assembly.entries.hot_entries() if entry.pins] == []
    assert not assembly.lookups.tasks
    await assembly.flusher.flush()
    assert len(proxy.files) == proxy.figures["entries"]
