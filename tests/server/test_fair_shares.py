"""What one client takes of origin connections, requests and uploads, and what others notice of it (I34)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, response
from proxy_under_test import BLOCK, WallClock, settings_of, until
from wire import Connection, Response, connected, fetch, message

from bucketfront.app import App
from bucketfront.fair_share import Resource, UsedUp
from bucketfront.s3 import connection_slots
from bucketfront.s3.upload.parts import PART_SIZE
from bucketfront.server.handlers import uploads
from bucketfront.tus import manager

CONNECTIONS = 8  # to the origin, of which one client has 2 as its share, and all but one if no other wants them
GREEDY, HONEST = "203.0.113.1", "198.51.100.7"
MANY = 30
DELETE = b"<Delete><Object><Key>a</Key></Object></Delete>"
DELETE_HEAD = message("POST", "/?delete", {"Expect": "100-continue"}, DELETE).removesuffix(DELETE)
FRONT = {"trusted_proxies": ["127.0.0.1"]}
ETAG = '"1"'


class SlowOrigin:
    """Serves each object but those of `/bucket/slow…`, which wait for `is_open`."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.server = RawServer(self.script)

    async def script(self, connection: RawConnection, head: Head) -> None:
        await self._take_body(connection, head)
        if head.target.startswith("/bucket/drip") and head.method == "GET":
            first, last = map(int, head.headers["range"].removeprefix("bytes=").split("-"))
            there = f"bytes {first}-{last}/{1 << 20}"
            await connection.send(response("206 OK", length=last + 1 - first, Content_Range=there, ETag=ETAG))
            await connection.send(b"x")
            await self.is_open.wait()
            connection.reset()
        elif head.target.startswith("/bucket/slow"):
            await self.is_open.wait()
        if head.target.startswith("/bucket/drip"):
            pass
        elif head.method == "GET":
            await connection.send(response("206 OK", b"body", Content_Range="bytes 0-3/4", ETag=ETAG))
        elif head.method == "HEAD":
            await connection.send(response("200 OK", length=4, ETag=ETAG))
        else:
            await connection.send(response("200 OK", b"", ETag='"841a2d689ad86bd1611447453c22c6fc"'))

    async def _take_body(self, connection: RawConnection, head: Head) -> None:
        if length := int(head.headers.get("content-length", "0")):
            await connection.reader.readexactly(length)


class Site:
    """A proxy behind a front that names its clients."""

    def __init__(self, app: App, origin: SlowOrigin, clock: WallClock, stack: AsyncExitStack) -> None:
        self.app = app
        self.origin = origin
        self.clock = clock
        self._stack = stack

    async def ask(
        self, client: str, target: str, method: str = "GET", body: bytes | None = None, **fields: str
    ) -> Response:
        """Send a request. `fields` have `_` in place of `-`."""
        headers = {"X-Forwarded-For": client, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return await fetch(self.app.address, target, method=method, headers=headers, body=body)

    async def begin(self, client: str, data: bytes) -> Connection:
        connection = await self._stack.enter_async_context(connected(self.app.address))
        await connection.send(data.replace(b"\r\n", f"\r\nX-Forwarded-For: {client}\r\n".encode(), 1))
        return connection

    async def begin_many(self, client: str, method: str, target: str, body: bytes | None = None) -> list[Connection]:
        """Send MANY requests, each for another object, and wait for no response."""
        return [await self.begin(client, message(method, f"{target}{number}", {}, body)) for number in range(MANY)]

    @property
    def wanted(self) -> int:
        """Return how many connections to the origin are used or awaited."""
        return self.app.origin.slots.wanted.used

    def access_log(self) -> str:
        assert self.app.telemetry.drain(timeout_s=10)
        return Path(self.app.settings.access_log.path).read_text()

    def refused(self, resource: Resource, reason: UsedUp = UsedUp.SHARE) -> int:
        return self.app.fair_shares.refused[resource, reason]


StartSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start_site(tmp_path: Path) -> AsyncIterator[StartSite]:
    async with AsyncExitStack() as stack:

        async def start(again: SlowOrigin | None = None, **sections: Any) -> Site:
            origin = again or SlowOrigin()
            if again is None:
                await stack.enter_async_context(origin.server)
            given = {"server": FRONT, **sections}
            given["origin"] = {"max_connections": CONNECTIONS, **given.get("origin", {})}
            settings = settings_of(tmp_path, origin.server.endpoint_url, "bucket", **given)
            clock = WallClock()
            app = await stack.enter_async_context(App(settings, clock=clock, elapsed=clock.passed))
            site = Site(app, origin, clock, stack)
            stack.callback(origin.is_open.set)
            return site

        yield start


@pytest.mark.parametrize("target", ["/slow", "/drip"])
async def test_cold_reads_of_one_client_delay_no_other(start_site: StartSite, target: str) -> None:
    """One client reads many cold objects of a slow origin. Each miss of another client is served (I34).

    The origin sends nothing, or a head and the beginning of the body.
    """
    site = await start_site()
    await site.begin_many(GREEDY, "GET", target)
    await until(lambda: site.wanted >= MANY)
    assert site.app.origin.free_slots == 1
    for number in range(20):
        found = await site.ask(HONEST, f"/honest{number}")
        assert (found.status, found.body, found.cache_status.split(";")[0]) == (200, b"body", "fwd=miss")
    assert site.app.origin.free_slots == 1


async def test_a_client_that_waits_for_too_much_is_refused(
    start_site: StartSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its share a client gets 429 with Retry-After. Metric, access log and one warning name it (I34)."""
    monkeypatch.setattr(connection_slots, "MIN_WANTED", 16)
    monkeypatch.setattr(connection_slots, "WANTED_PER_SLOT", 1)
    caplog.set_level(logging.WARNING, "bucketfront")
    site = await start_site()
    await site.begin_many(GREEDY, "GET", "/slow")
    await until(lambda: site.refused(Resource.ORIGIN) + site.wanted == MANY)
    assert site.wanted == 14
    refused = await site.ask(GREEDY, "/slow-more")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert refused.headers["Cache-Control"] == "no-store"
    assert refused.json() == {"error": "its share of requests that wait for the origin is used up"}
    in_s3 = await site.ask(GREEDY, "/slow-more", Authorization="AWS4-HMAC-SHA256 x")
    assert (in_s3.status, b"<Code>SlowDown</Code>" in in_s3.body) == (429, True)
    assert (await site.ask(HONEST, "/honest")).status == 200
    lines = [record.getMessage() for record in caplog.records if GREEDY in record.getMessage()]
    assert len(lines) == 1
    assert "its share of requests that wait for the origin is used up" in lines[0]
    found = (await fetch(site.app.admin_address, "/metrics")).body.decode()
    assert f'bucketfront_share_refused_total{{reason="share",resource="origin"}} {MANY - 12}.0' in found
    assert site.access_log().count('"fault": "ShareUsedUp (origin)"') == MANY - 12


async def test_what_is_cached_needs_no_share(start_site: StartSite) -> None:
    """A client that waits for the origin as long as it may still gets what is cached (I34)."""
    site = await start_site(server={**FRONT, "fast_path": False})
    assert (await site.ask(GREEDY, "/hit")).status == 200
    await site.begin_many(GREEDY, "GET", "/slow")
    await until(lambda: site.app.origin.free_slots == 1)
    found = await site.ask(GREEDY, "/hit")
    assert (found.status, found.cache_status.split(";")[0]) == (200, "hit")


async def test_a_joined_lookup_is_not_delayed(start_site: StartSite) -> None:
    """A client does not wait because another one, which has many lookups waiting, asked for the same object (I34)."""
    site = await start_site()
    await site.begin_many(GREEDY, "GET", "/slow")
    await until(lambda: site.app.origin.free_slots == 1)
    joined = await site.begin(GREEDY, message("GET", "/wanted-by-both"))
    await until(lambda: site.app.cache.statistics().lookups == MANY + 1)
    found = await site.ask(HONEST, "/wanted-by-both")
    assert (found.status, found.body) == (200, b"body")
    assert (await joined.response()).body == b"body"
    assert site.app.cache.statistics().lookups_joined == 1


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_uploads_of_one_client_delay_no_other(start_site: StartSite, method: str) -> None:
    """One client has many uploads to a slow origin. An upload and a read of another client are served (I34)."""
    site = await start_site()
    if method == "PUT":
        await site.begin_many(GREEDY, "PUT", "/slow", b"body")
    else:
        form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="slow"\r\n\r\nbody\r\n--b--\r\n'
        fields = {"Content-Type": "multipart/form-data; boundary=b"}
        for number in range(MANY):
            await site.begin(GREEDY, message("POST", f"/slow{number}/", fields, form))
    half = site.app.origin.upload_slots.half
    await until(lambda: half.waiting + half.shares.used == MANY)
    assert site.app.origin.free_slots == CONNECTIONS // 2 + 1
    assert (await site.ask(HONEST, "/honest", "PUT", b"body")).status == 201
    assert (await site.ask(HONEST, "/honest-too")).status == 200


async def test_requests_at_once(start_site: StartSite) -> None:
    """A client that has its share of all requests gets 429, and others are served (I34)."""
    site = await start_site(server={**FRONT, "fast_path": False})
    assert (await site.ask(GREEDY, "/cached")).status == 200
    site.app.fair_shares.shares[Resource.REQUESTS].capacity = 16
    connections = [await site.begin(GREEDY, message("GET", f"/slow{number}")) for number in range(14)]
    await until(lambda: site.app.fair_shares.shares[Resource.REQUESTS].used == 14)
    assert (await site.ask(GREEDY, "/cached")).status == 429
    assert (await site.ask(HONEST, "/honest")).status == 200
    for connection in connections:
        connection.abort()
    await until(lambda: not site.app.fair_shares.shares[Resource.REQUESTS].used)
    assert (await site.ask(GREEDY, "/honest")).status == 200


async def test_bodies_that_do_not_come(start_site: StartSite) -> None:
    """A client whose uploads send nothing gets 429 for further ones. Its reads and others' uploads are served (I34)."""
    site = await start_site()
    site.app.fair_shares.shares[Resource.UPLOADS].capacity = 8
    for number in range(7):
        await site.begin(GREEDY, message("PUT", f"/slow{number}", {"Content-Length": "9"}, b""))
    await until(lambda: site.app.fair_shares.shares[Resource.UPLOADS].used == 7)
    refused = await site.ask(GREEDY, "/more", "PUT", b"body")
    assert refused.status == 429
    assert refused.headers["Connection"] == "close"
    assert (await site.ask(HONEST, "/honest", "PUT", b"body")).status == 201
    assert (await site.ask(GREEDY, "/honest")).status == 200
    assert site.refused(Resource.UPLOADS) == 1


async def test_the_whole_is_used_up(start_site: StartSite) -> None:
    """If clients within their shares have everything, a further one gets 503 with Retry-After (I34)."""
    site = await start_site()
    site.app.fair_shares.shares[Resource.REQUESTS].capacity = 2
    for client in (GREEDY, HONEST):
        await site.begin(client, message("GET", "/slow"))
    await until(lambda: site.app.fair_shares.shares[Resource.REQUESTS].used == 2)
    refused = await site.ask("192.0.2.1", "/x")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert site.refused(Resource.REQUESTS, UsedUp.WHOLE) == 1


async def test_a_credential_is_a_client(start_site: StartSite) -> None:
    """Each token has a share of its own, also from an address of this machine (I34)."""
    tokens = ["the-first-token-of-two", "the-second-token-of-two"]
    site = await start_site(
        server={},
        access={"team": {"bearer": {"tokens": tokens}}},
        mounts=[{"path": "/", "bucket": "bucket", "read": ["team"]}],
    )
    site.app.fair_shares.shares[Resource.REQUESTS].capacity = 4
    for number in range(3):
        data = message("GET", f"/slow{number}", {"Authorization": f"Bearer {tokens[0]}"})
        await site.begin("", data)
    await until(lambda: site.app.fair_shares.shares[Resource.REQUESTS].clients == {"team:token 1": 3})
    assert (await site.ask("", "/x", Authorization=f"Bearer {tokens[0]}")).status == 429
    assert (await site.ask("", "/x", Authorization=f"Bearer {tokens[1]}")).status == 200


async def test_who_has_no_share(start_site: StartSite) -> None:
    """A program of this machine is not limited, because it may be a front of many clients (I34)."""
    site = await start_site(server={})
    for number in range(MANY):
        connection = await site.begin("", message("GET", f"/slow{number}"))
        assert connection
    await until(lambda: not site.app.origin.free_slots)
    assert site.app.fair_shares.shares[Resource.REQUESTS].clients == {}


async def test_a_client_cannot_hide(start_site: StartSite) -> None:
    """Requests behind a front that name no single client have one share together (I34)."""
    site = await start_site()
    site.app.fair_shares.shares[Resource.REQUESTS].capacity = 4
    for number in range(3):
        data = message("GET", f"/slow{number}", {"Forwarded": f"for=192.0.2.{number}"})
        await site.begin(GREEDY, data)
    await until(lambda: site.app.fair_shares.shares[Resource.REQUESTS].clients == {"unknown": 3})
    assert (await site.ask("not an address", "/x")).status == 429
    assert (await site.ask(HONEST, "/x")).status == 200


async def test_without_shares(start_site: StartSite) -> None:
    """With `client_share: null` no client is limited."""
    site = await start_site(server={**FRONT, "client_share": None})
    await site.begin_many(GREEDY, "GET", "/slow")
    await until(lambda: not site.app.origin.free_slots)
    assert site.app.fair_shares.shares[Resource.REQUESTS].clients == {}


# --- resumable uploads, and DeleteObjects ----------------------------------------------------------------------


async def create(site: Site, client: str, count: int) -> list[Response]:
    return [await site.ask(client, "/upload", "POST", Tus_Resumable="1.0.0", Upload_Length="9") for _ in range(count)]


async def known(site: Site, created: list[Response]) -> list[int]:
    """Return the statuses of requests for the offsets of these uploads."""
    found = [await site.ask(HONEST, answer.headers["Location"], "HEAD", Tus_Resumable="1.0.0") for answer in created]
    return [answer.status for answer in found]


async def test_unfinished_uploads_of_one_client(start_site: StartSite) -> None:
    """A client that leaves many uploads unfinished gets 429 for further ones. Others begin theirs (I34)."""
    site = await start_site()
    site.app.fair_shares.shares[Resource.RESUMABLE_UPLOADS].capacity = 16
    begun = await create(site, GREEDY, 16)
    assert [answer.status for answer in begun] == 14 * [201] + 2 * [429]
    assert (begun[-1].headers["Retry-After"], begun[-1].headers["Tus-Resumable"]) == ("1", "1.0.0")
    assert [answer.status for answer in await create(site, HONEST, 2)] == [201, 201]
    ended = await site.ask(GREEDY, begun[0].headers["Location"], "DELETE", Tus_Resumable="1.0.0")
    assert ended.status == 204
    assert [answer.status for answer in await create(site, HONEST, 1)] == [201]
    assert site.refused(Resource.RESUMABLE_UPLOADS) == 2


async def test_abandoned_uploads_make_way(start_site: StartSite) -> None:
    """If no more uploads are possible, the longest idle one of a client beyond its share makes way for others (I34)."""
    site = await start_site()
    site.app.fair_shares.shares[Resource.RESUMABLE_UPLOADS].capacity = 16
    first = (await create(site, GREEDY, 1))[0]
    site.clock.advance(1)
    greedy = [first, *await create(site, GREEDY, 13)]
    honest = await create(site, HONEST, 2)
    refused = (await create(site, "192.0.2.1", 1))[0]
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    site.clock.advance(manager.IDLE_S)
    others = await create(site, HONEST, 2) + await create(site, "192.0.2.1", 4)
    assert [answer.status for answer in others] == 6 * [201]
    assert await known(site, honest + others) == 8 * [200]
    assert await known(site, greedy) == 6 * [404] + 8 * [200]
    assert (await create(site, GREEDY, 1))[0].status == 429


async def test_shares_of_uploads_outlive_a_restart(start_site: StartSite) -> None:
    """After a restart the unfinished uploads are those of the clients that began them (I34)."""
    site = await start_site()
    await create(site, GREEDY, 3)
    await create(site, "2001:db8::1", 1)
    await site.app.__aexit__(None, None, None)
    site = await start_site(again=site.origin)
    shares = site.app.fair_shares.shares[Resource.RESUMABLE_UPLOADS]
    assert shares.clients == {GREEDY: 3, "2001:db8::/64": 1}


async def test_delete_objects_of_one_client(start_site: StartSite) -> None:
    """A client whose DeleteObjects do not arrive holds half of the places. Those of others are carried out (I34)."""
    mounts = [{"path": "/", "bucket": "bucket", "methods": ["GET", "DELETE"]}]
    site = await start_site(mounts=mounts)
    for _ in range(4):
        assert (await (await site.begin(GREEDY, DELETE_HEAD)).head()).status == 100
    for _ in range(8):
        await site.begin(GREEDY, DELETE_HEAD)
    for _ in range(5):
        assert (await site.ask(HONEST, "/?delete", "POST", DELETE)).status == 200


async def test_delete_objects_beyond_the_share(start_site: StartSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for a place because it has its share of them gets 429 in the end (I34)."""
    monkeypatch.setattr(uploads, "DELETE_SLOT_TIMEOUT_S", 0.2)
    site = await start_site(mounts=[{"path": "/", "bucket": "bucket", "methods": ["GET", "DELETE"]}])
    for _ in range(4):
        assert (await (await site.begin(GREEDY, DELETE_HEAD)).head()).status == 100
    refused = await site.ask(GREEDY, "/?delete", "POST", DELETE)
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "1"
    assert site.refused(Resource.DELETES) == 1


async def test_staged_bytes_of_one_client(start_site: StartSite) -> None:
    """A client whose uploads have filled its share of the staging area gets 429. Uploads of others go on (I34)."""
    site = await start_site()
    site.app.upload_manager.staging.files.capacity = 2 * PART_SIZE
    one_more = b"x" * PART_SIZE

    async def begun(client: str, body: bytes) -> Response:
        fields = {"Tus_Resumable": "1.0.0", "Content_Type": "application/offset+octet-stream"}
        length = str(2 * PART_SIZE)
        return await site.ask(client, "/upload", "POST", body, Upload_Length=length, **fields)

    assert (await begun(GREEDY, one_more[:-BLOCK])).status == 201
    assert (await begun(GREEDY, one_more[: PART_SIZE // 2])).status == 201
    refused = await begun(GREEDY, one_more[: PART_SIZE // 2])
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "1"
    assert site.refused(Resource.UPLOAD_SPACE) == 1
    assert (await begun(HONEST, one_more[: PART_SIZE // 8])).status == 201
