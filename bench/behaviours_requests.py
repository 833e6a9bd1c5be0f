"""Rows about methods, framing (RFC 9112), keys, and what browsers need."""

import re

import content
from behaviours_bench import Bench, Group, cost, shown
from behaviours_client import Connection, Response, exchange

METHODS = Group("Methods and framing")
KEYS = Group("Paths and query parameters")
BROWSERS = Group("Browsers, sites, diagnostics")


# --- methods -------------------------------------------------------------------------------------------------------


@METHODS.row("`PUT` of a cached object, then GET", "9111 4.4", r".*new version")
async def put(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    next_version = bytes(content.block(thing.seed(2), 0)[:5])  # the one that the origin has then
    response = await bench.fetch("Content-Length: 5", method="PUT", body=next_version)
    bench.counted()
    after = await bench.fetch()
    version = {1: "old", 2: "new"}.get(thing.version_of(after.get("ETag") or "") or 0, "no")
    return f"{shown(response)}, then {shown(after, thing)}, {version} version"


@METHODS.row("`DELETE` of a cached object, then GET", "9111 4.4", r".*then 404")
async def delete(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    response = await bench.fetch(method="DELETE")
    return f"{shown(response)}, then {shown(await bench.fetch(), thing)}"


@METHODS.row("`OPTIONS`, a CORS preflight", "Fetch 4.8")
async def preflight(bench: Bench) -> str:
    fields = (
        "Origin: https://app.example",
        "Access-Control-Request-Method: GET",
        "Access-Control-Request-Headers: range",
    )
    response = await bench.fetch(*fields, method="OPTIONS")
    allowed = response.get("Access-Control-Allow-Origin")
    return f"{shown(response)}, {'not allowed' if allowed is None else f'allowed to {allowed}'}"


@METHODS.row("`TRACE`", "9110 9.3.8")
async def trace(bench: Bench) -> str:
    return f"{shown(await bench.fetch(method='TRACE'))}{_reached(bench)}"


@METHODS.row("`BREW`, an unknown method", "9110 9.1")
async def brew(bench: Bench) -> str:
    return f"{shown(await bench.fetch(method='BREW'))}{_reached(bench)}"


def _reached(bench: Bench) -> str:
    return ", asks the origin" if bench.counted() else ""


REFUSED = r"400.*"


# --- framing -------------------------------------------------------------------------------------------------------


def _framing(
    what: str, rfc: str, want: str | None, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1"
) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has()
        await bench.warmed(thing)
        raw = bench.raw(*fields, method=method, version=version) + body
        connection = await Connection.to(bench.port)
        try:
            connection.send(raw)
            response = await connection.receive(method, timeout_s=3)
            kept = response.status is not None and await connection.is_open()
        finally:
            connection.close()
        return f"{shown(response, thing)}{', keeps the connection' if kept else ', closes' if response.status else ''}"

    METHODS.row(what, rfc, want)(experiment)


_framing("Two `Range` fields", "9110 5.3", None, "Range: bytes=0-9", "Range: bytes=20-29")
_framing(
    "Two different `Content-Length`",
    "9112 6.3",
    REFUSED,
    "Content-Length: 0",
    "Content-Length: 5",
    method="PUT",
    body=b"12345",
)
_framing(
    "`Content-Length` and `Transfer-Encoding`",
    "9112 6.1",
    None,
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    method="PUT",
    body=b"0\r\n\r\n",
)
_framing(
    "`Transfer-Encoding: xchunked`",
    "9112 6.1",
    r"(400|501).*",
    "Transfer-Encoding: xchunked",
    method="PUT",
    body=b"0\r\n\r\n",
)
_framing("A GET with a body of 5 bytes", "9110 9.3.1", None, "Content-Length: 5", body=b"12345")
_framing("Space before a field's colon", "9112 5.1", REFUSED, "Range : bytes=0-9")
_framing("A folded field", "9112 5.2", None, "X-Folded: a\r\n b")
_framing("A second `Host`", "9112 3.2", REFUSED, "Host: other.example")
_framing("HTTP/1.0", "9112 9.3", None, version="1.0")
_framing("HTTP/2.0 in the request line", "9112 2.3", r"(400|505).*", version="2.0")
_framing("`Expect: 100-continue` on GET", "9110 10.1.1", None, "Expect: 100-continue")
_framing("`Expect: something`", "9110 10.1.1", None, "Expect: something")
_framing("A field of 100 KiB", "9110 5.4", r"4.*", f"X-Large: {'x' * 102400}")


@METHODS.row("No `Host`", "9112 3.2", REFUSED)
async def hostless(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    return shown(await exchange(bench.port, f"GET /{bench.name} HTTP/1.1\r\n\r\n".encode()), thing)


@METHODS.row("Absolute form, of a host by any name", "9112 3.2.2", "200")
async def absolute(bench: Bench) -> str:
    thing = bench.has()
    return shown(await bench.fetch(path=f"http://files.example/{bench.name}"), thing)


@METHODS.row("Two requests sent at once", "9112 9.3.2", "206 0-9; 206 10-19")
async def pipelined(bench: Bench) -> str:
    thing = bench.has()
    connection = await Connection.to(bench.port)
    try:
        connection.send(bench.raw("Range: bytes=0-9") + bench.raw("Range: bytes=10-19"))
        return "; ".join([shown(await connection.receive(), thing) for _ in range(2)])
    finally:
        connection.close()


# --- keys ----------------------------------------------------------------------------------------------------------


def _path(what: str, rfc: str, path: str) -> None:
    """Measure a request with this path, in which `{name}` is the row's key."""

    async def experiment(bench: Bench) -> str:
        response = await bench.fetch(path=path.format(name=bench.name))
        targets = dict.fromkeys(request.target.partition("?")[0] for request in bench.counted())
        if not targets:
            return f"{shown(response)} itself"
        paths = [f"`{target.removeprefix('/bench').replace(bench.name, 'n')}`" for target in targets]
        return f"asks for {', '.join(paths)}"

    KEYS.row(what, rfc)(experiment)


_path("`/a/../n`", "3986 5.2.4", "/a/../{name}")
_path("`/a/%2e%2e/n`", "3986 6.2.2.3", "/a/%2e%2e/{name}")
_path("`/../../n`", "3986 5.2.4", "/../../{name}")
_path("`/n//b`", "3986 3.3", "/{name}//b")
_path("`/n%2Fb`", "3986 2.2", "/{name}%2Fb")
_path("`/n%00b`", "3986 7.3", "/{name}%00b")
_path("`/n%ff`, no UTF-8", "3986 2.5", "/{name}%ff")
_path("`/n%zz`, no escape", "3986 2.1", "/{name}%zz")
_path("`/n+b`", "3986 2.2", "/{name}+b")
_path("`/n%20%C3%A4`", "3986 2.1", "/{name}%20%C3%A4")


@KEYS.row("`/%41n` after `/An`", "3986 6.2.2.2")
async def same_name(bench: Bench) -> str:
    thing = bench.has(name=f"A{bench.name}")
    await bench.warmed(thing)
    return await bench.summary(thing=thing, path=f"/%41{bench.name}")


@KEYS.row("`/n?utm=1` after `/n`", "9111 2")
async def query(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    return await bench.summary(thing=thing, path=f"/{bench.name}?utm=1")


@KEYS.row("`/n?versionId=1` after `/n`, which has version 2", "S3 GetObject")
async def version_id(bench: Bench) -> str:
    thing = bench.has()
    thing.version = 2
    await bench.warmed(thing)
    response = await bench.fetch(path=f"/{bench.name}?versionId=1")
    version = {1: "the old", 2: "the new"}.get(thing.version_of(response.get("ETag") or "") or 0, "no")
    return f"{shown(response, thing)}, {version} version"


@KEYS.row("`?response-content-disposition=attachment`, allowed on its mount", "S3 GetObject")
async def overrides(bench: Bench) -> str:
    thing = bench.has(name=f"overrides/{bench.name}")
    await bench.warmed(thing)
    bench.counted()
    response = await bench.fetch(path=f"/overrides/{bench.name}?response-content-disposition=attachment")
    disposition = response.get("Content-Disposition")
    return f"{'no Content-Disposition' if disposition is None else disposition}, {cost(bench.counted())}"


# --- browsers and diagnostics --------------------------------------------------------------------------------------


def _named(response: Response, *names: str) -> str:
    return ", ".join(name for name in names if response.get(name) is not None) or "none"


@BROWSERS.row("CORS fields of a GET from another origin", "Fetch 3.2")
async def cors(bench: Bench) -> str:
    thing = bench.has()
    response = await bench.fetch("Origin: https://app.example")
    names = ("Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Timing-Allow-Origin")
    assert thing.size
    return _named(response, *names).replace("Access-Control-", "")


@BROWSERS.row("A playlist that S3 calls `binary/octet-stream`: `.m3u8`", "9110 8.3")
async def media_type(bench: Bench) -> str:
    thing = bench.has(name=f"{bench.name}.m3u8")
    thing.fields["Content-Type"] = "binary/octet-stream"
    return (await bench.fetch(path=f"/{thing.name}")).get("Content-Type") or "none"


@BROWSERS.row("`/site/`, where there is `/site/index.html`", "")
async def index(bench: Bench) -> str:
    thing = bench.has(name=f"site/{bench.name}/index.html")
    return shown(await bench.fetch(path=f"/site/{bench.name}/"), thing)


@BROWSERS.row("`/site/folder`, where there is `/site/folder/index.html`", "9110 15.4.9")
async def folder(bench: Bench) -> str:
    bench.has(name=f"site/{bench.name}/index.html")
    response = await bench.fetch(path=f"/site/{bench.name}")
    location = response.get("Location")
    return shown(response) + ("" if location is None else f" to {location.replace(bench.name, 'folder')}")


@BROWSERS.row("`Accept-Encoding: br`, where there is `app.js.br`", "9110 12.5.3")
async def precompressed(bench: Bench) -> str:
    name = f"site/{bench.name}.js"
    for each in (name, f"{name}.br"):
        bench.has(name=each).fields["Content-Type"] = "text/javascript"
    response = await bench.fetch("Accept-Encoding: gzip, br", path=f"/{name}")
    return f"{response.get('Content-Encoding') or 'plain'}, {_named(response, 'Vary')}".replace(", none", "")


@BROWSERS.row("Error for a browser: type of a 404's body", "9110 12.5.1")
async def error_type(bench: Bench) -> str:
    return await _error_type(bench, "Accept: text/html,*/*;q=0.8")


@BROWSERS.row("Error for a program (`Accept: */*`): type of a 404's body", "9110 12.5.1")
async def error_type_plain(bench: Bench) -> str:
    return await _error_type(bench, "Accept: */*")


async def _error_type(bench: Bench, accept: str) -> str:
    response = await bench.fetch(accept)
    note = " with the bucket's name" if b"<BucketName>" in response.body else ""
    return f"{response.get('Content-Type') or 'none'}{note}"


DIAGNOSTICS = ("Cache-Status", "Age", "Via", "X-Cache", "X-Varnish", "Server-Timing")


@BROWSERS.row("Diagnostic fields of a miss", "9211 2")
async def diagnostics_miss(bench: Bench) -> str:
    bench.has()
    return _named(await bench.fetch(), *DIAGNOSTICS)


@BROWSERS.row("Diagnostic fields of a hit", "9211 2; 9111 5.1")
async def diagnostics_hit(bench: Bench) -> str:
    await bench.warmed(bench.has())
    return _named(await bench.fetch(), *DIAGNOSTICS)


@BROWSERS.row("Diagnostic fields of a 404", "9211 2")
async def diagnostics_absent(bench: Bench) -> str:
    return _named(await bench.fetch(), *DIAGNOSTICS)


@BROWSERS.row("`Cache-Status` of miss, hit, 400", "9211 2")
async def cache_status(bench: Bench) -> str:
    thing = bench.has()
    statuses = [(await bench.fetch()).get("Cache-Status")]
    await bench.settle()
    statuses += [(await bench.fetch()).get("Cache-Status"), (await bench.fetch(path="/%zz")).get("Cache-Status")]
    assert thing.size
    return (
        ", ".join(f"`{re.sub('ttl=[0-9]+', 'ttl=N', each.partition('; ')[2])}`" for each in statuses if each) or "none"
    )


@BROWSERS.row("S3's `x-amz-request-id` and `Server` reach the client", "")
async def leaks(bench: Bench) -> str:
    bench.has()
    response = await bench.fetch()
    server = "Server" if response.get("Server") == "AmazonS3" else ""
    return ", ".join(filter(None, (_named(response, "x-amz-request-id").replace("none", ""), server))) or "no"
