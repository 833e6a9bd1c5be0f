"""Edges between the clients and bucketfront: caches, balancers and servers that end TLS."""

import contextlib
import gzip
import http.client
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bucketfront_process import Running
from case import Case
from certificates import localhost_certificate
from edge_servers import CACHES, KINDS, Edge, running
from edge_site import DEADLINE_S, PAGE, POLL_S, Outage, outages_of, seen_by_bucketfront, through, until
from fakes import object_bytes
from programs import Program, installed, run
from site_under_test import Origin, Response, Site

MIB = 1 << 20
TRIES = 4
EVERY = tuple(KINDS)
WITH_TLS = [name for name in EVERY if KINDS[name].has_tls]

Edges = Callable[[str], Edge]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def edges(
    shared_bucketfront: Running, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edges]:
    """Return a function that starts an edge of a name at its first call, in front of the shared bucketfront."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Edge] = {}

        def edge(name: str) -> Edge:
            if name not in started:
                folder = tmp_path_factory.mktemp("edge")
                started[name] = stack.enter_context(running(name, shared_bucketfront.url, folder, certificate))
            return started[name]

        yield edge


def part_of(response: Response, data: bytes, first: int, last: int) -> bool:
    """Return whether it is just that part of the object."""
    expected = f"bytes {first}-{last}/{len(data)}"
    found = response.status, response.fields["Content-Range"], response.body
    return found == (206, expected, data[first : last + 1])


@pytest.mark.parametrize("name", EVERY)
def test_reads(name: str, edges: Edges, site: Site, case: Case) -> None:
    """Parts, the whole, HEAD and conditions through an edge are those of the object, and cost it once (I1, I3)."""
    edge = edges(name)
    case.of(edge.program, "ranges, the whole, HEAD, conditions")
    data = object_bytes(3 * MIB + 77)
    size = len(data)
    site.store("film", data, CacheControl="max-age=600")
    at = through(edge, site)

    def is_right(fields: dict[str, str], first: int, last: int) -> bool:
        response = at.send("GET", "film", fields)
        is_whole = name == "HAProxy" and (response.status, response.body) == (200, data)
        return is_whole or part_of(response, data, first, last)

    if name == "HAProxy":
        case.cannot("Once it has cached an object, ranges of it get all of it, with 200.")
    if name == "Squid":
        case.cannot("A range beyond the end of what it has cached gets all of the object, with 200.")
    for _ in range(2):  # the second time from the cache of the edge, if it has one
        assert is_right({"Range": f"bytes={2 * MIB}-{2 * MIB + 99}"}, 2 * MIB, 2 * MIB + 99)
        assert is_right({"Range": "bytes=-77"}, size - 77, size - 1)
        assert is_right({"Range": "bytes=0-"}, 0, size - 1)
        whole = at.send("GET", "film")
        assert (whole.status, whole.body) == (200, data)
        head = at.send("HEAD", "film")
        assert (head.status, head.fields["Content-Length"], head.body) == (200, str(size), b"")
        etag = whole.fields["ETag"]
        assert etag == head.fields["ETag"] == site.send("HEAD", "film").fields["ETag"]
        unchanged = at.send("GET", "film", {"If-None-Match": etag})
        assert (unchanged.status, unchanged.body) == (304, b"")
        beyond = at.send("GET", "film", {"Range": f"bytes={size}-"})
        ignored = name in ("HAProxy", "Squid") and (beyond.status, beyond.body) == (200, data)
        assert ignored or beyond.status == 416
        assert is_right({"Range": "bytes=0-9", "If-Range": etag}, 0, 9)
        other = at.send("GET", "film", {"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (other.status, other.body) == (200, data)
    case.count(site)
    assert case.sent <= 1.1 * size


@pytest.mark.parametrize("name", CACHES)
def test_revalidates(name: str, edges: Edges, site: Site, case: Case) -> None:
    """An edge asks again by the ETag once its copy is stale, and bucketfront responds with 304 (I7)."""
    edge = edges(name)
    case.of(edge.program, "revalidation of a copy after its lifetime")
    data = object_bytes(100_000)
    site.store("list", data, CacheControl="max-age=1")
    at = through(edge, site)
    expected = ("GET", 304)
    if name == "HAProxy":
        case.cannot("It never revalidates: it fetches the whole object again.")
        expected = ("GET", 200)
    assert at.send("GET", "list").body == data
    until(lambda: seen_by_bucketfront(site, "list") == [("GET", 206 if "slices" in name else 200)], "the first request")

    def is_revalidated() -> bool:
        response = at.send("GET", "list")
        assert (response.status, response.body) == (200, data)
        return expected in seen_by_bucketfront(site, "list")[1:]

    until(is_revalidated, "a revalidation")
    case.count(site)
    assert case.sent <= len(data)


def test_live_playlist(edges: Edges, site: Site, case: Case) -> None:
    """A change made at S3 shows behind edges after at most a lifetime here and one there (I7)."""
    lifetime_s, rounding_s = 2, 1
    fronts = {name: edges(name) for name in ("nginx", "HAProxy", "Squid")}
    case.of(Program(", ".join(fronts), "", ""), "a change of an object with `max-age=2`, made at S3")
    late = set(fronts)
    for number in range(TRIES):  # a process that another one delays makes a change late
        waiting = {f"{name}-{number}.m3u8": through(fronts[name], site) for name in late}
        late = {
            name.partition("-")[0]
            for name, after in seconds_until_new(site, waiting, lifetime_s).items()
            if after > 2 * lifetime_s + rounding_s
        }
        if not late:
            return
    pytest.fail(f"late each time: {late}")


def seconds_until_new(site: Site, waiting: dict[str, Site], lifetime_s: int) -> dict[str, float]:
    """Change each playlist at S3, and return how many seconds later the last request for its old version was sent."""
    fields = {"CacheControl": f"max-age={lifetime_s}", "ContentType": "application/vnd.apple.mpegurl"}
    for name in waiting:
        site.store(name, b"old", **fields)
        assert site.send("GET", name).body == b"old"
        site.store(name, b"new", **fields)
    changed = time.monotonic()
    time.sleep(1.5)  # The edges fetch what bucketfront may still serve for a moment.
    last, left = dict.fromkeys(waiting, 0.0), dict(waiting)
    while left:
        for name, at in list(left.items()):
            asked = time.monotonic() - changed
            if at.send("GET", name).body == b"new":
                del left[name]
            else:
                last[name] = asked
            assert asked < DEADLINE_S, f"{name} is still old"
        time.sleep(POLL_S)
    return last


@pytest.mark.parametrize("name", CACHES)
def test_age(name: str, edges: Edges, site: Site, case: Case) -> None:
    """A copy at an edge is as old as bucketfront said, and grows older (RFC 9111 section 4.2.3)."""
    edge = edges(name)
    case.of(edge.program, "`Age` of a copy")
    site.store("page", b"text" * 1000, CacheControl="max-age=600")
    until(lambda: int(site.send("GET", "page").fields["Age"]) >= 1, "an age at bucketfront")
    at = through(edge, site)
    fetched = at.send("GET", "page").fields["Age"]
    if name == "HAProxy":
        case.cannot("The response that fills its cache has no `Age`.")
        assert fetched is None
    else:
        assert int(fetched) >= 1
    copy = int(at.send("GET", "page").fields["Age"])
    assert copy >= 1
    if name.startswith("nginx"):
        case.cannot("Its copies keep the `Age` with which they came.")
        assert int(at.send("GET", "page").fields["Age"]) == copy
    else:
        until(lambda: int(at.send("GET", "page").fields["Age"]) > copy, "a greater age")


@pytest.mark.parametrize("name", EVERY)
def test_overwrite(name: str, edges: Edges, site: Site, case: Case) -> None:
    """No response of an edge mixes two versions, and once a lifetime is over it has the new one (I1, I7)."""
    edge = edges(name)
    case.of(edge.program, "an overwrite of what it has cached in part")
    versions = {}
    at = through(edge, site)
    for seed in (1, 2):
        data = object_bytes(4 * MIB, seed)
        fields = {"Cache-Control": "max-age=1", "Content-Type": "video/mp4"}
        versions[site.send("PUT", "film", fields, data).fields["ETag"]] = data
        if seed == 1:
            assert at.send("GET", "film", {"Range": f"bytes=0-{MIB - 1}"}).body == data[:MIB]
    broken = 0

    def is_new() -> bool:
        nonlocal broken
        seen = []
        for ranges in ({}, {"Range": f"bytes={MIB + 5}-{2 * MIB}"}, {"Range": "bytes=0-99"}):
            try:
                response = at.send("GET", "film", ranges)
            except (http.client.HTTPException, ConnectionError):
                broken += 1
                seen.append("")
                continue
            content = versions[response.fields["ETag"]]
            found = response.fields["Content-Range"]
            first = int(found.partition("-")[0].removeprefix("bytes ")) if found else 0
            assert response.body == content[first : first + int(response.fields["Content-Length"])]
            seen.append(response.fields["ETag"])
        return seen == [list(versions)[1]] * 3

    until(is_new, "the new version")
    assert broken == 0 or name == "nginx with slices"
    if name == "nginx with slices":
        case.cannot("After an overwrite it cuts responses until all of its old slices are stale.")


@pytest.mark.parametrize("name", EVERY)
def test_overwrite_during_a_download(name: str, edges: Edges, site: Site, case: Case) -> None:
    """A download that an overwrite meets is the old version to its end, or is cut (I1)."""
    edge = edges(name)
    case.of(edge.program, "an overwrite in the middle of a download")
    old, new = object_bytes(12 * MIB, 1), object_bytes(12 * MIB, 2)
    site.store("film", old, CacheControl="max-age=600")
    target = urlsplit(through(edge, site).url_of("film"))
    connection = http.client.HTTPConnection(target.netloc, timeout=DEADLINE_S)
    connection.request("GET", target.path)
    response = connection.getresponse()
    begun = response.read(MIB)
    assert site.send("PUT", "film", {}, new).status == 201
    try:
        rest = response.read()
        is_whole = True
    except http.client.IncompleteRead as cut:
        rest, is_whole = cut.partial, False
    connection.close()
    assert old.startswith(begun + rest)
    assert is_whole == (len(begun + rest) == len(old))
    case.count(site)


UPLOADS = {"empty": b"", "small": b"text", "large": object_bytes(10 * MIB)}


@pytest.mark.parametrize("name", EVERY)
def test_put(name: str, edges: Edges, site: Site, case: Case, tmp_path: Path) -> None:
    """Uploads through an edge, with a length, in chunks, and on `Expect`, are stored as they were sent (I5, I8)."""
    edge = edges(name)
    case.of(edge.program, "`curl -T` with a length, chunked, with Expect; DELETE")
    curl = installed("curl")
    at = through(edge, site)
    for kind, data in UPLOADS.items():
        source = tmp_path / kind
        source.write_bytes(data)
        put = (curl.path, "-sSf", "-o", "response", "-T")
        run(*put, kind, at.url_of(f"{kind}-length"), folder=tmp_path)
        run(*put, kind, "-H", "Expect: 100-continue", at.url_of(f"{kind}-expect"), folder=tmp_path)
        run(*put, "-", at.url_of(f"{kind}-chunked"), folder=tmp_path, stdin=data)
        for way in ("length", "expect", "chunked"):
            assert site.stored(f"{kind}-{way}") == data, (kind, way)
            found = at.send("GET", f"{kind}-{way}")
            if name == "nginx with slices" and not data:
                case.cannot("A read of an empty object gets 416, because it always asks for a range.")
                assert found.status == 416
            else:
                assert found.body == data, (kind, way)
    assert at.send("DELETE", "small-length").status == 204
    assert site.stored("small-length") is None


@pytest.mark.parametrize("name", EVERY)
def test_read_after_put(name: str, edges: Edges, site: Site, case: Case) -> None:
    """A read through an edge after a write through it: the new version, or the old one until its lifetime is over."""
    edge = edges(name)
    case.of(edge.program, "a read after a PUT through it")
    at = through(edge, site)
    fields = {"Cache-Control": "max-age=3600"}
    assert at.send("PUT", "page", fields, b"old").status == 201
    assert at.send("GET", "page").body == b"old"
    assert at.send("PUT", "page", fields, b"new").status == 201
    assert site.send("GET", "page").body == b"new"
    found = at.send("GET", "page").body
    if name in ("nginx", "nginx with slices", "Varnish"):
        case.cannot("A PUT through it leaves its own copy: reads show the old version until its lifetime is over.")
        assert found in (b"old", b"new")
    else:
        assert found == b"new"


def begun_put(edge: Edge, path: str, way: str, data: bytes, *, is_whole: bool) -> socket.socket:
    """Begin a PUT on a connection of its own. The way is `length` or `chunked`, and half of the body may be missing."""
    target = urlsplit(edge.url)
    client = socket.create_connection((target.hostname or "", target.port or 0), timeout=DEADLINE_S)
    framing = f"Content-Length: {len(data)}" if way == "length" else "Transfer-Encoding: chunked"
    client.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
    body = data if way == "length" else f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n"
    client.sendall(body if is_whole else body[: len(body) // 2])
    return client


def puts(site: Site) -> list[str]:
    """Return the targets of bucketfront's PUTs to the origin."""
    return [seen.target for seen in site.requests() if seen.method == "PUT"]


@pytest.mark.parametrize("name", EVERY)
def test_client_that_closes_after_its_body(name: str, edges: Edges, site: Site, case: Case) -> None:
    """An upload that an edge has passed on is stored, although its client closes before the response (I8)."""
    edge = edges(name)
    case.of(edge.program, "PUT of a client that closes after its body")
    data = object_bytes(64 << 10)
    ways = ("chunked", "length")
    path = urlsplit(site.url).path
    with site.origin.log.held():
        with contextlib.ExitStack() as clients:
            for way in ways:
                clients.enter_context(begun_put(edge, f"{path}/{way}", way, data, is_whole=True))
            until(lambda: len(puts(site)) >= len(ways), "that both are passed on")
        # The edge notices it, and bucketfront what the edge does then. Without this time the test may see less.
        time.sleep(0.2)
    until(lambda: all(seen_by_bucketfront(site, way) for way in ways), "the end of both requests")
    for way in ways:
        assert seen_by_bucketfront(site, way) == [("PUT", 201)]
        assert site.stored(way) == data


@pytest.mark.parametrize("name", EVERY)
def test_client_that_leaves(name: str, edges: Edges, site: Site, case: Case) -> None:
    """An upload that its client breaks off leaves the old version, through an edge as well (I8)."""
    edge = edges(name)
    case.of(edge.program, "PUT of a client that leaves in the middle of its body")
    path = urlsplit(site.url).path
    data = object_bytes(MIB)
    reset = struct.pack("ii", 1, 0)
    for way in ("chunked", "length"):
        for end in ("closed", "reset"):
            site.store(f"{way}-{end}", b"old")
            with begun_put(edge, f"{path}/{way}-{end}", way, data, is_whole=False) as client:
                if end == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    if name == "Varnish":
        case.cannot("Without `std.cache_req_body` it ends a chunked upload in order when its client breaks it off.")
    assert through(edge, site).send("PUT", "next", {}, b"new").status == 201
    assert {name: site.stored(name) for name in site.names()} == {
        "chunked-closed": b"old",
        "chunked-reset": b"old",
        "length-closed": b"old",
        "length-reset": b"old",
        "next": b"new",
    }


@pytest.mark.parametrize("name", WITH_TLS)
def test_http2(name: str, edges: Edges, certificate: tuple[Path, Path], site: Site, case: Case, tmp_path: Path) -> None:
    """Clients that speak HTTP/2 to an edge read, seek and write through it, over one connection (I1, I8)."""
    edge = edges(name)
    case.of(edge.program, "HTTP/2 to the client: PUT, parallel ranges")
    curl = installed("curl")
    data = object_bytes(8 * MIB)
    (tmp_path / "source").write_bytes(data)
    url = f"{edge.tls_url}/{site.folder}/film"
    options = ("-sSf", "--http2", "--cacert", str(certificate[0]), "-w", r"%{http_version} %{num_connects}\n")
    put = run(curl.path, *options, "-o", "response", "-T", "source", url, folder=tmp_path)
    assert put.stdout == b"2 1\n"
    assert site.stored("film") == data
    parts = range(8)
    words = [(*options, "-r", f"{n * MIB}-{(n + 1) * MIB - 1}", "-o", f"part{n}", url, "--next") for n in parts]
    printed = run(curl.path, "-Z", *sum(words, ()), *options, "-o", "whole", url, folder=tmp_path).stdout
    assert sorted(printed.decode().splitlines()) == ["2 0"] * 8 + ["2 1"]
    assert b"".join((tmp_path / f"part{n}").read_bytes() for n in parts) == data
    assert (tmp_path / "whole").read_bytes() == data
    case.count(site)


@pytest.mark.parametrize("name", WITH_TLS)
def test_http2_client_that_leaves(
    name: str, edges: Edges, certificate: tuple[Path, Path], site: Site, case: Case, tmp_path: Path
) -> None:
    """An upload over HTTP/2 whose client is killed leaves the old version (I8)."""
    edge = edges(name)
    case.of(edge.program, "HTTP/2 to the client: PUT of a client that is killed")
    site.store("film", b"old")
    url = f"{edge.tls_url}/{site.folder}/film"
    command = (installed("curl").path, "-sS", "--http2", "--cacert", str(certificate[0]), "-T", "-", url)
    with (tmp_path / "output").open("wb") as output:
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    assert client.stdin is not None
    client.stdin.write(object_bytes(MIB))  # a pipe has 64 KiB, so the client has read most of it by then
    client.kill()
    client.wait()
    with contextlib.suppress(BrokenPipeError):
        client.stdin.close()
    assert through(edge, site).send("PUT", "next", {}, b"new").status == 201
    assert site.stored("film") == b"old"


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("Squid", "nginx with slices")])
def test_compression(name: str, edges: Edges, site: Site, case: Case) -> None:
    """What an edge compresses is the object once it is decoded, and conditions and ranges go on to work (I1)."""
    edge = edges(name)
    case.of(edge.program, "compression by the edge")
    data = b"".join(b"line %d of a text\n" % number for number in range(20_000))
    site.store("page.txt", data, ContentType="text/plain", CacheControl="max-age=600")
    at = through(edge, site)
    coded = {"Accept-Encoding": "gzip"}
    for _ in range(2):  # the second time from the cache of the edge, if it has one
        found = at.send("GET", "page.txt", coded)
        assert found.fields["Content-Encoding"] == "gzip"
        assert "accept-encoding" in found.fields["Vary"].lower()
        assert gzip.decompress(found.body) == data
        plain = at.send("GET", "page.txt")
        assert (plain.fields["Content-Encoding"], plain.body) == (None, data)
        part = at.send("GET", "page.txt", {**coded, "Range": "bytes=100-199"})
        is_coded = part.fields["Content-Encoding"] == "gzip"
        whole = found.body if is_coded else data
        if name == "Envoy":
            case.cannot("It compresses each range by itself, and gives the result the Content-Range of the object.")
            assert (part.status, gzip.decompress(part.body)) == (206, data[100:200])
        else:
            content = gzip.decompress(part.body) if is_coded and part.status == 200 else part.body
            assert content == (whole[100:200] if part.status == 206 else data)
        etag = found.fields["ETag"]
        if etag is None:
            continue
        assert at.send("GET", "page.txt", {**coded, "If-None-Match": etag}).status == 304
        resumed = at.send("GET", "page.txt", {**coded, "Range": "bytes=100-199", "If-Range": etag})
        if name in ("Caddy", "Traefik"):
            case.cannot("It keeps the ETag for what it compresses: a resumed download gets bytes of the plain object.")
            assert (resumed.status, resumed.body) == (206, data[100:200])
        else:
            assert (resumed.status, gzip.decompress(resumed.body)) == (200, data)


@pytest.fixture(scope="module")
def outages(
    origin: Origin, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Outage]:
    """Let all edges go through the same outages, because their copies take a second to become stale."""
    with contextlib.ExitStack() as stack:
        return outages_of(origin, certificate, tmp_path_factory, stack)


@pytest.mark.parametrize("name", EVERY)
def test_outage_of_s3(name: str, outages: Mapping[str, Outage], case: Case) -> None:
    """Without S3, clients of an edge get what is cached, an error that no cache keeps, and then the object (I13)."""
    KINDS[name].installed()
    seen = outages[name]
    case.of(seen.program, "an outage of S3")
    assert (seen.without_s3.status, seen.without_s3.body) == (200, PAGE)
    assert seen.missing_without_s3.status in (502, 503, 504)
    assert (seen.after.status, seen.after.body) == (200, PAGE)


@pytest.mark.parametrize("name", EVERY)
def test_outage_of_bucketfront(name: str, outages: Mapping[str, Outage], case: Case) -> None:
    """Without bucketfront, an edge that caches serves its stale copy, and any edge goes on after its restart."""
    KINDS[name].installed()
    seen = outages[name]
    case.of(seen.program, "an outage and a restart of bucketfront")
    if name in CACHES and name not in ("HAProxy", "Squid"):
        assert (seen.without_bucketfront.status, seen.without_bucketfront.body) == (200, PAGE)
    else:
        assert seen.without_bucketfront.status in (502, 503, 504)
    if name in ("HAProxy", "Squid"):
        case.cannot("It serves nothing stale: without bucketfront its clients get an error, also for what it has.")
    assert (seen.after.status, seen.after.body) == (200, PAGE)
