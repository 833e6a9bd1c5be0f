"""A proxy with an empty cache fetches what a peer holds before it counts as ready (docs/fleet.md#a-new-node)."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Relay, Seen
from rows import each_row

from bucketfront.checks.peer import check_peer
from bucketfront.checks.result import CheckVerdict
from bucketfront.config.warm_start_settings import WarmStartSettings

BODIES = {f"o{number}": pattern(BLOCK, number) for number in range(3)}
LARGE = pattern(6 * BLOCK, 9)

StartBeside = Callable[..., Any]


@pytest.fixture
def start_beside(start: StartProxy, tmp_path: Path) -> StartBeside:
    """Start a proxy with a folder of its own, which starts with what a peer holds."""

    async def started(peer: str, **warm_start: Any) -> Proxy:
        folder = tmp_path / "beside"
        folder.mkdir(exist_ok=True)
        return await start(
            warm_start={"peer": peer, **warm_start},
            cache={"dir": str(folder / "cache")},
            access_log={"path": str(folder / "access.log")},
        )

    return started


async def state_of(proxy: Proxy) -> tuple[int, str]:
    response = await proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    return response.status, json.loads(response.body)["status"]


async def is_ready(proxy: Proxy) -> None:
    """Wait until the warm start has ended."""
    async with asyncio.timeout(60):
        while await state_of(proxy) != (200, "ready"):  # noqa: ASYNC110 - over HTTP there is no event
            await asyncio.sleep(0.01)


async def test_what_a_peer_holds_is_there_before_it_is_ready(
    proxy: Proxy, start_beside: StartBeside, s3: S3, relay: Relay
) -> None:
    """While the cache is filled, /readyz has 503 and clients get responses; then each object of the peer is a hit."""
    for name, body in BODIES.items():
        s3.put(name, body)
        await proxy.get(f"/{name}")
    s3.put("other", b"other")
    go_on = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if not seen.target.endswith("/other"):
            await go_on.wait()

    relay.on_request = hold
    node = await start_beside(proxy.app.admin_address)
    assert await state_of(node) == (503, "warming")
    assert (await node.get("/other")).body == b"other"
    go_on.set()
    await is_ready(node)
    before = len(relay.seen)
    for name, body in BODIES.items():
        response = await node.get(f"/{name}")
        assert response.body == body
        assert response.cache_status.startswith("hit")
    assert len(relay.seen) == before


async def test_a_part_of_an_object(proxy: Proxy, start_beside: StartBeside, s3: S3, relay: Relay) -> None:
    """Of an object that the peer holds in part, the node fetches that part."""
    s3.put("large", LARGE)
    await proxy.get("/large", Range=f"bytes=0-{BLOCK - 1}")
    await proxy.settled()
    (held,) = relay.seen
    node = await start_beside(proxy.app.admin_address)
    await is_ready(node)
    assert sum(seen.sent for seen in relay.seen[1:]) == held.sent < len(LARGE)
    before = len(relay.seen)
    assert (await node.get("/large", Range=f"bytes=0-{BLOCK - 1}")).body == LARGE[:BLOCK]
    assert len(relay.seen) == before


async def test_a_cache_with_objects_needs_no_peer(proxy: Proxy, start_beside: StartBeside, s3: S3) -> None:
    """A start with objects in the cache asks no peer, and is ready at once."""
    s3.put("o0", BODIES["o0"])
    await proxy.get("/o0")
    node = await start_beside(proxy.app.admin_address)
    await is_ready(node)
    await node.stop()
    again = await start_beside("http://127.0.0.1:9")  # the discard port: a request would fail and be in the log
    assert await state_of(again) == (200, "ready")


@asynccontextmanager
async def peer_that_answers(answer: Callable[[web.Request], web.StreamResponse]) -> AsyncIterator[str]:
    """Run an admin port that sends this to each request. Return its URL."""

    async def respond(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", respond)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


def page(*paths: str, cursor: str | None = None) -> dict[str, Any]:
    return {"objects": [{"path": path, "range": None, "size": 1} for path in paths], "cursor": cursor, "new": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: web.Response(status=401), "responded with 401; see warm_start.peer and warm_start.token"),
        (lambda _: web.Response(status=302, headers={"Location": "http://elsewhere/"}), "responded with 302"),
        (lambda _: web.Response(text="<html>"), "is no admin port of bucketfront"),
        (lambda _: web.json_response({"objects": [{"path": 7}]}), "is no admin port of bucketfront"),
        (lambda _: web.Response(body=b" " * (17 << 20)), "sends pages of more than"),
        (lambda _: web.json_response(page(*["/x"] * 2001)), "is no admin port of bucketfront"),
        (lambda request: web.json_response(page(cursor=request.query.get("cursor", "1"))), "one page again and again"),
        (lambda _: web.Response(text="[" * 100_000), "is no admin port of bucketfront"),
        (lambda _: web.json_response(page("no-path", "x", cursor="1")), "no path of a page leads to a mount"),
        (
            lambda request: web.json_response(page("/a", "/b", cursor=request.query.get("cursor", "") + "1")),
            "no object of a page could be filled: there is no such object",
        ),
    ],
)
async def test_a_peer_of_no_use(
    start_beside: StartBeside,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[web.Request], web.StreamResponse],
    reason: str,
) -> None:
    """A peer that does not say what it holds costs a warning, and the proxy is ready."""
    async with peer_that_answers(answer) as peer:
        node = await start_beside(peer)
        await is_ready(node)
        await until(lambda: reason in caplog.text)


@each_row(
    ("answer", "verdict", "message"),
    [
        (lambda _: web.json_response(page("/a", "/b")), CheckVerdict.FINE, "the peer exports 2 objects"),
        (lambda _: web.json_response(page("/a", cursor="1")), CheckVerdict.FINE, "exports 1 objects, and more"),
        (lambda _: web.json_response(page()), CheckVerdict.WARNING, "holds nothing"),
        (lambda _: web.Response(status=401), CheckVerdict.WARNING, "see warm_start.peer and warm_start.token"),
        (lambda _: web.Response(text="<html>"), CheckVerdict.WARNING, "is no admin port of bucketfront"),
    ],
)
async def test_check(answer: Callable[[web.Request], web.StreamResponse], verdict: CheckVerdict, message: str) -> None:
    """`bucketfront check` requests a page of the peer, and a message has the settings to look at."""
    async with peer_that_answers(answer) as peer:
        found = await check_peer(WarmStartSettings(peer=peer))
    assert (found.verdict, found.name) == (verdict, peer)
    assert message in found.message


async def test_check_of_a_proxy(proxy: Proxy, s3: S3) -> None:
    """The check takes what a proxy exports, and names a peer that is away."""
    s3.put("o0", BODIES["o0"])
    await proxy.get("/o0")
    await proxy.settled()
    found = await check_peer(WarmStartSettings(peer=proxy.app.admin_address))
    assert (found.verdict, found.message) == (CheckVerdict.FINE, "the peer exports 1 objects")
    found = await check_peer(WarmStartSettings(peer="http://127.0.0.1:9"))
    assert found.verdict is CheckVerdict.WARNING
    assert "Connection refused; see warm_start.peer" in found.message


async def test_no_peer(start_beside: StartBeside, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that is out of reach costs a warning, and the proxy is ready."""
    node = await start_beside("http://127.0.0.1:9")
    await is_ready(node)
    assert "http://127.0.0.1:9/api/v1/export did not respond: Connection refused" in caplog.text


async def test_pages_and_strange_paths(start_beside: StartBeside, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """All pages are filled with the token, and a path of no mount is left out without harm to the others."""
    caplog.set_level(logging.INFO, "bucketfront")
    for name, body in BODIES.items():
        s3.put(name, body)
    pages = {None: page("/o0", "no-path", cursor="1:1"), "1:1": page("/o1", "/missing")}
    tokens: list[str] = []

    def answer(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        return web.json_response(pages[request.query.get("cursor")])

    async with peer_that_answers(answer) as peer:
        node = await start_beside(peer, token="a-token-of-the-peer")
        await is_ready(node)
    assert tokens == ["Bearer a-token-of-the-peer"] * 2
    assert "2 objects filled, 1 failed, 1 below no mount; all of it" in caplog.text
    assert (await node.get("/o1")).cache_status.startswith("hit")


async def test_it_takes_no_longer_than_its_timeout(
    proxy: Proxy, start_beside: StartBeside, s3: S3, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy whose S3 does not send is ready after `warm_start.timeout`, and no job of the warm start goes on."""
    caplog.set_level(logging.INFO, "bucketfront")
    s3.put("o0", BODIES["o0"])
    await proxy.get("/o0")

    async def hang(_: Seen) -> None:
        await asyncio.Event().wait()

    relay.on_request = hang
    node = await start_beside(proxy.app.admin_address, timeout="1s")
    await is_ready(node)
    await until(lambda: "warm_start.timeout is over" in caplog.text)
    assert "running" not in [job.state.value for job in node.app.warm_jobs.jobs]
