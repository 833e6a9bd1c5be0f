"""Forms. Each file becomes an object byte for byte, and an incomplete form makes no shorter object (I8)."""

import asyncio
import random
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from behaviour import HONEST, Behaviour, OriginRequest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned
from rows import each_row
from uploads_under_test import BODY, OLD, PERCENTS, Setup, running
from wire import Response, chunked, connected, message

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MIB = 1 << 20
ULID = r"[0-9A-HJKMNP-TV-Z]{26}"
FIRST = BODY[-BLOCK:]


def part(name: str, content: bytes, filename: str | None = None, headers: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def post(proxy: Proxy, target: str, *parts: bytes, headers: dict[str, str] | None = None) -> Response:
    return await proxy.request("POST", target, TYPE | (headers or {}), form(*parts))


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    """A proxy whose keys show the file's name."""
    methods = ["GET", "HEAD", "PUT", "POST"]
    return await start(mounts=[{"path": "/", "bucket": s3.bucket, "methods": methods, "key_template": "{filename}"}])


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 * MIB])
async def test_a_file(proxy: Proxy, s3: S3, size: int) -> None:
    """One file is a 201 with key, Location and ETag as for any upload, and a GET returns the form's bytes."""
    body = pattern(size)
    response = await post(proxy, "/upload", part("file", body, "a b.bin", "Content-Type: text/x-test\r\n"))
    assert (response.status, response.json()) == (201, {"key": "a b.bin"})
    assert response.headers["Location"] == "/a%20b.bin"
    assert response.headers["ETag"] == s3.head("a b.bin")["ETag"]
    assert s3.get("a b.bin") == body
    got = await proxy.get("/a%20b.bin")
    assert (got.body, got.headers["Content-Type"]) == (body, "text/x-test")


async def test_several_files(proxy: Proxy, s3: S3) -> None:
    """Several files are a 201 with a list in their order.

    An empty choice is no file, and other fields have no effect.
    """
    response = await post(
        proxy,
        "/in/",
        part("policy", b"x" * 1000),
        part("files", b"one", "1.txt"),
        part("files", b"", ""),
        part("files", b"", "2.txt"),
        part("files", b"three", "", "Content-Type: application/octet-stream\r\n"),
    )
    assert response.status == 201
    told = response.json()
    assert [entry["key"] for entry in told[:2]] == ["in/1.txt", "in/2.txt"]
    assert re.fullmatch(f"in/{ULID}", told[2]["key"])
    assert [s3.get(entry["key"]) for entry in told] == [b"one", b"", b"three"]
    for entry in told:
        assert entry["etag"] == s3.head(entry["key"])["ETag"]
        assert (await proxy.get(entry["location"])).body == s3.get(entry["key"])
    assert not {"ETag", "Location"} & response.headers.keys()


async def test_keys(proxy: Proxy, s3: S3) -> None:
    """The form's key takes precedence, with `${filename}` as in S3. It is below the folder of the form's path."""
    response = await post(
        proxy,
        "/in/",
        part("key", "ü/${filename}".encode()),
        part("file", b"1", "C:\\fakepath\\a.txt"),
        part("file", b"2", "../../b.txt"),
        part("key", b"exact"),
        part("file", b"3", "c.txt"),
        part("file", b"4", "d.txt"),
    )
    assert [entry["key"] for entry in response.json()] == ["in/ü/a.txt", "in/ü/b.txt", "in/exact", "in/d.txt"]
    assert sorted(s3.keys()) == sorted(entry["key"] for entry in response.json())


async def test_a_form_to_a_key(proxy: Proxy, s3: S3) -> None:
    """A path that names a key is that file's name, and there cannot be two files."""
    response = await post(proxy, "/upload/a/x.txt", part("file", b"data", "y.bin"))
    assert (response.status, response.json()) == (201, {"key": "a/x.txt"})
    assert s3.get("a/x.txt") == b"data"
    response = await post(proxy, "/upload/z", part("file", b"1", "y"), part("file", b"2", "z"))
    assert (response.status, [one["key"] for one in response.json()["stored"]]) == (400, ["z"])
    assert (await post(proxy, "/upload/k", part("key", b"l"), part("file", b"1", "y"))).status == 400
    assert s3.get("z") == b"1"


async def test_what_a_form_says_of_its_files(proxy: Proxy, s3: S3) -> None:
    """Fields and the part's headers follow the same allow-list as a PUT's.

    The browsers' type for unknown files counts as no type (I25).
    """
    response = await post(
        proxy,
        "/upload",
        part("Cache-Control", b"max-age=5"),
        part("x-amz-meta-who", b"me"),
        part("x-amz-tagging", b"a=1"),
        part("acl", b"private"),
        part("x-amz-signature", b"0123"),
        part("file", b"data", "a.css", "Content-Type: application/octet-stream\r\n"),
        headers={"x-amz-meta-app": "web", "Cache-Control": "no-cache"},
    )
    assert response.status == 201
    stored = s3.head("a.css")
    assert stored["ContentType"] == "text/css; charset=utf-8"
    assert stored["CacheControl"] == "max-age=5"
    assert stored["Metadata"] == {"who": "me", "app": "web"}
    assert s3.client.get_object_tagging(Bucket=s3.bucket, Key="a.css")["TagSet"] == [{"Key": "a", "Value": "1"}]


@each_row(
    "field",
    [
        part("acl", b"public-read"),
        part("content-encoding", b"aws-chunked"),
        part("tagging", b"<Tagging/>"),
        part("x-amz-server-side-encryption-customer-algorithm", b"AES256"),
        part("X-Amz-Website-Redirect-Location", b"/b"),
    ],
)
async def test_fields_that_are_not_implemented(proxy: Proxy, s3: S3, field: bytes) -> None:
    """A field of S3's POST that would change what is stored, or for whom, refuses the file with a 501 (I8)."""
    s3.put("a", b"old")
    assert (await post(proxy, "/upload", field, part("file", b"new", "a"))).status == 501
    assert s3.get("a") == b"old"


@pytest.mark.parametrize("name", ["key", "Cache-Control", "x-amz-meta-who", "content-md5", "acl", "tagging"])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_field_behind_its_file(proxy: Proxy, s3: S3, name: str, before: int) -> None:
    """A field that no file follows was meant for the last file, which is refused by name, and is not stored (I8).

    Small and large files are refused alike, and those before it are in the response.
    """
    s3.put("last", b"old")
    for size in (4, 9 * MIB):
        first = [part("f", b"first", f"first{size}")] * before
        behind = [part("submit", b"send"), part(name, b"private" if name == "acl" else b"x/y")]
        response = await post(proxy, "/upload", *first, part("file", pattern(size), "last"), *behind)
        assert response.status == (501 if name == "tagging" else 400)
        assert "error" in response.json()
        assert told_as_stored(response) == [f"first{size}"] * before
        if name != "tagging":
            assert f"'{name.lower()}' comes after the file" in response.json()["error"]
    assert (s3.get("last"), len(s3.keys()), s3.unfinished) == (b"old", 1 + 2 * before, 0)


async def test_fields_without_a_meaning_may_follow(proxy: Proxy, s3: S3) -> None:
    """A button behind the file, as browsers send it, and an empty choice of a file have no effect."""
    response = await post(proxy, "/upload", part("file", b"data", "a"), part("submit", b"Send"), part("other", b"", ""))
    assert (response.status, s3.get("a"), s3.keys()) == (201, b"data", ["a"])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("application/x-www-form-urlencoded", {}),
        ("Application/X-WWW-Form-URLEncoded ; charset=UTF-8", {}),
        ("text/plain", {"Sec-Fetch-Mode": "navigate"}),
    ],
)
async def test_a_form_of_a_type_without_files(proxy: Proxy, s3: S3, kind: str, fields: dict[str, str]) -> None:
    """It is a 415 before its body is read, and nothing is stored: `curl -d a=b` sends no object."""
    for target, length in (("/upload", 0), ("/upload/x", 3), ("/", 100), ("/in/", 3)):
        async with proxy.connection() as connection:
            head = {"Content-Type": kind, "Content-Length": str(length), "Expect": "100-continue", **fields}
            await connection.send(message("POST", target, head))
            assert (await connection.response("POST")).status == 415
    assert proxy.relay.seen == []
    assert s3.keys() == []


@pytest.mark.parametrize("kind", ["text/plain", "text/plain;charset=UTF-8", "application/json", None])
async def test_other_bodies_of_a_post_are_objects(proxy: Proxy, s3: S3, kind: str | None) -> None:
    """A page or a program may send any other type, and a PUT any type at all."""
    headers = {} if kind is None else {"Content-Type": kind, "Sec-Fetch-Mode": "cors"}
    response = await proxy.request("POST", "/upload", headers, b"data")
    assert (response.status, s3.get(response.json()["key"])) == (201, b"data")
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await proxy.request("PUT", "/x", urlencoded, b"a=b")).status == 201
    assert s3.get("x") == b"a=b"


MD5 = {"data": "jXd/OF09/siBXSD3SWAm3A==", "other": "eV8yAuF6/ms99Mk33kXm0A=="}


async def test_checksums_of_a_file(proxy: Proxy, s3: S3) -> None:
    """A checksum is the part's own header, or a field before it that applies to one file. A mismatch stores nothing."""
    right, wrong = (f"Content-MD5: {MD5[name]}\r\n" for name in ("data", "other"))
    assert (await post(proxy, "/upload", part("file", b"data", "a", right))).status == 201
    assert (await post(proxy, "/upload", part("file", b"data", "b", wrong))).status == 400
    field = part("content-md5", MD5["data"].encode())
    assert (await post(proxy, "/upload", field, part("f", b"data", "c"), part("f", b"other", "d"))).status == 201
    assert sorted(s3.keys()) == ["a", "c", "d"]
    response = await post(proxy, "/upload", part("f", b"data", "e"), headers={"Content-MD5": MD5["data"]})
    assert response.status == 501  # of the whole form: by its end, files are stored


async def test_conditions(proxy: Proxy, s3: S3) -> None:
    """`If-None-Match: *` applies to each file. An existing one is a 412, after which no further file is stored."""
    s3.put("b", b"old")
    parts = [part("f", name.encode(), name) for name in "abc"]
    response = await post(proxy, "/upload", *parts, headers={"If-None-Match": "*"})
    assert (response.status, [one["key"] for one in response.json()["stored"]]) == (412, ["a"])
    assert (s3.keys(), s3.get("b")) == (["a", "b"], b"old")
    assert (await post(proxy, "/upload", *parts, headers={"If-Match": '"x"'})).status == 501


@each_row(
    "parts",
    [
        [],
        [part("file", b"", "")],
        [part("text", b"no file")],
        [part("key", b"../x"), part("file", b"data", "a")],
        [part("key", b"a/./b"), part("file", b"data", "a")],
        [part("key", b""), part("file", b"data", "a")],
        [part("key", b"\xff"), part("file", b"data", "a")],
        [part("key", b"x\0"), part("file", b"data", "a")],
        [part("key", b"x" * 1025), part("file", b"data", "a")],
        [part("key", b"x" * 9000), part("file", b"data", "a")],
        [*[part("x-amz-meta-a", b"x" * 8000)] * 9, part("file", b"data", "a")],
        [part("x-amz-storage-class", b"GLACIER"), part("file", b"data", "a")],
        [part("file", b"data", "a", "Content-Transfer-Encoding: base64\r\n")],
        [part("file", b"data", "a", "x: " + "y" * 9000 + "\r\n")],
        [part("file", b"data", "a", "".join(f"x{number}: y\r\n" for number in range(100)))],
        [*[part("ignored", b"", None, "x: " + "y" * 7000 + "\r\n")] * 99, part("file", b"data", "a")],
        [b"--" + BOUNDARY.encode() + b"\r\n\r\ndata\r\n"],
    ],
)
async def test_forms_that_are_refused(proxy: Proxy, s3: S3, parts: list[bytes]) -> None:
    """They are a 400, the connection closes, and nothing is stored (I8, I23, I24)."""
    async with proxy.connection() as connection:
        response = await connection.request("POST", "/in/", TYPE, form(*parts))
        assert response.status == 400
        assert "error" in response.json()
        assert await connection.rest() == b""
    assert s3.keys() == []


@pytest.mark.parametrize("kind", ["multipart/form-data", 'multipart/form-data; boundary=""'])
async def test_a_form_without_a_boundary(proxy: Proxy, kind: str) -> None:
    """It is a 400 before the body is read."""
    async with proxy.connection() as connection:
        head = {"Content-Type": kind, "Content-Length": "100", "Expect": "100-continue"}
        await connection.send(message("POST", "/upload", head))
        assert (await connection.response("POST")).status == 400
    assert proxy.relay.seen == []


@pytest.mark.parametrize("size", [10, 100_000, 9 * MIB])
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_form_that_ends_within_a_file(proxy: Proxy, s3: S3, size: int, is_chunked: bool) -> None:
    """By the framing the body is complete, by the form it is not. The old version stays (I8)."""
    s3.put("a", b"old")
    body = form(part("file", pattern(size), "a"))
    for cut in (len(BOUNDARY) + 6, len(BOUNDARY) + 7, size // 2 + len(BOUNDARY)):
        sent = body[:-cut]
        headers = TYPE | ({"Transfer-Encoding": "chunked"} if is_chunked else {})
        response = await proxy.request("POST", "/upload", headers, chunked(sent) if is_chunked else sent)
        assert response.status == 400
        assert s3.get("a") == b"old"
    assert s3.unfinished == 0


async def test_a_client_that_leaves_within_a_file(proxy: Proxy, s3: S3) -> None:
    """The file before it is stored whole, and the incomplete one is not (I8)."""
    body = form(part("file", b"first", "a"), part("file", bytes(20 * MIB), "b"))
    async with proxy.connection() as connection:
        await connection.send(message("POST", "/upload", {**TYPE, "Content-Length": str(len(body))}) + body[: 9 * MIB])
        await until(lambda: len(proxy.relay.seen) == 2)  # the second is begun once the first has ended
    await until(lambda: any(line["method"] == "POST" for line in proxy.log) and not proxy.relay.running)
    assert s3.keys() == ["a"]


async def test_failure_in_the_middle(proxy: Proxy, s3: S3) -> None:
    """The response has the reason and the files that are stored, and those stay."""

    async def refuse(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if seen.method == "PUT" and seen.target.endswith("/2.txt") else None

    proxy.relay.on_request = refuse
    parts = [part("f", str(number).encode(), f"{number}.txt") for number in (1, 2, 3)]
    response = await post(proxy, "/upload", *parts, headers={"Accept": "text/html"})
    assert (response.status, response.headers["Content-Type"]) == (403, "application/json")
    assert response.json() == {
        "error": "the origin denied access",
        "stored": [{"key": "1.txt", "location": "/1.txt", "etag": s3.head("1.txt")["ETag"]}],
    }
    assert s3.keys() == ["1.txt"]


@pytest.fixture
async def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    """A proxy in front of a chaos origin, which has an old version of each file of `three`.

    The cache has it as well.
    """
    async with running(tmp_path, monkeypatch) as made:
        for name in "abc":
            made.origin.store_bytes(name, OLD, {})
            assert (await made.request("GET", target=f"/{name}")).body == OLD
        yield made


def three(second: bytes) -> bytes:
    """Return a form with the files a, b and c."""
    contents = {"a": FIRST, "b": second, "c": b"the third"}
    return form(part("key", b"${filename}"), *(part("file", content, name) for name, content in contents.items()))


def told_as_stored(response: Response) -> list[str]:
    return [one["key"] for one in response.json().get("stored", [])]


@pytest.mark.parametrize("second", [BODY[:BLOCK], BODY], ids=["put", "parts"])
@pytest.mark.parametrize("early_at", [0, BLOCK // 2, None], ids=["before", "within", "after"])
@pytest.mark.parametrize(("status", "told"), [(403, 403), (500, 502), (503, 503)])
async def test_s3_refuses_the_second_file(
    setup: Setup, second: bytes, early_at: int | None, status: int, told: int
) -> None:
    """S3 refuses before the second file's body, within it or after it.

    The first file is stored and in the response, the second is the old one, S3 gets no request for the third, and
    nothing leaks (I8, I9, I12).
    """
    refusal = Behaviour(status=status, early_at=early_at)
    setup.origin.script = lambda asked: refusal if (asked.method, asked.key) == ("PUT", "b") else HONEST
    response = await setup.request("POST", three(second), "/upload", TYPE)
    assert (response.status, told_as_stored(response)) == (told, ["a"])
    assert not [asked for asked in setup.origin.requests if (asked.method, asked.key) == ("PUT", "c")]
    for name, content in (("a", FIRST), ("b", OLD), ("c", OLD)):
        await setup.is_whole(content, target=f"/{name}")
    await setup.at_rest()


@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize(("second", "step"), [(BODY[:BLOCK], "PUT"), (BODY, "POST")], ids=["put", "parts"])
async def test_a_lost_answer_within_a_form(setup: Setup, second: bytes, step: str, with_reset: bool) -> None:
    """S3 stores the second file and its response is lost.

    A file in parts is found there. Otherwise the client gets a 502 without that file, and reads go to S3 (I9).
    """
    is_found = step == "POST"
    lost = Behaviour(cut_at=0, with_reset=with_reset)

    def script(asked: OriginRequest) -> Behaviour:
        is_begun = asked.line.endswith("?uploads")
        return lost if (asked.method, asked.key) == (step, "b") and not is_begun else HONEST

    setup.origin.script = script
    response = await setup.request("POST", three(second), "/upload", TYPE)
    if is_found:
        assert (response.status, [one["key"] for one in response.json()]) == (201, ["a", "b", "c"])
    else:
        assert (response.status, told_as_stored(response)) == (502, ["a"])
    for name, content in (("a", FIRST), ("b", second), ("c", b"the third" if is_found else OLD)):
        await setup.is_whole(content, target=f"/{name}")
    await setup.at_rest()


@pytest.mark.long
@pytest.mark.parametrize("size", [BLOCK, len(BODY)])
async def test_a_client_that_is_reset_within_a_form(setup: Setup, size: int) -> None:
    """After any share of the form, an incomplete file is the old version, each file is whole, and nothing leaks (I5,
    I8, I12).
    """
    field = part("key", b"${filename}")
    for percent in PERCENTS:
        made = random.Random(percent)
        contents = {"a": made.randbytes(BLOCK), "b": made.randbytes(size), "c": made.randbytes(BLOCK)}
        files = {name: part("file", content, name) for name, content in contents.items()}
        before = {name: setup.origin.stored(name) for name in contents}
        body = form(field, *files.values())
        sent = body[: len(body) * percent // 100]
        async with connected(setup.app.address) as client:
            await client.send(message("POST", "/upload", {**TYPE, "Content-Length": str(len(body))}) + sent)
            await until(lambda: not client.unsent)
            client.abort()
        await setup.at_rest()
        end = len(field) + len(f"--{BOUNDARY}")
        for name, content in contents.items():
            end += len(files[name])
            await setup.is_whole(before[name], *[content] * (len(sent) >= end), target=f"/{name}")


async def test_two_files_of_one_name(proxy: Proxy, s3: S3) -> None:
    """The second would overwrite the first within one request. It is a 400, with the first file as stored."""
    response = await post(proxy, "/upload", part("f", b"1", "a"), part("f", b"2", "dir/a"))
    assert (response.status, [one["key"] for one in response.json()["stored"]]) == (400, ["a"])
    assert s3.get("a") == b"1"


async def test_max_size(start: StartProxy, s3: S3) -> None:
    """A file over the limit is a 413. A form that declares far more is refused before its body."""
    proxy = await start(uploads={"max_size": 1000})
    assert (await post(proxy, "/upload", part("f", bytes(1000), "a"))).status == 201
    assert (await post(proxy, "/upload", part("f", bytes(1001), "a"))).status == 413
    async with proxy.connection() as connection:
        head = {**TYPE, "Content-Length": str(2 * MIB), "Expect": "100-continue"}
        await connection.send(message("POST", "/upload", head))
        assert (await connection.response("POST")).status == 413
    assert len(s3.keys()) == 1


async def test_read_your_writes(proxy: Proxy, s3: S3) -> None:
    """A cached version of a file's key is not served after the form was stored (I5)."""
    s3.put("a", b"old")
    assert (await proxy.get("/a")).body == b"old"
    assert (await post(proxy, "/upload", part("f", b"new", "a"))).status == 201
    assert (await proxy.get("/a")).body == b"new"


async def test_put_stores_a_form_as_it_is(proxy: Proxy, s3: S3) -> None:
    """The body of a PUT is the object, whatever its type. moto takes a form apart, and that is found out (I8)."""
    body = form(part("f", b"data", "a"))
    assert (await proxy.request("PUT", "/x", TYPE, body)).status == 502
    assert s3.get("x") != body
    (put,) = [seen for seen in proxy.relay.seen if seen.method == "PUT"]
    assert put.headers["content-length"] == str(len(body))
    assert put.headers["content-type"] == TYPE["Content-Type"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="not run: curl is not installed")
async def test_curl(proxy: Proxy, s3: S3, tmp_path: Path) -> None:
    """`curl -F` as people use it: a file large enough that curl waits for a 100, and a second file."""
    body = pattern(3 * MIB)
    (tmp_path / "a b;ü.bin").write_bytes(body)
    command = ["curl", "-sS", "--max-time", "20", "-F", "key=in/${filename}", "-F", 'one=@"a b;ü.bin"']
    process = await asyncio.create_subprocess_exec(
        *command,
        "-F",
        "two=text;filename=t.txt",
        f"{proxy.address}/upload",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"in/t.txt" in out
    assert s3.get("in/a b;ü.bin") == body
    assert s3.get("in/t.txt") == b"text"


# --- forms of S3 -----------------------------------------------------------------------------------------------

SIGNATURES = {
    "v4": [
        *(
            part("x-amz-algorithm", b"AWS4-HMAC-SHA256"),
            part("x-amz-credential", b"A/20260101/us-east-1/s3/aws4_request"),
        ),
        *(part("x-amz-date", b"20260101T000000Z"), part("policy", b"e30="), part("x-amz-signature", b"0")),
    ],
    "v2": [part("AWSAccessKeyId", b"A"), part("policy", b"e30="), part("signature", b"0")],
}


@pytest.fixture
async def bucket(start: StartProxy, s3: S3) -> Proxy:
    """A proxy with a mount by which S3's clients find the bucket, beside one that only reads."""
    methods = ["GET", "PUT", "POST"]
    mounts = [{"path": "/", "bucket": s3.bucket}, {"path": "/b/", "bucket": s3.bucket, "methods": methods}]
    return await start(mounts=mounts, uploads=None)


def code_of(response: Response) -> str | None:
    assert response.headers["Content-Type"] == "application/xml"
    root = ET.fromstring(response.body)
    assert (root.tag, root.findtext("RequestId")) == ("Error", response.headers["x-amz-request-id"])
    return root.findtext("Code")


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize(("wanted", "status"), [(None, 204), ("200", 200), ("201", 201), ("204", 204), ("302", 204)])
async def test_a_presigned_post(bucket: Proxy, s3: S3, signature: str, wanted: str | None, status: int) -> None:
    """A form of S3 has S3's response, with the status that the form wants, with and without the bucket's slash."""
    fields = [*SIGNATURES[signature], part("key", b"in/a&b ${filename}"), part("Content-Type", b"text/x-test")]
    if wanted is not None:
        fields.append(part("success_action_status", wanted.encode()))
    for target, body in (("/b", b"first"), ("/b/", b"second")):
        response = await post(bucket, target, *fields, part("file", body, "c.txt"))
        etag = s3.head("in/a&b c.txt")["ETag"]
        assert (response.status, response.headers["ETag"]) == (status, etag)
        assert response.headers["Location"] == "/b/in/a%26b%20c.txt"
        assert response.headers["x-amz-request-id"]
        got = await bucket.get(response.headers["Location"])
        assert (got.body, got.headers["Content-Type"]) == (body, "text/x-test")
        if status != 201:
            assert response.body == b""
            continue
        root = ET.fromstring(response.body)
        assert (root.tag, response.headers["Content-Type"]) == ("PostResponse", "application/xml")
        assert {child.tag: child.text for child in root} == {
            "Location": "/b/in/a%26b%20c.txt", "Bucket": "b", "Key": "in/a&b c.txt", "ETag": etag,
        }  # fmt: skip


@pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
async def test_a_presigned_post_does_not_redirect(bucket: Proxy, s3: S3, name: str) -> None:
    """A form cannot make a link of ours lead to another site, so its redirect is a 204."""
    fields = [*SIGNATURES["v4"], part("key", b"x"), part(name, b"https://evil.example/")]
    response = await post(bucket, "/b", *fields, part("file", b"new", "c.txt"))
    assert (response.status, response.headers["Location"], s3.get("x")) == (204, "/b/x", b"new")


@pytest.mark.parametrize("body", [b"", b"new", b"x" * 100_000])
async def test_a_presigned_file_needs_no_name(bucket: Proxy, s3: S3, body: bytes) -> None:
    """In a form of S3 the field `file` is the file, as of a script that appends a text."""
    response = await post(bucket, "/b", *SIGNATURES["v4"], part("key", b"x"), part("file", body))
    assert (response.status, s3.get("x")) == (204, body)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([part("key", b"x")], 400, "MalformedPOSTRequest"),
        ([part("file", b"new", "c.txt")], 400, "MalformedPOSTRequest"),
        ([part("key", b"x"), *[part("file", b"new", "c.txt")] * 2], 400, "MalformedPOSTRequest"),
        ([part("key", b"${filename}"), part("file", b"a", "x"), part("f", b"b", "y")], 400, "MalformedPOSTRequest"),
        ([part("key", b"../x"), part("file", b"new", "c.txt")], 400, "MalformedPOSTRequest"),
        ([part("key", b"x"), part("file", b"new", "c.txt"), part("acl", b"private")], 400, "MalformedPOSTRequest"),
        ([part("key", b"x"), part("acl", b"public-read"), part("file", b"new", "c.txt")], 501, "NotImplemented"),
        ([part("key", b"x"), part("Content-MD5", b"A" * 22 + b"=="), part("file", b"n", "c")], 400, "BadDigest"),
    ],
)
async def test_errors_of_a_presigned_post(
    bucket: Proxy, s3: S3, signature: str, parts: list[bytes], status: int, code: str
) -> None:
    """An error of a form of S3 is S3's document, and nothing is stored (I8)."""
    response = await post(bucket, "/b", *SIGNATURES[signature], *parts, headers={"Accept": "text/html"})
    assert (response.status, code_of(response), s3.keys()) == (status, code, [])


@pytest.mark.parametrize("missing", ["policy", "x-amz-signature"])
async def test_a_form_without_a_policy_is_none_of_s3(bucket: Proxy, s3: S3, missing: str) -> None:
    """A form with some of S3's fields has the response of any form."""
    fields = [field for field in SIGNATURES["v4"] if f'"{missing}"'.encode() not in field]
    response = await post(bucket, "/b/", *fields, part("success_action_status", b"204"), part("f", b"new", "c.txt"))
    assert (response.status, s3.keys()) == (201, [response.json()["key"]])
    refused = await post(bucket, "/b/", *fields, part("key", b"../x"), part("f", b"new", "c.txt"))
    assert (refused.status, refused.headers["Content-Type"]) == (400, "application/json")
