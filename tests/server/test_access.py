"""The rules of `access`, for each route to a key, on both request paths, before any lookup (I31, I32)."""

import asyncio
import base64
import hashlib
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from proxy_under_test import S3, Proxy, StartProxy
from test_delete_objects import document, result
from test_upload_forms import TYPE as FORM
from test_upload_forms import form, part
from tus_client import BODY, TUS, created, metadata, patched

from bucketfront.config.access_settings import BasicSettings
from bucketfront.errors import AccessUnavailable
from bucketfront.server.access.basic import BasicRule
from bucketfront.server.access.rule import AccessRequest, Grant

ALL = ["GET", "HEAD", "PUT", "POST", "DELETE"]
TEAM, OTHER = "a-token-of-the-team", "another-token-of-it"
AUTHORIZED = {"Authorization": f"Bearer {TEAM}"}
WRONG = {"Authorization": f"Bearer {TEAM}x"}
RULES = {
    "team": {"bearer": {"tokens": [TEAM, "sha256:" + hashlib.sha256(OTHER.encode()).hexdigest()]}},
    "here": {"networks": ["127.0.0.0/8"]},
    "elsewhere": {"networks": ["10.0.0.0/8"]},
}

StartGuarded = Callable[..., Awaitable[Proxy]]


@pytest.fixture
def start_guarded(start: StartProxy, s3: S3) -> StartGuarded:
    """Start a proxy whose only mount takes all methods and has these keys."""

    async def begin(*, fast_path: bool = True, rules: Any = None, **mount: Any) -> Proxy:
        mounts = [{"path": "/", "bucket": s3.bucket, "methods": ALL, **mount}]
        return await start(access=rules or RULES, mounts=mounts, server={"fast_path": fast_path})

    return begin


@pytest.mark.parametrize("fast_path", [True, False])
async def test_reads_need_a_token(start_guarded: StartGuarded, s3: S3, *, fast_path: bool) -> None:
    """Without a valid token every read is a 401 that is the same for cached, uncached and missing objects, also with
    `only-if-cached`, and the origin is not asked (I31). With one it is served, for private caches only.
    """
    proxy = await start_guarded(fast_path=fast_path, read=["team"], write=["team"])
    s3.put("cached", b"data", CacheControl="public, max-age=60, s-maxage=600")
    s3.put("cold", b"data")
    for _ in range(3):
        served = await proxy.request("GET", "/cached", AUTHORIZED)
        assert (served.status, served.body) == (200, b"data")
        assert served.headers["Cache-Control"] == "private, max-age=60"
        await proxy.settled()
    before = len(proxy.relay.calls)
    for method in ("GET", "HEAD"):
        refusals = set()
        for target in ("/cached", "/cold", "/missing"):
            for credential in ({}, WRONG, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
                for more in ({}, {"Range": "bytes=1-2"}, {"Cache-Control": "only-if-cached"}, {"If-None-Match": "*"}):
                    refused = await proxy.request(method, target, {**credential, **more})
                    assert refused.status == 401
                    assert refused.headers["Cache-Control"] == "no-store"
                    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="bucketfront"'
                    refusals.add((credential is WRONG, refused.headers["Cache-Status"], refused.body))
        assert len({cache_status for _, cache_status, _ in refusals}) == 1
    assert len(proxy.relay.calls) == before
    hashed = await proxy.request("GET", "/cold", {"Authorization": f"bearer {OTHER}"})
    assert (hashed.status, hashed.headers["Cache-Control"]) == (200, "private")
    assert TEAM not in str(proxy.log)


async def test_writes_need_a_token(start_guarded: StartGuarded, s3: S3) -> None:
    """Each way to write is a 401 without a token, and nothing arrives at S3. Reads are public (I32)."""
    proxy = await start_guarded(write=["team"])
    s3.put("a", b"old")
    file = part("file", b"new", "a")
    url = await created(proxy, 3, key="later", **AUTHORIZED)
    requests: list[tuple[str, str, dict[str, str], bytes | None]] = [
        ("PUT", "/a", {}, b"new"),
        ("DELETE", "/a", {}, None),
        ("POST", "/", {}, b"new"),
        ("POST", "/folder/", {}, b"new"),
        ("POST", "/upload", {}, b"new"),
        ("POST", "/upload/a", {}, b"new"),
        ("POST", "/", FORM, form(part("key", b"a"), file)),
        ("POST", "/upload", FORM, form(part("key", b"a"), file)),
        ("POST", "/?delete", {}, document("a")),
        ("POST", "/upload", {**TUS, "Upload-Length": "3", "Upload-Metadata": metadata(key="a")}, b""),
        ("PATCH", url, {**BODY, "Upload-Offset": "0"}, b"new"),
        ("HEAD", url, TUS, None),
        ("DELETE", url, TUS, None),
    ]
    for method, target, headers, body in requests:
        for credential in ({}, WRONG):
            response = await proxy.request(method, target, {**headers, **credential}, body)
            assert response.status == 401, (method, target)
    assert s3.get("a") == b"old"
    assert s3.keys() == ["a"]
    assert (await proxy.get("/a")).body == b"old"
    assert (await proxy.request("PUT", "/a", AUTHORIZED, b"new")).status == 201
    assert (await patched(proxy, url, 0, b"new", {**BODY, **AUTHORIZED})).status == 204
    assert s3.get("a") == s3.get("later") == b"new"


async def test_one_of_several_rules(start_guarded: StartGuarded, s3: S3) -> None:
    """One rule of the list is enough, whatever precedes it, and `public` is one."""
    s3.put("a", b"data")
    for rules, status in (
        (["elsewhere"], 403),
        (["elsewhere", "team"], 401),
        (["elsewhere", "here"], 200),
        (["here", "team"], 200),
        (["team", "public"], 200),
    ):
        proxy = await start_guarded(read=rules)
        assert (await proxy.get("/a")).status == status, rules
        assert (await proxy.request("GET", "/a", AUTHORIZED)).status == (200 if "elsewhere" not in rules[-1] else 403)
        await proxy.stop()


async def test_keys_of_an_inner_mount(start: StartProxy, s3: S3) -> None:
    """A mount with a longer prefix guards its keys, also by the path of a public mount above it (I32)."""
    below = {
        "path": "/p/",
        "bucket": s3.bucket,
        "prefix": "private/",
        "methods": ALL,
        "read": ["team"],
        "write": ["team"],
    }
    proxy = await start(access=RULES, mounts=[{"path": "/", "bucket": s3.bucket, "methods": ALL}, below])
    s3.put("private/a", b"old")
    s3.put("b", b"data")
    for credential in ({}, WRONG):
        for target in ("/p/a", "/private/a"):
            assert (await proxy.request("GET", target, credential)).status == 401
            assert (await proxy.request("PUT", target, credential, b"new")).status == 401
        assert (await proxy.request("POST", "/upload/private/a", credential, b"new")).status == 401
        sent = form(part("key", b"private/a"), part("file", b"new", "x"))
        assert (await proxy.request("POST", "/upload", {**FORM, **credential}, sent)).status == 401
        deleted = await proxy.request("POST", "/?delete", credential, document("private/a", "c"))
        assert result(deleted) == (["c"], {"private/a": "AccessDenied"})
    assert (await proxy.get("/b")).status == 200
    assert s3.get("private/a") == b"old"
    served = await proxy.request("GET", "/private/a", AUTHORIZED)
    assert (served.body, served.headers["Cache-Control"]) == (b"old", "private")
    assert (await proxy.request("POST", "/upload/private/a", AUTHORIZED, b"new")).status == 201
    assert s3.get("private/a") == b"new"


async def test_pages_of_a_site(start_guarded: StartGuarded, s3: S3) -> None:
    """Index, fallback, error page and redirect of a site are as guarded as the paths that lead to them (I31)."""
    site = {"fallback": "app.html", "errors": {"404": "404.html"}}
    proxy = await start_guarded(read=["team"], site=site)
    for key in ("docs/index.html", "app.html", "404.html"):
        s3.put(key, b"secret page")
    for target in ("/docs/", "/docs", "/none", "/"):
        for method in ("GET", "HEAD"):
            refused = await proxy.request(method, target)
            assert refused.status == 401
            assert b"secret" not in refused.body
    moved = await proxy.request("GET", "/docs", AUTHORIZED)
    assert (moved.status, moved.headers["Cache-Control"]) == (301, "private, max-age=60")
    assert (await proxy.request("GET", "/docs/", AUTHORIZED)).body == b"secret page"


async def test_shared_caching(start_guarded: StartGuarded, s3: S3) -> None:
    """`shared_caching` leaves Cache-Control to the object; without it even CDN-Cache-Control is taken off."""
    s3.put("a", b"data", CacheControl="max-age=60")
    proxy = await start_guarded(read=["team"], shared_caching=True)
    assert (await proxy.request("GET", "/a", AUTHORIZED)).headers["Cache-Control"] == "max-age=60"


async def test_preflights_and_options(start_guarded: StartGuarded) -> None:
    """A preflight passes without credentials, because browsers send none with it. Any other OPTIONS needs them."""
    proxy = await start_guarded(read=["team"], write=["team"])
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    assert (await proxy.request("OPTIONS", "/a", preflight)).status == 204
    assert (await proxy.request("OPTIONS", "*")).status == 204
    assert (await proxy.request("OPTIONS", "/a")).status == 401
    assert (await proxy.request("OPTIONS", "/a", AUTHORIZED)).status == 204


async def test_clients_of_s3(start_guarded: StartGuarded) -> None:
    """A client of S3 gets the refusal as S3's XML."""
    proxy = await start_guarded(read=["team"], write=["team"])
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host"}
    for method in ("GET", "PUT"):
        refused = await proxy.request(method, "/a", signed, b"x" if method == "PUT" else None)
        assert refused.status == 401
        assert b"<Code>AccessDenied</Code>" in refused.body


async def test_passwords(start_guarded: StartGuarded, s3: S3, tmp_path: Any) -> None:
    """A user of a password file is let in by bcrypt and argon2. A wrong password, an unknown user and broken
    credentials are a 401 with a Basic challenge.
    """
    file = tmp_path / "htpasswd"
    argon = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$DAaiQGEzFI8YmJDAx2DYDuKfJLbLwYx6AvPHLVCJ8mA"
    file.write_text(f"# users\nann:{bcrypt.hashpw(b'pass word', bcrypt.gensalt(4)).decode()}\n\nbob:{argon}\n")
    s3.put("a", b"data")
    proxy = await start_guarded(rules={"staff": {"basic": {"file": str(file), "realm": "staff"}}}, read=["staff"])
    for credential, status in (
        ("YW5uOnBhc3Mgd29yZA==", 200),  # ann:pass word
        ("YW5uOnBhc3Mgd29yZA==", 200),  # from memory
        ("YW5uOnBhc3M=", 401),  # ann:pass
        ("Ym9iOm5v", 401),  # bob:no
        ("emVkOnBhc3Mgd29yZA==", 401),  # zed:pass word
        ("YW5u", 401),  # ann
        ("***", 401),
        ("/w==", 401),  # no UTF-8
    ):
        response = await proxy.request("GET", "/a", {"Authorization": f"Basic {credential}"})
        assert response.status == status, credential
        if status == 401:
            assert response.headers["WWW-Authenticate"] == 'Basic realm="staff", charset="UTF-8"'
    assert "pass word" not in str(proxy.log)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_addresses_told_by_fronts(start: StartProxy, s3: S3, *, fast_path: bool) -> None:
    """Behind a trusted front the client's address is the one that the front tells, for rules and for the log. Without
    trust the field is no more than text.
    """
    s3.put("a", b"data")
    mounts = [{"path": "/", "bucket": s3.bucket, "read": ["elsewhere"]}]
    for trusted, status, logged in (([], 403, "127.0.0.1"), (["127.0.0.0/8"], 200, "10.1.2.3")):
        server = {"fast_path": fast_path, "trusted_proxies": trusted}
        proxy = await start(access=RULES, mounts=mounts, uploads=None, server=server)
        for field in ({"X-Forwarded-For": "9.9.9.9, 10.1.2.3"}, {"Forwarded": 'for=9.9.9.9, for="10.1.2.3:80"'}):
            assert (await proxy.request("GET", "/a", field)).status == status
            assert proxy.log[-1]["client"] == logged
        assert (await proxy.request("GET", "/a", {"X-Forwarded-For": "10.1.2.3, 9.9.9.9"})).status == 403
        assert (await proxy.request("GET", "/a", {"X-Forwarded-For": "10.1.2.3, no address"})).status == 403
        await proxy.stop()


async def test_clients_of_fast_hits(start: StartProxy, s3: S3) -> None:
    """The log has the client that a trusted front names for each hit of one connection, and the fast path serves them.
    A second field of the name, or `Forwarded`, is left to the ordinary path, which names the same.
    """
    s3.put("a", b"data")
    proxy = await start(server={"trusted_proxies": ["127.0.0.1"]})
    await proxy.get("/a")
    await proxy.settled()
    path = proxy.app.fast_path
    assert path is not None
    named = ["10.1.2.3", "2001:db8::1", "9.9.9.9, 10.1.2.4", "nonsense", None]
    async with proxy.connection() as connection:
        for name in named:
            field = "" if name is None else f"X-Forwarded-For: {name}\r\n"
            await connection.send(f"GET /a HTTP/1.1\r\nHost: a\r\n{field}\r\n".encode())
            assert (await connection.response()).body == b"data"
    await proxy.until(lambda: path.served == len(named))
    assert [line["client"] for line in proxy.log[1:]] == ["10.1.2.3", "2001:db8::1", "10.1.2.4", "-", "127.0.0.1"]
    for head in ("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 10.1.2.5", "Forwarded: for=10.1.2.5"):
        async with proxy.connection() as connection:
            await connection.send(f"GET /a HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
            assert (await connection.response()).body == b"data"
        assert proxy.log[-1]["client"] == "10.1.2.5"
    assert path.served == len(named)


async def test_fronts_have_no_share_of_connections(start: StartProxy) -> None:
    """A front that is trusted may have more than one client's share of connections, as addresses of this machine."""
    proxy = await start(server={"trusted_proxies": ["192.0.2.0/24"]})
    has_share = proxy.app.connection_limit.has_share
    shares = {address: has_share(address) for address in ("192.0.2.7", "198.51.100.7", "127.0.0.1", "::1", "")}
    assert shares == {"192.0.2.7": False, "198.51.100.7": True, "127.0.0.1": False, "::1": False, "": False}


async def test_pages_of_other_sites(start: StartProxy, s3: S3) -> None:
    """A page of another site reads nothing through its visitor's browser that a rule guards: `*` in
    `cors.allow_origins` names no origin there, and no name that was not configured is answered (I33).
    """
    s3.put("a", b"secret")
    mounts = [{"path": "/", "bucket": s3.bucket, "read": ["here"]}, {"path": "/open/", "bucket": s3.bucket}]
    named = "https://app.example"
    proxy = await start(access=RULES, mounts=mounts, uploads=None, cors={"allow_origins": ["*", named]})
    for origin, may_read in (("https://evil.example", False), (named, True)):
        response = await proxy.request("GET", "/a", {"Origin": origin})
        assert response.status == 200
        assert ("Access-Control-Allow-Origin" in response.headers) is may_read
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Origin" in (await proxy.request("GET", "/open/a", {"Origin": origin})).headers
    for host, status in (("rebound.evil.example", 421), ("127.0.0.1", 200), ("localhost", 200)):
        assert (await proxy.request("GET", "/a", {"Host": host})).status == status
        assert (await proxy.request("GET", "/open/a", {"Host": host})).status == 200


async def test_a_rule_that_cannot_decide(start: StartProxy, s3: S3) -> None:
    """An app that is down refuses what its rule guards, with 503, and nothing else: neither the public mount above nor
    a mount with another rule that holds.
    """
    for key in ("a", "app/a", "both/a"):
        s3.put(key, b"data")
    rules = {**RULES, "app": {"forward": {"url": "http://127.0.0.1:9/"}}}
    below = [
        {"path": f"/{name}/", "bucket": s3.bucket, "prefix": f"{name}/", "read": read}
        for name, read in (("app", ["app"]), ("both", ["app", "here"]))
    ]
    proxy = await start(access=rules, mounts=[{"path": "/", "bucket": s3.bucket}, *below], uploads=None)
    for path, status in (("/a", 200), ("/none", 404), ("/app/a", 503), ("/both/a", 200)):
        assert (await proxy.get(path)).status == status, path


async def test_credentials_that_are_no_text(start_guarded: StartGuarded, tmp_path: Path) -> None:
    """Bytes that are no text are a 401, as any other credentials that do not fit."""
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}\n")
    jwt = {"jwks": "http://127.0.0.1:9/", "issuer": "a", "audience": "b"}
    rules = {**RULES, "staff": {"basic": {"file": str(file)}}, "users": {"jwt": jwt}}
    for read in (["team"], ["staff"], ["users"]):
        proxy = await start_guarded(rules=rules, read=read)
        for scheme in (b"Bearer", b"Basic"):
            async with proxy.connection() as connection:
                head = b"GET /a HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s \xff\xfe.e30.AA\r\n\r\n" % scheme
                await connection.send(head)
                assert (await connection.response()).status == 401
        await proxy.stop()


async def test_passwords_of_one_client(tmp_path: Path) -> None:
    """One client that floods the verification with wrong passwords does not lock the others out, also if it leaves."""
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}\n")
    rule = BasicRule(BasicSettings(file=file), lambda: 0.0)

    def asked(address: str, password: str) -> AccessRequest:
        credentials = base64.b64encode(f"ann:{password}".encode()).decode()
        field = {"authorization": f"Basic {credentials}"}.get
        return AccessRequest("GET", "/a", "", field, ipaddress.ip_address(address), 0.0)

    flood = [asyncio.ensure_future(rule.examine(asked("192.0.2.1", f"wrong {number}"))) for number in range(100)]
    await asyncio.sleep(0)
    for task in flood[1::2]:
        task.cancel()
    assert isinstance(await rule.examine(asked("192.0.2.2", "x")), Grant)
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(outcome, AccessUnavailable) for outcome in outcomes) > 40
    assert not any(isinstance(outcome, Grant) for outcome in outcomes)
    assert isinstance(await rule.examine(asked("192.0.2.1", "x")), Grant)
    await rule.close()
