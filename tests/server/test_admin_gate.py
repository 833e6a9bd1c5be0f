"""What a request of the admin port needs before its body is read, and who gets a place (I21, I27, I33)."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from proxy_under_test import S3, Proxy, StartProxy, until
from rows import each_row
from wire import Connection, connected, message

from bucketfront.admin import api, request_body, tokens
from bucketfront.admin.tokens import Token

TOKEN = "0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": f"Bearer {TOKEN[::-1]}"}
PURGE = json.dumps({"paths": ["/x"]}).encode()
PATH = "/api/v1/purge"


@pytest.fixture
async def warm(start: StartProxy, s3: S3) -> Proxy:
    """A proxy without a token that has `/x` in its cache."""
    return await with_object(await start(), s3)


async def with_object(proxy: Proxy, s3: S3) -> Proxy:
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    return proxy


async def assert_kept(proxy: Proxy) -> None:
    assert (await proxy.get("/x")).cache_status.startswith("hit")


@each_row(
    ("fields", "status"),
    [
        ({"Host": "evil.example:8081"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "a@b"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8081", "Origin": "http://127.0.0.1:8080"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 415),
    ],
    ids=str,
)
async def test_refused(warm: Proxy, fields: dict[str, str], status: int) -> None:
    """A page cannot purge, by any simple request, under another name, or with a type other than JSON (I27, I33)."""
    response = await warm.admin("POST", PATH, PURGE, fields)
    assert (response.status, response.headers["X-Content-Type-Options"]) == (status, "nosniff")
    assert response.json()["error"]
    await assert_kept(warm)


@pytest.mark.parametrize(
    "host", ["LOCALHOST:1", "app.localhost", "localhost.", "127.0.0.1", "[::1]:8081", "10.1.2.3:80"]
)
async def test_names_of_this_machine(warm: Proxy, host: str) -> None:
    """IP addresses and the names of loopback are answered, and a page of that origin may purge."""
    fields = {"Host": host, "Origin": f"http://{host.lower().replace('localhost.', 'localhost')}"}
    fields = {"Host": host} if host == "app.localhost" else fields
    response = await warm.admin("POST", PATH, PURGE, {**fields, "Content-Type": "application/json; charset=utf-8"})
    assert (response.status, response.json()) == (200, {"purged": 1})


async def test_configured_names(start: StartProxy, s3: S3) -> None:
    """The names of `server.hosts` are answered, in any case, and the error names the setting (I33)."""
    proxy = await with_object(await start(server={"hosts": ["Bucketfront", "media.example.com."]}), s3)
    for host in ("bucketfront:8081", "MEDIA.example.com", "media.example.com.:8081"):
        assert (await proxy.admin("GET", "/api/v1/stats", headers={"Host": host})).status == 200
    refused = await proxy.admin("GET", "/metrics", headers={"Host": "a.media.example.com"})
    assert (refused.status, "server.hosts" in refused.json()["error"]) == (421, True)


async def test_a_foreign_page_reads_nothing(warm: Proxy) -> None:
    """A read with a foreign Origin is refused as well. A link that leads here is followed (I33)."""
    assert (await warm.admin("GET", "/metrics", headers={"Origin": "https://evil.example"})).status == 403
    assert (await warm.admin("GET", "/metrics", headers={"Sec-Fetch-Site": "cross-site"})).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/stats", "/healthz"])
async def test_each_path_has_one_spelling(proxy: Proxy, path: str) -> None:
    """A needless escape cannot evade a rule for the path of a server in front: it names nothing here."""
    assert (await proxy.admin("GET", path)).status == 200
    assert (await proxy.admin("GET", f"http://127.0.0.1{path}?a=%61")).status == 200
    escaped = [path[:1] + f"%{ord(path[1]):02x}" + path[2:], path.replace("/", "/%2e/"), path.replace("/", "//")]
    for other in (*escaped, "/%2F" + path[1:], path.replace("/", "/./"), f"/x/..{path}", f"{path}/", f"{path}%3Fa"):
        assert (await proxy.admin("GET", other)).status == 404, other


async def test_probes_need_nothing(start: StartProxy) -> None:
    """An orchestrator's probe comes under any name, and without a token."""
    proxy = await start(admin={"token": TOKEN})
    for path in ("/healthz", "/readyz"):
        for method in ("GET", "HEAD"):
            response = await proxy.admin(method, path, headers={"Host": "any.example", "Origin": "https://any.example"})
            assert (response.status, response.headers["X-Content-Type-Options"]) == (200, "nosniff")


async def test_the_token_comes_before_the_body(start: StartProxy) -> None:
    """A client without the token is refused while its body has not come, and is not invited to send it (I27)."""
    proxy = await start(admin={"token": TOKEN})
    expecting = {"Content-Type": "application/json", "Content-Length": "4000000", "Expect": "100-continue"}
    async with connected(proxy.app.admin_address) as client:
        await client.send(message("POST", PATH, expecting))
        assert (await client.response()).status == 401
    async with connected(proxy.app.admin_address) as client:
        await client.send(message("POST", PATH, {**expecting, **RIGHT, "Content-Length": str(len(PURGE))}))
        assert (await client.head()).status == 100
        await client.send(PURGE)
        assert (await client.response()).json() == {"purged": 0}


async def test_no_decompression(warm: Proxy) -> None:
    """A small compressed body does not become a large one: it is refused before it is read."""
    bomb = gzip.compress(bytes(64 << 20))
    assert (await warm.admin("POST", PATH, bomb, {"Content-Encoding": "gzip"})).status == 415
    assert (await warm.request("PUT", "/y", {"Content-Encoding": "gzip"}, bomb)).status == 201
    assert (await warm.get("/y")).body == bomb


async def test_a_body_that_is_too_large(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has a bound, whether its length is declared or not, and the connection closes behind the refusal."""
    monkeypatch.setattr(request_body, "MAX_BODY_BYTES", 100)
    for framing in ({"Content-Length": "101"}, {"Transfer-Encoding": "chunked"}):
        async with connected(warm.app.admin_address) as client:
            await client.send(message("POST", PATH, {"Content-Type": "application/json", **framing}))
            await client.send(b"65\r\n" + bytes(101) + b"\r\n")
            assert (await client.response()).status == 413


async def test_wrong_tokens_are_slow(start: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response to a wrong token waits. Few wait at a time, and the right token never does (I27)."""
    made, over = list[Token](), asyncio.Event()

    async def pause(seconds: float) -> None:
        assert seconds == 1.0
        await over.wait()

    def make(secret: str | None) -> Token:
        made.append(Token(secret, pause))
        return made[0]

    monkeypatch.setattr(api, "Token", make)
    monkeypatch.setattr(tokens, "WRONG_TOKEN_PAUSE_S", 1.0)
    monkeypatch.setattr(tokens, "MAX_PAUSED", 2)
    proxy = await start(admin={"token": TOKEN})
    async with crowd(proxy, 2) as guessing:
        for client in guessing:
            await client.send(message("GET", "/metrics", WRONG))
        await until(lambda: made[0].paused == 2)
        further = await proxy.admin("GET", "/metrics", headers=WRONG)
        assert (further.status, further.headers["Retry-After"]) == (429, "1")
        assert (await proxy.admin("GET", "/metrics", headers=RIGHT)).status == 200
        assert (await proxy.admin("GET", "/metrics")).status == 401
        over.set()
        for client in guessing:
            assert (await client.response()).status == 401
    await until(lambda: made[0].paused == 0)


@pytest.mark.parametrize("given", ["Bearer \xe9", "Bearer \udc80", "", "Bearer", "bearer " + TOKEN])
async def test_odd_authorization(start: StartProxy, given: str) -> None:
    """A value of any octets is a wrong token, and no error."""
    proxy = await start(admin={"token": TOKEN})
    assert (await proxy.admin("GET", "/metrics", headers={"Authorization": given})).status == 401


@asynccontextmanager
async def crowd(proxy: Proxy, count: int) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(proxy.app.admin_address)) for _ in range(count)]


@pytest.mark.parametrize(
    "sent", [b"", b"GET /metrics HTTP/1.1\r\nHo", message("GET", "/healthz")], ids=["", "head", "idle"]
)
async def test_probes_in_a_crowd(start: StartProxy, sent: bytes) -> None:
    """A probe always gets a place: connections without a request under way make way, the oldest first (I21)."""
    proxy = await start()
    async with crowd(proxy, api.MAX_CONNECTIONS) as inside:
        for client in inside:
            await client.send(sent)
        if sent.endswith(b"\r\n\r\n"):
            for client in inside:
                assert (await client.response()).status == 200
        for _ in range(3):
            assert (await proxy.admin("GET", "/readyz")).status == 200
        assert await inside[0].rest() == b""
        last = inside[-1]
        await last.send(b"st: localhost\r\n\r\n" if sent.endswith(b"Ho") else message("GET", "/healthz"))
        assert (await last.response()).status == 200


async def test_probes_beside_sockets_that_reconnect(start: StartProxy) -> None:
    """Sockets that connect again whenever they are closed keep no probe from its response (I21)."""
    proxy = await start()

    async def reconnect() -> None:
        while True:
            async with connected(proxy.app.admin_address) as client:
                await client.rest()

    crowd = [asyncio.create_task(reconnect()) for _ in range(2 * api.MAX_CONNECTIONS)]
    try:
        for _ in range(20):
            assert (await proxy.admin("GET", "/healthz")).status == 200
    finally:
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_probes_beside_slow_purges(warm: Proxy) -> None:
    """Requests other than probes have few places, so that slow ones do not keep probes out (I21)."""
    head = message(
        "POST", PATH, {"Content-Type": "application/json", "Content-Length": "100", "Expect": "100-continue"}
    )
    async with crowd(warm, api.MAX_AT_ONCE) as slow:
        for client in slow:
            await client.send(head)
            assert (await client.head()).status == 100
        refused = await warm.admin("GET", "/metrics")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert (await warm.admin("GET", "/healthz")).status == 200
        async with crowd(warm, api.MAX_CONNECTIONS):
            assert (await warm.admin("GET", "/readyz")).status == 200
        for client in slow:
            client.abort()


async def test_a_whole_document_after_garbage(warm: Proxy) -> None:
    """A malformed request gets a JSON error, and the connection closes (I24)."""
    async with connected(warm.app.admin_address) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        response = await client.response()
        assert (response.status, response.headers["Connection"]) == (400, "close")
        assert response.json()["error"]
