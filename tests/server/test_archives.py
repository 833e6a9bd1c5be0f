"""Archives with bytes: out of one cache, into another, and never stale, of another version, or beyond the budget."""

import asyncio
import contextlib
import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import BLOCK, KIB, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned
from test_warm import FOREVER, is_hit
from wire import Response, connected, message

from bucketfront.admin import archives
from bucketfront.cache import Reader
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.errors import StoreError
from bucketfront.warm import archive, archive_import, heat
from bucketfront.warm.archive import ArchivedObject
from bucketfront.warm.archive_reader import ArchiveReader

BODY = pattern(3 * BLOCK + 5)
TAR = {"Content-Type": "application/x-tar"}


async def exported(proxy: Proxy, query: str = "") -> bytes:
    """Return an archive of what a proxy holds, which has its end."""
    async with connected(proxy.app.admin_address) as connection:
        await connection.send(message("GET", f"/api/v1/archive{query}"))
        head = await connection.head()
        assert head.status == 200
        found = dechunked(await connection.rest())
    assert archive.end_of(found) is not None
    return found


def dechunked(data: bytes) -> bytes:
    """Return the body of a chunked response as far as it came."""
    found = b""
    while data:
        length, _, data = data.partition(b"\r\n")
        count = int(length, 16)
        if not count:
            break
        found += data[:count]
        data = data[count + 2 :]
    return found


async def post(proxy: Proxy, content: bytes) -> Response:
    return await proxy.admin("POST", "/api/v1/import", content, TAR)


async def imported(proxy: Proxy, content: bytes) -> dict[str, Any]:
    """Import an archive, and return the report."""
    response = await post(proxy, content)
    assert response.status == 200, response.body
    report: dict[str, Any] = response.json()
    assert report == (await proxy.admin("GET", "/api/v1/import/last")).json()["last"]
    return report


def counts(report: dict[str, Any]) -> dict[str, int]:
    """Return the counts of a report that are not 0."""
    names = ("imported", "present", "changed", "gone", "not_stored", "outside", "failed", "damaged")
    return {name: report[name] for name in names if report[name]}


def unpacked(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive, as Python's own reader of tar files finds them."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


def made(*objects: tuple[ArchivedObject, bytes], block_size: int = BLOCK) -> bytes:
    """Return an archive of objects with all their bytes, whose checksums fit these."""
    parts = [archive.header(block_size, "test")]
    for number, (described, data) in enumerate(objects, 1):
        parts.append(archive.object_member(number, described))
        if data:
            sums = [zlib.crc32(data[at : at + block_size]) for at in range(0, len(data), block_size)]
            parts.append(archive.segment_member(number, 0, data, sums))
    return b"".join((*parts, archive.end(len(objects), sum(len(data) for _, data in objects))))


def described(s3: S3, key: str, **changes: Any) -> ArchivedObject:
    """Return the object as S3 has it, with some fields changed."""
    head = s3.head(key)
    fields = {
        "path": f"/{key}",
        "etag": head["ETag"],
        "size": head["ContentLength"],
        "last_modified": head["ResponseMetadata"]["HTTPHeaders"]["last-modified"],
        "stored": head["ContentLength"],
    }
    return ArchivedObject(**{**fields, **changes})


@pytest.fixture
async def other(start: StartProxy, tmp_path: Path) -> Proxy:
    """Another proxy of the same S3, with an empty cache."""
    return await start(cache={"dir": str(tmp_path / "other")})


async def fill(proxy: Proxy, s3: S3, **objects: bytes) -> None:
    for name, body in objects.items():
        s3.put(name, body, CacheControl=FOREVER)
        await proxy.get(f"/{name}")
    await proxy.settled()


async def test_no_body_comes_from_s3(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """What was a hit of one cache is a hit of the other. S3 gets one HEAD for each object, and no GET (I4, I7)."""
    await fill(proxy, s3, whole=BODY, small=b"data")
    s3.put("ranged", pattern(40 * BLOCK), CacheControl=FOREVER)
    part = {"Range": f"bytes={20 * BLOCK}-{20 * BLOCK + 9}"}
    await proxy.get("/ranged", **part)
    await proxy.settled()
    content = await exported(proxy)
    proxy.relay.reset()
    report = await imported(other, content)
    assert (report["state"], counts(report)) == ("done", {"imported": 3})
    assert [seen.method for seen in proxy.relay.seen] == ["HEAD"] * 3
    response = await other.get("/whole")
    assert (response.status, response.body, response.cache_status[:3]) == (200, BODY, "hit")
    assert (await other.get("/small")).body == b"data"
    ranged = await other.get("/ranged", **part)
    assert (ranged.status, ranged.body) == (206, pattern(40 * BLOCK)[20 * BLOCK :][:10])
    assert ranged.cache_status.startswith("hit")
    assert len(proxy.relay.seen) == 3
    assert not await is_hit(other, "/ranged", Range=f"bytes={2 * BLOCK}-{2 * BLOCK}")
    assert other.figures["flights"] == other.figures["flights_running"] + 1


async def test_it_is_a_tar_file(proxy: Proxy, s3: S3) -> None:
    """Other tools list and read an archive. No key is a name in it, and objects come in order of heat."""
    await fill(proxy, s3, a=b"1", b=b"22")
    s3.put("../../etc/x", b"333", CacheControl=FOREVER)
    proxy.clock.advance(10)
    await proxy.get("/..%2F..%2Fetc/x")
    await proxy.settled()
    content = await exported(proxy)
    names = list(unpacked(content))
    assert names[0] == "bucketfront.json"
    assert names[-1] == "end.json"
    assert all(set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz./") and ".." not in name for name in names)
    described = [json.loads(data) for name, data in unpacked(content).items() if name.endswith("/object.json")]
    assert described[0]["path"] == "/../../etc/x"
    assert {one["stored"] for one in described} == {1, 2, 3}


async def test_changed_and_gone(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """What was written or deleted at S3 since the export does not come back (I5, I7)."""
    await fill(proxy, s3, kept=b"kept", changed=b"old", gone=b"gone")
    content = await exported(proxy)
    s3.put("changed", b"new")
    s3.delete("gone")
    assert counts(await imported(other, content)) == {"imported": 1, "changed": 1, "gone": 1}
    assert (await other.get("/changed")).body == b"new"
    assert (await other.get("/gone")).status == 404
    assert await is_hit(other, "/kept")


async def test_a_write_before_the_import(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """A body that the importing proxy has written stays, although the archive has the version before (I5)."""
    await fill(proxy, s3, x=b"old")
    content = await exported(proxy)
    assert (await other.request("PUT", "/x", body=b"new")).status in (200, 201, 204)
    assert counts(await imported(other, content)) == {"changed": 1}
    assert (await other.get("/x")).body == b"new"


@pytest.mark.parametrize("event", ["write", "purge"])
async def test_an_invalidation_during_the_import(
    proxy: Proxy, other: Proxy, s3: S3, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write or a purge between S3's confirmation and the bytes prevails: these are not found any more (I5, I6)."""
    await fill(proxy, s3, x=BODY)
    content = await exported(proxy)
    supply = Reader.supply

    async def supply_late(reader: Reader, start: int, data: bytes) -> int:
        if event == "write":
            assert (await other.request("PUT", "/x", body=b"new")).status in (200, 201, 204)
        else:
            assert (await other.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')).json()["purged"] == 1
        return await supply(reader, start, data)

    monkeypatch.setattr(Reader, "supply", supply_late)
    assert "imported" not in counts(await imported(other, content))
    proxy.relay.reset()
    response = await other.get("/x")
    assert response.body == (b"new" if event == "write" else BODY)
    if event == "purge":
        assert response.cache_status.startswith("fwd=miss")


async def test_it_may_be_repeated(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """A repeated import finds what the first one has brought, and sends S3 nothing. It adds what is missing."""
    await fill(proxy, s3, a=BODY, b=BODY)
    content = await exported(proxy)
    await other.get("/b", Range="bytes=0-1")
    await other.settled()
    proxy.relay.reset()
    assert counts(await imported(other, content)) == {"imported": 2}
    assert [seen.method for seen in proxy.relay.seen] == ["HEAD"]
    assert counts(await imported(other, content)) == {"present": 2}
    assert len(proxy.relay.seen) == 1
    assert (await other.get("/b")).body == BODY


async def test_readers_of_what_is_imported(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """Requests during an import get the right bytes, and each block comes once (I1, I10)."""
    big = pattern(64 * BLOCK)
    await fill(proxy, s3, big=big)
    content = await exported(proxy)
    proxy.relay.reset()
    report, *responses = await asyncio.gather(imported(other, content), *(other.get("/big") for _ in range(4)))
    assert [response.body for response in responses] == [big] * 4
    assert report["state"] == "done"
    assert proxy.relay.body_bytes + report["bytes"] <= len(big) * 1.05 + BLOCK


async def test_the_hottest_come_first_and_it_stops(
    proxy: Proxy, start: StartProxy, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import into a smaller cache brings the most used objects, and stops. It pushes none of them out (I17)."""
    monkeypatch.setattr(archive_import, "PARALLEL", 1)  # else the last ones are not in order
    for number in range(12):
        await fill(proxy, s3, **{f"o{number:02}": pattern(8 * BLOCK, number + 1)})
        proxy.clock.advance(10)
    content = await exported(proxy)
    small = await start(cache={"dir": str(tmp_path / "small"), "max_size": 64 * BLOCK})
    report = await imported(small, content)
    assert report["state"] == "full"
    assert "max_size" in report["message"]
    assert 4 <= report["imported"] < 12
    for number in range(12 - report["imported"], 12):
        assert await is_hit(small, f"/o{number:02}")
    assert small.figures["evicted"] == 0


async def test_a_limit(proxy: Proxy, s3: S3) -> None:
    """An archive takes no more than its limit, has the most used objects, and has its end."""
    for number in range(6):
        await fill(proxy, s3, **{f"o{number}": pattern(2 * BLOCK, number + 1)})
        proxy.clock.advance(10)
    content = await exported(proxy, f"?limit={6 * BLOCK}")
    assert len(content) <= 6 * BLOCK
    paths = [json.loads(data)["path"] for name, data in unpacked(content).items() if name.endswith("object.json")]
    assert paths == ["/o5", "/o4"]


@pytest.mark.parametrize("block_size", [16 * KIB, 4 * BLOCK, 2 << 20])
async def test_another_block_size(proxy: Proxy, start: StartProxy, s3: S3, tmp_path: Path, block_size: int) -> None:
    """A cache with other blocks takes what fills whole ones (I2)."""
    body = pattern(3 * (1 << 20) + 77)
    await fill(proxy, s3, whole=body, small=BODY)
    s3.put("ranged", body, CacheControl=FOREVER)
    await proxy.get("/ranged", Range=f"bytes={5 * BLOCK}-{6 * BLOCK}")
    await proxy.settled()
    content = await exported(proxy)
    cache = {"dir": str(tmp_path / "other"), "block_size": block_size}
    other = await start(cache=cache, origin={"part_size": 2 * block_size})
    report = await imported(other, content)
    assert report["state"] == "done"
    assert report["imported"] >= 2
    proxy.relay.reset()
    for name in ("whole", "small"):
        assert (await other.get(f"/{name}")).body == (body if name == "whole" else BODY)
    assert proxy.relay.seen == []
    assert (await other.get("/ranged")).body == body


async def test_damage(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """Bytes that do not fit their checksum are left out and counted, and are fetched from S3 (I1)."""
    await fill(proxy, s3, x=BODY)
    content = bytearray(await exported(proxy))
    content[content.index(BODY[:64]) + 7] ^= 1
    report = await imported(other, bytes(content))
    assert (report["damaged"], report["state"]) == (1, "done")
    assert (await other.get("/x")).body == BODY


async def test_bytes_of_another_object(proxy: Proxy, s3: S3) -> None:
    """Bytes that S3's checksum contradicts are removed, also if they come again, and those of S3 are served (I1)."""
    s3.put("x", BODY, CacheControl=FOREVER)
    wrong = pattern(len(BODY), 99)
    for _ in range(3):
        report = await imported(proxy, made((described(s3, "x"), wrong)))
        assert counts(report) == {"failed": 1}
        assert "not what S3 says" in report["failures"][0]["reason"]
        assert (await proxy.get("/x")).body == BODY
        await proxy.settled()
        await proxy.admin("POST", "/api/v1/purge", b'{"all": true}')


async def test_the_metadata_is_that_of_s3(proxy: Proxy, s3: S3) -> None:
    """Of what an archive claims of a version, clients see nothing (I4)."""
    s3.put("x", b"data", ContentType="text/plain")
    claimed = described(s3, "x", headers=(("Content-Type", "text/html"), ("Cache-Control", "max-age=9999999")), uses=99)
    assert counts(await imported(proxy, made((claimed, b"data")))) == {"imported": 1}
    response = await proxy.get("/x")
    assert response.headers["Content-Type"] == "text/plain"
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"etag": '"other"'}, "changed"),
        ({"size": 5, "stored": 5}, "changed"),
        ({"last_modified": None}, "changed"),
        ({"last_modified": "Thu, 01 Jan 1970 00:00:00 GMT"}, "changed"),
        ({"version": "v"}, "changed"),
        ({"headers": (("Content-Encoding", "gzip"),)}, "changed"),
        ({"path": "/%ff"}, "outside"),
        ({"path": "/"}, "outside"),
        ({"path": "//x"}, "gone"),
    ],
)
async def test_another_version(proxy: Proxy, s3: S3, changes: dict[str, Any], count: str) -> None:
    """An object whose version, size or path differs in any field from what S3 has is not imported (I1)."""
    s3.put("x", b"data")
    claimed = described(s3, "x", **changes)
    assert counts(await imported(proxy, made((claimed, b"data" + bytes(claimed.size - 4))))) == {count: 1}


async def test_what_is_not_to_be_stored(start: StartProxy, s3: S3) -> None:
    """Objects of no mount, and those that a rule or their own field keeps out, are not imported. An empty one is."""
    proxy = await start(
        mounts=[{"path": "/m/", "bucket": s3.bucket}],
        uploads=None,
        freshness={"rules": [{"match": "ruled", "cache": False}]},
    )
    s3.put("empty", b"")
    s3.put("ruled", b"data")
    s3.put("private", b"data", CacheControl="private")
    found = [
        (described(s3, key, path=path), s3.get(key))
        for key, path in (("ruled", "/m/ruled"), ("private", "/m/private"), ("ruled", "/ruled"), ("empty", "/m/empty"))
    ]
    assert counts(await imported(proxy, made(*found))) == {"not_stored": 2, "outside": 1, "present": 1}


def _named(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = 4
    return info.tobuf() + b"data" + bytes(508)


def _of_type(kind: bytes) -> bytes:
    info = tarfile.TarInfo("00000001/object.json")
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf(tarfile.GNU_FORMAT)


def _sized(size: int) -> bytes:
    info = tarfile.TarInfo("bucketfront.json")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


HEADER = archive.header(BLOCK, "test")
OBJECT = archive.object_member(1, ArchivedObject(path="/x", etag='"e"', size=9 * BLOCK, stored=BLOCK))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off"),
        (bytes(10240), "cut off"),
        (b"x" * 512, "no valid head"),
        (b"garbage", "cut off"),
        (HEADER, "cut off"),
        (HEADER + archive.TAIL, "cut off"),
        (HEADER[:700], "cut off"),
        (HEADER + OBJECT + archive.end(2, 0), "its end names 2"),
        (archive._json_member("bucketfront.json", {"bucketfront-archive": 2, "block_size": BLOCK}), "has version 2"),
        (archive._json_member("bucketfront.json", {"bucketfront-archive": 1, "block_size": 0}), "block_size"),
        (archive._json_member("bucketfront.json", {"bucketfront-archive": 1, "block_size": 1 << 40}), "block_size"),
        (archive._member("bucketfront.json", b"[" * 60_000, {}), "malformed"),
        (archive._member("bucketfront.json", b"\xff", {}), "malformed"),
        (_sized(1 << 50), "are allowed"),
        (_sized(-5), "are allowed"),
        (_of_type(tarfile.SYMTYPE), "no file"),
        (_of_type(tarfile.GNUTYPE_LONGNAME), "no file"),
        (_of_type(tarfile.GNUTYPE_SPARSE), "no file"),
        (OBJECT, "does not begin"),
        (HEADER + _named("../../etc/passwd"), "no archive has"),
        (HEADER + _named("/etc/passwd"), "no archive has"),
        (HEADER + _named("00000001/" + "9" * 17), "not in their place"),
        (HEADER + archive.object_member(7, ArchivedObject(path="/x", etag="e", size=1)), "follows object 0"),
        (HEADER + archive._json_member("00000001/object.json", {"path": "x", "etag": "", "size": 1}), "path"),
        (HEADER + archive._json_member("00000001/object.json", {"path": "/x", "etag": "", "size": -1}), "size"),
        (HEADER + archive._member("00000001/object.json", b"x" * 100_000, {}), "too large"),
        (HEADER + OBJECT + archive.segment_member(1, 1, b"x", (0,)), "no blocks"),
        (HEADER + OBJECT + archive.segment_member(1, 9 * BLOCK, b"x", (0,)), "no blocks"),
        (HEADER + OBJECT + archive.segment_member(1, 0, b"", ()), "no blocks"),
        (HEADER + OBJECT + archive.segment_member(2, 0, bytes(BLOCK), (0,)), "not in their place"),
        (
            HEADER
            + OBJECT
            + archive.segment_member(1, BLOCK, bytes(BLOCK), (zlib.crc32(bytes(BLOCK)),))
            + archive.segment_member(1, 0, bytes(BLOCK), (zlib.crc32(bytes(BLOCK)),)),
            "not in their place",
        ),
        (
            HEADER + OBJECT + archive.segment_member(1, 0, bytes(2 * BLOCK), [zlib.crc32(bytes(BLOCK))] * 2),
            "more bytes than it declares",
        ),
        (HEADER + OBJECT + archive._member("00000001/" + "0" * 17, b"x", {archive.CHECKSUMS: "zz"}), "checksums"),
    ],
)
async def test_garbage(proxy: Proxy, s3: S3, content: bytes, reason: str) -> None:
    """A file that is no archive, or was changed on the way, is refused with its reason, and leaves nothing behind."""
    s3.put("x", bytes(9 * BLOCK))
    report = await imported(proxy, content)
    assert report["state"] == "failed"
    assert reason in report["message"]
    assert report["imported"] == 0
    assert proxy.figures["entries"] == 0
    assert counts(await imported(proxy, made((described(s3, "x"), bytes(9 * BLOCK))))) == {"imported": 1}


async def test_a_cut_archive(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """What came before a cut is imported, wherever the cut is, and the whole file brings the rest (I14)."""
    await fill(proxy, s3, a=BODY, b=pattern(20 * BLOCK, 7), c=b"data")
    content = await exported(proxy)
    for cut in range(0, content.rindex(b"end.json"), len(content) // 23):
        report = await imported(other, content[:cut])
        assert report["state"] == "failed"
        assert "cut off" in report["message"]
    report = await imported(other, content)
    assert report["state"] == "done"
    proxy.relay.reset()
    assert [(await other.get(f"/{name}")).body for name in "abc"] == [BODY, pattern(20 * BLOCK, 7), b"data"]
    assert proxy.relay.seen == []


@given(data=st.data())
def test_mutated_archives(data: st.DataObject) -> None:
    """A reader of an archive with any changed bytes yields right blocks, or raises BadArchive, and nothing else."""
    body = pattern(BLOCK + 100)
    content = bytearray(made((ArchivedObject(path="/x", etag='"e"', size=len(body), stored=len(body)), body)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    stream = io.BytesIO(bytes(content[: data.draw(st.integers(0, len(content)))]))

    async def read(count: int) -> bytes:
        return stream.read(count)

    async def read_all() -> None:
        async for part in ArchiveReader(read).content():
            if isinstance(part, archive.Segment):
                assert part.data == body[part.start :]

    with contextlib.suppress(archive.BadArchive):
        asyncio.run(read_all())


async def test_a_failing_origin(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """Without S3 nothing is imported, and the import ends early with the reason (I13)."""
    await fill(proxy, s3, **{f"o{number}": b"data" for number in range(30)})
    content = await exported(proxy)

    async def refuse(seen: Seen) -> bytes:
        return canned(403, "AccessDenied")

    proxy.relay.on_request = refuse
    report = await imported(other, content)
    assert report["state"] == "failed"
    assert "failed in a row" in report["message"]
    assert report["imported"] == 0
    assert other.figures["entries"] == 0


async def test_one_at_a_time(proxy: Proxy, s3: S3) -> None:
    """A second import or export gets a 503 while the first one runs, and may begin after its client has left."""
    await fill(proxy, s3, x=pattern(300 * BLOCK))
    async with connected(proxy.app.admin_address) as first, connected(proxy.app.admin_address) as reading:
        await first.send(message("POST", "/api/v1/import", {**TAR, "Content-Length": "9999"}) + HEADER)
        await until(lambda: proxy.app.transfers.last_import is not None)
        assert (await post(proxy, HEADER)).status == 503
        await reading.send(message("GET", "/api/v1/archive"))
        await reading.head()
        assert (await proxy.admin("GET", "/api/v1/archive")).status == 503
        reading.abort()
    await until(lambda: proxy.app.transfers.is_idle)
    assert (await imported(proxy, HEADER))["state"] == "failed"
    await exported(proxy)
    assert not any(entry.pins for entry in proxy.app.cache_assembly.entries.hot_entries())


async def test_refusals(proxy: Proxy, start: StartProxy, tmp_path: Path) -> None:
    """An import needs its type, which no page can send, and a cache that stores; an export a number as its limit."""
    assert (await proxy.admin("POST", "/api/v1/import", b"x")).status == 415
    assert (await proxy.admin("POST", "/api/v1/import", b"x", {**TAR, "Content-Encoding": "gzip"})).status == 415
    assert (await proxy.admin("GET", "/api/v1/archive?limit=0")).status == 400
    assert (await proxy.admin("HEAD", "/api/v1/archive")).headers["Content-Type"] == "application/x-tar"
    observing = await start(cache={"dir": str(tmp_path / "observing"), "mode": "observe"})
    assert (await post(observing, HEADER)).status == 409


async def test_a_failing_disk(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails during an export, the response breaks off, so that no client takes it for complete (I3)."""
    await fill(proxy, s3, x=BODY)

    async def fail(*_: object) -> bytes:
        raise StoreError("the disk failed")

    monkeypatch.setattr(FileStorage, "read_known", fail)
    async with connected(proxy.app.admin_address) as connection:
        await connection.send(message("GET", "/api/v1/archive"))
        await connection.head()
        assert not (await connection.rest()).endswith(b"0\r\n\r\n")


async def test_a_corrupt_block(proxy: Proxy, other: Proxy, s3: S3) -> None:
    """A block that the disk has damaged is not exported, and is verified before its next use (I15)."""
    await fill(proxy, s3, x=pattern(40 * BLOCK))
    (file,) = proxy.files
    with file.open("r+b") as damaged:
        damaged.seek(20 * BLOCK)
        damaged.write(b"damage")
    report = await imported(other, await exported(proxy))
    assert (report["damaged"], report["imported"]) == (0, 1)
    assert (await other.get("/x")).body == pattern(40 * BLOCK)
    assert (await proxy.get("/x")).body == pattern(40 * BLOCK)


async def test_an_export_is_no_use(proxy: Proxy, s3: S3) -> None:
    """An export changes no last access, sends S3 nothing, and leaves the entries that are in use in memory."""
    await fill(proxy, s3, a=b"1", b=b"2")
    before = [(held.key, held.accessed_at) for held in (await heat.page(proxy.app.cache, None)).held]
    proxy.relay.reset()
    proxy.clock.advance(100)
    await exported(proxy)
    assert [(held.key, held.accessed_at) for held in (await heat.page(proxy.app.cache, None)).held] == before
    assert proxy.relay.seen == []


async def test_it_survives_a_restart(proxy: Proxy, start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """What was imported is in the index, and a hit after a restart (I14)."""
    await fill(proxy, s3, x=BODY)
    content = await exported(proxy)
    other = await start(cache={"dir": str(tmp_path / "other")})
    await imported(other, content)
    await other.stop()
    again = await start(cache={"dir": str(tmp_path / "other")})
    response = await again.get("/x")
    assert (response.body, response.cache_status[:3]) == (BODY, "hit")


async def test_a_slow_client(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that stops coming ends its import after a while (I20)."""
    monkeypatch.setattr(archives, "RECEIVE_TIMEOUT_S", 0.05)
    async with connected(proxy.app.admin_address) as connection:
        await connection.send(message("POST", "/api/v1/import", {**TAR, "Content-Length": "9999"}) + HEADER)
        report = (await connection.response()).json()
    assert (report["state"], "no byte came" in report["message"]) == ("failed", True)
