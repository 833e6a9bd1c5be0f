"""Pages of other sites write nothing (I33), on either path and by whatever route, and programs are not concerned."""

import base64
import hashlib
import socket
import ssl
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import S3, Proxy, StartProxy
from test_delete_objects import document
from test_upload_forms import TYPE as FORM
from test_upload_forms import form, part
from tus_client import BODY, TUS, created
from wire import Response, fetch, message

NAMED, FOREIGN = "https://app.example.com", "https://evil.example"
HOST = "media.example:8080"
SIMPLE = {"Content-Type": "text/plain"}
MD5 = base64.b64encode(hashlib.md5(document("x")).digest()).decode()
DELETION = {"Content-Type": "application/xml", "Content-MD5": MD5}
FOREIGN_FIELDS = (
    {"Origin": FOREIGN},
    {"Origin": "null"},
    {"Origin": f"{FOREIGN}, http://{HOST}"},
    {"Origin": ""},
    {"Origin": "*"},
    {"Origin": f"http://{HOST}.evil.example"},
    {"Origin": f"http://{HOST}@evil.example"},
    {"Origin": "http://media.example"},
    {"Origin": "http://media.example:8081"},
    {"Origin": FOREIGN, "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none, cross-site"},
    {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"},
)
OWN_FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"Origin": f"http://{HOST}"},
    {"Origin": f"https://{HOST}"},  # behind a TLS terminator
    {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"},
    {"Origin": NAMED},
)
CORS = {"allow_origins": ["*", NAMED]}


async def write(proxy: Proxy, method: str, target: str, headers: dict[str, str], body: bytes = b"new") -> Response:
    return await proxy.request(method, target, {"Host": HOST, **headers}, body)


@pytest.mark.parametrize("fields", FOREIGN_FIELDS, ids=str)
@pytest.mark.parametrize("is_fast", [True, False])
async def test_no_write(start: StartProxy, s3: S3, fields: dict[str, str], *, is_fast: bool) -> None:
    """No kind of write of a foreign page changes anything, and the reads of such a page are served (I33)."""
    proxy = await start(server={"fast_path": is_fast, "hosts": ["media.example"]}, cors=CORS)
    s3.put("x", b"old")
    upload = await created(proxy, 3, key="tus")
    proxy.relay.reset()
    for method, target, headers, body in (
        ("PUT", "/x", SIMPLE, b"new"),
        ("DELETE", "/x", {}, b""),
        ("POST", "/", SIMPLE, b"new"),
        ("POST", "/", FORM, form(part("file", b"new", "x"))),
        ("POST", "/?delete", DELETION, document("x")),
        ("POST", "/upload", FORM, form(part("file", b"new", "x"))),
        ("POST", "/upload/x", SIMPLE, b"new"),
        ("POST", "/upload", {**TUS, "Upload-Length": "3"}, b""),
        ("PATCH", upload, {**BODY, "Upload-Offset": "0"}, b"new"),
        ("POST", upload, {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}, b"new"),
        ("HEAD", upload, TUS, b""),
        ("DELETE", upload, TUS, b""),
    ):
        response = await write(proxy, method, target, {**headers, **fields}, body)
        assert response.status == 403, (method, target)
        assert method == "HEAD" or "cors.allow_origins" in response.json()["error"]
    assert proxy.relay.seen == []
    for _ in range(3):
        assert (await proxy.request("GET", "/x", {"Host": HOST, **fields})).body == b"old"
        await proxy.settled()
    assert (await proxy.request("HEAD", upload, {"Host": HOST, **TUS})).headers["Upload-Offset"] == "0"


@pytest.mark.parametrize("fields", OWN_FIELDS, ids=str)
async def test_own_pages_and_programs(start: StartProxy, s3: S3, fields: dict[str, str]) -> None:
    """Pages of the request's own origin and of a named one may write, and so may programs."""
    proxy = await start(server={"hosts": ["media.example"]}, cors=CORS)
    assert (await write(proxy, "PUT", "/x", fields)).status == 201
    assert (await write(proxy, "POST", "/?delete", {**DELETION, **fields}, document("x"))).status == 200
    assert s3.keys() == []


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        ("http://media.example", "media.example", True),
        ("http://media.example", "media.example:80", True),
        ("https://media.example", "MEDIA.example:443", True),
        ("https://media.example", "media.example.", True),
        ("https://media.example", "media.example:80", False),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://[::1]:8080", "[::2]:8080", False),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("file://", "", False),
        ("http://", "", False),
        ("chrome-extension://media.example", "media.example", False),
    ],
)
async def test_own_origin(start: StartProxy, s3: S3, origin: str, host: str, *, may: bool) -> None:
    """The own origin has the host and the port of Host, where the default port of a scheme may be absent."""
    proxy = await start(server={"hosts": ["media.example"]})
    response = await proxy.request("PUT", "/x", {"Host": host, "Origin": origin}, b"new")
    assert (response.status, s3.keys()) == ((201, ["x"]) if may else (403, []))


async def test_own_origin_of_tls(start: StartProxy, tmp_path: Path) -> None:
    """A server that speaks TLS itself has the scheme https, so a page of the same host without TLS is foreign."""
    chain, key = localhost_certificate(tmp_path)
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}, "hosts": ["media.example"]})
    context = ssl.create_default_context(cafile=str(chain))
    context.check_hostname = False  # the address is 127.0.0.1
    for scheme, status in (("https", 201), ("http", 403)):
        headers = {"Host": HOST, "Origin": f"{scheme}://{HOST}"}
        response = await fetch(proxy.address, "/x", method="PUT", headers=headers, body=b"new", tls=context)
        assert response.status == status


async def test_null_is_never_named(start: StartProxy, s3: S3) -> None:
    """The origin `null` may be allowed to read, and never to write, because any site can make such a page."""
    proxy = await start(server={"hosts": ["media.example"]}, cors={"allow_origins": ["null"]})
    s3.put("x", b"old")
    response = await proxy.request("GET", "/x", {"Origin": "null"})
    assert (response.body, response.headers["Access-Control-Allow-Origin"]) == (b"old", "null")
    assert (await write(proxy, "PUT", "/x", {"Origin": "null"})).status == 403


async def test_refused_before_the_body(proxy: Proxy) -> None:
    """The refusal comes before a byte of the body, and a client that waits for 100 is not invited to send it."""
    async with proxy.connection() as client:
        head = {"Origin": FOREIGN, "Content-Length": "1000000", "Expect": "100-continue"}
        await client.send(message("PUT", "/x", head))
        assert (await client.response()).status == 403
        client.socket.shutdown(socket.SHUT_WR)
        assert await client.rest() == b""


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
async def test_a_preflight_offers_reads(start: StartProxy, method: str) -> None:
    """A preflight offers writes, and the fields of uploads, to pages of named origins alone."""
    proxy = await start(server={"hosts": ["media.example"]}, cors=CORS)
    question = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "tus-resumable"}
    for target in ("/x", "/upload/x"):
        stranger = await proxy.request("OPTIONS", target, {**question, "Origin": FOREIGN})
        assert stranger.status == 204
        assert stranger.headers.get("Access-Control-Allow-Methods", "GET, HEAD") in ("GET, HEAD", "HEAD")
        assert "Access-Control-Allow-Headers" not in stranger.headers
    named = await proxy.request("OPTIONS", "/upload/x", {**question, "Origin": NAMED})
    assert method in named.headers["Access-Control-Allow-Methods"].split(", ")
    assert named.headers["Access-Control-Allow-Headers"] == "tus-resumable"
    of_read = await proxy.request(
        "OPTIONS", "/x", {"Origin": FOREIGN, "Access-Control-Request-Method": "GET", "X": "1"}
    )
    assert of_read.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
