"""The bytes of a request target have exactly one S3 key, or are refused (I23)."""

from urllib.parse import unquote

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from rows import each_row
from ulid import ULID

from bucketfront.keys import percent_encode

KEYS = [
    "plain.txt",
    "a b/c d",
    "a+b",
    "a%2Fb",
    "a%20b",
    "100%",
    "a//b",
    "a///",
    "/leading",
    "folder/",
    "ü/日本語/🎬.mp4",
    "e\u0301",  # decomposed: another key than the next
    "\u00e9",
    "../up",
    "a/../b",
    "a/./b",
    "..",
    "q?x=1#y&z",
    "(it's) [a] {b} !$&*,;=:@",
    "back\\slash",
    '"quoted"<tag>',
    "tilde~|^`",
    "k" * 1024,
    "ü" * 512,
]


async def test_keys_round_trip(proxy: Proxy, s3: S3) -> None:
    """Each key that S3 accepts passes through the proxy unchanged, in either spelling (I23)."""
    for number, key in enumerate(KEYS):
        below, through = b"below %d" % number, b"through %d" % number
        path = "/" + percent_encode(key)
        s3.put(key, below)
        assert (await proxy.get(path)).body == below, key
        fully = "/" + "".join(f"%{octet:02x}" for octet in key.encode())
        again = await proxy.get(fully)
        assert (again.body, again.cache_status) == (below, "hit; ttl=300"), key
        assert (await proxy.request("PUT", path, body=through)).status == 201, key
        assert s3.get(key) == through, key
        assert (await proxy.get(path)).body == through, key
    assert sorted(s3.keys()) == sorted(KEYS)


@pytest.mark.parametrize("key", ["/evil.example/x", "//evil.example/x", "/a//b"])
async def test_location_names_no_host(proxy: Proxy, s3: S3, key: str) -> None:
    """A Location never begins with two slashes, and still leads to the same key (I23; RFC 3986 section 4.2)."""
    field = f'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n{key}\r\n'.encode()
    file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n%d\r\n--b--'
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    made = [
        await proxy.request("PUT", f"/{key}", body=b"0"),
        await proxy.request("POST", f"/upload/{key}", body=b"1"),
        await proxy.request("POST", "/upload", form, field + file % 2),
    ]
    for response in made:
        assert (response.status, response.json()) == (201, {"key": key})
        location = response.headers["Location"]
        assert location.startswith("/%2F")
        assert (await proxy.get(location)).body == s3.get(key)
    assert s3.keys() == [key]


@pytest.mark.parametrize("character", ["%01", "%1F", "%EF%BF%BE", "%EF%BF%BF"])
async def test_keys_that_xml_cannot_hold(proxy: Proxy, s3: S3, character: str) -> None:
    """No object of any size is created under such a key, because S3's response for a large one would be unreadable.

    An existing one is served.
    """
    target = f"/a{character}b"
    key = unquote(target[1:])
    form = f'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n{key}\r\n'
    form += '--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nnew\r\n--b--'
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": "0"}
    for response in (
        await proxy.request("PUT", target, {"Content-Length": str(9 << 20)}),
        await proxy.request("PUT", target, body=b"new"),
        await proxy.request("POST", f"/upload{target}", body=b"new"),
        await proxy.request("POST", f"/upload{target}", told),
        await proxy.request("POST", "/upload", {"Content-Type": "multipart/form-data; boundary=b"}, form.encode()),
    ):
        assert (response.status, "XML" in response.json()["error"]) == (400, True)
    assert proxy.relay.seen == []
    s3.put(key, b"old")
    assert (await proxy.get(target)).body == b"old"
    assert (await proxy.request("DELETE", target)).status == 204


async def test_plus_is_a_plus(proxy: Proxy, s3: S3) -> None:
    """In a path, '+' is no space (RFC 3986 section 2.2)."""
    s3.put("a+x", b"plus")
    s3.put("a x", b"space")
    assert (await proxy.get("/a+x")).body == b"plus"
    assert (await proxy.get("/a%2Bx")).cache_status.startswith("hit")
    assert (await proxy.get("/a%20x")).body == b"space"


async def test_query_is_not_part_of_the_key(proxy: Proxy, s3: S3) -> None:
    """The query is no part of the path, and does not split the cache (I25; RFC 3986 section 3.4)."""
    s3.put("x", b"data")
    await proxy.get("/x?v=1")
    assert (await proxy.get("/x?v=2")).cache_status.startswith("hit")


BAD_TARGETS = [
    "/%ff",  # not UTF-8
    "/%C3",
    "/a%ed%a0%80",  # a surrogate
    "/%",
    "/a%2",
    "/%zz",
    "/%00",
    "/a%00b",
    "/" + "k" * 1025,
    "/" + "%6b" * 1025,
    "/",  # the mount itself
    "",
    "a",
    "*",
    "/a#b",
]


async def test_bad_targets(proxy: Proxy) -> None:
    """A target without a key of at most 1024 bytes is a 400, and the origin gets no request (I23)."""
    for target in BAD_TARGETS:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert (await proxy.request(method, target)).status == 400, (method, target)
    assert proxy.relay.seen == []


@each_row("octets", [b"a\0b", b"a\x7fb", "ü".encode(), b"\xff", b"a\rb"])
async def test_raw_octets_that_no_url_has(proxy: Proxy, octets: bytes) -> None:
    """An octet that needs escaping is a 400 if it is raw, with the proxy's own response, and the connection closes
    (RFC 3986 section 2).
    """
    async with proxy.connection() as connection:
        await connection.send(b"GET /" + octets + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        response = await connection.response()
        assert response.status == 400
        assert response.headers["Cache-Status"].startswith("bucketfront; ")
        assert list(response.json()) == ["error"]
        assert await connection.rest() == b""
    assert proxy.relay.seen == []


async def test_absolute_form(proxy: Proxy, s3: S3) -> None:
    """Of an absolute target the path counts, never the host (I29; RFC 9112 section 3.2.2)."""
    s3.put("a/b", b"data")
    for target in ("http://elsewhere.test/a/b", "https://127.0.0.1:1/a/b?q", "HTTP://x:y@h/a%2Fb"):
        assert (await proxy.get(target)).body == b"data", target
    assert len(proxy.relay.seen) == 1


async def test_longest_mount_wins(start: StartProxy, s3: S3) -> None:
    """The mount with the longest matching path decides, with its own bucket, prefix and methods."""
    other = f"o-{ULID()}".lower()
    s3.client.create_bucket(Bucket=other)
    elsewhere = S3(s3.client, other)
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket},
            {"path": "/video/", "bucket": other, "prefix": "media/"},
            {"path": "/video/live/", "bucket": s3.bucket, "prefix": "live-", "methods": ["GET", "PUT"]},
        ]
    )
    s3.put("video", b"no slash")
    s3.put("x", b"root")
    s3.put("video/x", b"hidden")
    s3.put("live-x", b"live")
    elsewhere.put("media/x", b"video")
    elsewhere.put("media/live/x", b"hidden")
    for path, body in (("/x", b"root"), ("/video", b"no slash"), ("/video/x", b"video"), ("/video/live/x", b"live")):
        assert (await proxy.get(path)).body == body, path
    # Decoding comes first, so an escaped slash cannot slip past a mount.
    assert (await proxy.get("/video%2Flive%2Fx")).headers["Location"] == "/video/live/x"
    assert (await proxy.get("/video/live%2Fx")).headers["Location"] == "/video/live/x"
    assert (await proxy.request("PUT", "/video/x", body=b"new")).status == 405
    assert (await proxy.request("PUT", "/video/live/y", body=b"new")).headers["Location"] == "/video/live/y"
    assert s3.get("live-y") == b"new"
    assert elsewhere.keys() == ["media/live/x", "media/x"]


async def test_prefix_counts_towards_the_limit(start: StartProxy, s3: S3) -> None:
    """The 1024 bytes of a key include the mount's prefix."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "prefix": "p" * 24}])
    s3.put("p" * 24 + "k" * 1000, b"data")
    assert (await proxy.get("/" + "k" * 1000)).body == b"data"
    assert (await proxy.get("/" + "k" * 1001)).status == 400


async def test_no_mount(start: StartProxy, s3: S3) -> None:
    """A path below no mount is a 404 of the proxy, not one of S3."""
    proxy = await start(mounts=[{"path": "/files/", "bucket": s3.bucket}], uploads=None)
    for path in ("/x", "/", "/filesx/y", "/file", "//files"):
        response = await proxy.get(path)
        assert (response.status, response.json()) == (404, {"error": "no mount serves this path"}), path
    assert proxy.relay.seen == []


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast path", "ordinary path"])
async def test_a_mount_without_its_slash(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """The path of a mount without its slash redirects to the mount, unless another mount serves that path."""
    mounts = [
        {"path": "/files/ü/", "bucket": s3.bucket},
        {"path": "/other/", "bucket": s3.bucket},
        {"path": "/other/inner/", "bucket": s3.bucket},
        {"path": "/write/", "bucket": s3.bucket, "methods": ["PUT"]},
    ]
    proxy = await start(mounts=mounts, uploads=None, server={"fast_path": is_fast})
    for method in ("GET", "HEAD"):
        for path, location in (
            ("/files/%C3%BC", "/files/%C3%BC/"),
            ("/files/%c3%bc?a=b", "/files/%C3%BC/?a=b"),
            ("/other", "/other/"),
        ):
            for _ in range(2):
                response = await proxy.request(method, path)
                assert (response.status, response.headers["Location"], response.body) == (308, location, b"")
                assert response.cache_status == "fwd=bypass"
    for method, path in (("PUT", "/other"), ("POST", "/other"), ("DELETE", "/other"), ("GET", "/write")):
        assert (await proxy.request(method, path, body=b"x")).status == 404, method
    assert proxy.relay.seen == []
    s3.put("inner", b"an object")
    for _ in range(3):
        assert (await proxy.get("/other/inner")).body == b"an object"
        await proxy.settled()


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", "/ro/x", "GET, HEAD, OPTIONS"),
        ("DELETE", "/ro/x", "GET, HEAD, OPTIONS"),
        ("POST", "/ro/", "GET, HEAD, OPTIONS"),
        ("PATCH", "/x", "GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        ("PROPFIND", "/x", "GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        ("POST", "/x", "GET, HEAD, PUT, DELETE, OPTIONS"),  # POST goes to folders
    ],
)
async def test_method_not_allowed(start: StartProxy, s3: S3, method: str, target: str, allow: str) -> None:
    """A method that the path does not accept is a 405 with `Allow`, before any lookup (RFC 9110 section 15.5.6)."""
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket, "methods": ["GET", "HEAD", "PUT", "POST", "DELETE"]},
            {"path": "/ro/", "bucket": s3.bucket},
        ]
    )
    response = await proxy.request(method, target)
    assert (response.status, response.headers["Allow"]) == (405, allow)
    assert proxy.relay.seen == []


MISSPELLED = [
    ("/private%2Fa", "/private/a"),
    ("/%70rivate/a", "/private/a"),
    ("/privat%65/a%2fb?x=%61", "/private/a%2fb?x=%61"),  # what follows is a key, in any spelling
    ("http://elsewhere.test/%70rivate/%61", "/private/%61"),
    ("/priv%61te%2F", "/private/"),
    ("/%C3%BC%20x/m%40n/a", "/%C3%BC%20x/m@n/a"),  # '@' needs no escape
    ("/%c3%bc%20x/m@n/a", "/%C3%BC%20x/m@n/a"),
]


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast path", "ordinary path"])
async def test_one_spelling_of_a_mount(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """A path rule of a server in front cannot be evaded by escapes in the path of a mount: reads are redirected to its
    one spelling, and all else is a 400. Keys may have escapes (I23, I29).
    """
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    paths = ("/private/", "/ü x/m@n/", "/")
    proxy = await start(
        mounts=[{"path": path, "bucket": s3.bucket, "methods": methods} for path in paths],
        server={"fast_path": is_fast},
        uploads={"mount": "/private/"},
    )
    for key in ("a", "a/b", "/host/a"):
        s3.put(key, key.encode())
    for target, location in MISSPELLED:
        for method in ("GET", "HEAD"):
            response = await proxy.request(method, target)
            assert (response.status, response.headers.get("Location")) == (308, location), target
        for method in ("PUT", "DELETE", "OPTIONS"):
            response = await proxy.request(method, target, body=b"new" if method == "PUT" else None)
            assert (response.status, "needless escapes" in response.json()["error"]) == (400, True), (method, target)
    for target in ("/priv%61te/", "/priv%61te", "/priv%61te?delete", "/priv%61te/?delete", "/%75pload", "/uploa%64/x"):
        assert (await proxy.request("POST", target, body=b"new")).status == 400, target
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
    for method, target in (
        ("POST", "/%75pload"),
        ("POST", "/uploa%64/x"),
        ("HEAD", "/upload%2Fx"),
        ("PATCH", "/%75pload/x"),
    ):
        assert (await proxy.request(method, target, told)).status == 400, (method, target)
    signed = await proxy.request(
        "GET", "/%70rivate/a", {"Authorization": "AWS4-HMAC-SHA256 Credential=x/y/z/s3/aws4_request"}
    )
    assert signed.status == 400
    assert proxy.relay.seen == []
    for target, body in (
        ("/private/%61", b"a"),
        ("/private/a%2Fb", b"a/b"),
        ("/private/a%2fb", b"a/b"),
        ("/%C3%BC%20x/m@n/%61", b"a"),
        ("/%2Fhost/a", b"/host/a"),
        ("//host/a", b"/host/a"),
        ("/%61", b"a"),
    ):
        for _ in range(2):
            assert (await proxy.get(target)).body == body, target
            await proxy.settled()


async def test_a_mount_whose_path_looks_like_a_host(start: StartProxy, s3: S3) -> None:
    """Its one spelling names no host (I29; RFC 3986 section 4.2)."""
    proxy = await start(mounts=[{"path": "//x.test/", "bucket": s3.bucket, "methods": ["GET", "PUT"]}], uploads=None)
    made = await proxy.request("PUT", "/%2Fx.test/a", body=b"data")
    assert (made.status, made.headers["Location"]) == (201, "/%2Fx.test/a")
    assert (await proxy.get("//x.test/a")).headers["Location"] == "/%2Fx.test/a"
    assert (await proxy.get("/%2Fx.test/a")).body == b"data"


EVERY = ["GET", "HEAD", "PUT", "POST", "DELETE"]


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("*", "GET, HEAD, PUT, POST, DELETE"),
        ("/x", "GET, HEAD"),
        ("/x?delete", "GET, HEAD"),
        ("/?delete", "GET, HEAD"),  # the mount takes no DELETE
        ("/all/x", "GET, HEAD, PUT, POST, DELETE"),
        ("/all", "GET, HEAD, POST"),  # POST goes to /all/, and the others to an object of the mount above
        ("/all/in/?delete", "DELETE, POST"),
        ("/all/in?delete", "GET, HEAD, PUT, POST, DELETE"),
        ("/all/in/", "DELETE"),
        ("/form", "GET, HEAD, POST"),
        ("/upload", "GET, HEAD, POST"),
        ("/upload/", "GET, HEAD, POST"),
        ("/upload/x", "GET, HEAD, POST, PATCH, DELETE"),
    ],
)
async def test_methods_by_path(start: StartProxy, s3: S3, target: str, allow: str) -> None:
    """`Allow` lists the methods of each use of a path: objects, forms, DeleteObjects, uploads (RFC 9110 9.3.7)."""
    mounts = (("/", ["GET"]), ("/all/", EVERY), ("/all/in/", ["DELETE"]), ("/form/", ["POST"]))
    proxy = await start(
        mounts=[{"path": path, "bucket": s3.bucket, "methods": methods} for path, methods in mounts],
        uploads={"mount": "/all/"},
    )
    response = await proxy.request("OPTIONS", target)
    assert (response.status, response.headers["Allow"]) == (204, f"{allow}, OPTIONS")


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("/upload", "POST"),
        ("/upload/x", "POST, HEAD, PATCH, DELETE"),
        ("/form", "GET, HEAD, POST"),  # a GET is redirected to /form/
        ("/form/", "GET, HEAD, POST"),
        ("/delete", None),
        ("/delete?delete", "POST"),
        ("/none", None),
    ],
)
async def test_methods_of_a_path_below_no_mount(start: StartProxy, s3: S3, target: str, allow: str | None) -> None:
    """Without a mount for `/`, a path has what its slash and the upload route give it, and else it is a 404."""
    mounts = (("/form/", ["GET", "POST"]), ("/delete/", ["PUT", "DELETE"]))
    proxy = await start(
        mounts=[{"path": path, "bucket": s3.bucket, "methods": methods} for path, methods in mounts],
        uploads={"mount": "/form/"},
    )
    response = await proxy.request("OPTIONS", target)
    expected = (404, None) if allow is None else (204, f"{allow}, OPTIONS")
    assert (response.status, response.headers.get("Allow")) == expected
