"""One suite for every Origin: the fake one without faults, and the real one against three S3 servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from chaos_origin import ChaosOrigin
from fake_origin import FakeOrigin, FakeUploader
from fakes import object_bytes
from pydantic import SecretStr
from s3_servers import SERVERS as OF_OTHERS

from bucketfront.cache.origin import NotModified, Origin, OriginResponse
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import (
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchBucket,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    RangeUnsatisfiable,
)
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import listing
from bucketfront.s3.client import S3Origin
from bucketfront.s3.listing import Listed, list_objects
from bucketfront.s3.upload.uploader import Announce, S3Uploader, Written

pytestmark = pytest.mark.usefixtures("each_read_path")

FAKE = "fake"
CHAOS = "chaos"
SERVERS = ("moto_s3", pytest.param("seaweed", marks=pytest.mark.e2e))
# `make s3-servers` shows what holds in front of these.
OUTSIDE = tuple(
    pytest.param(name, marks=pytest.mark.compatibility) for name in OF_OTHERS if name not in ("moto", "SeaweedFS")
)
VERSIONED = "versioned-bucket"
CHUNK = 1 << 10
SIZE = 3 * CHUNK + 17
CONTENT = object_bytes(SIZE, seed=1)
OTHER = '"00000000000000000000000000000000"'

# S3 API, "Object key naming", and PITFALLS of signing: each is one name, taken literally (I23).
KEYS = (
    "a b",
    "a+b",
    "a%2Fb",
    "a%b",
    "a//b",
    "/lead",
    "x/",
    "../x",
    "a/./b",
    "ü/日本",
    "u\u0308",  # not the same name as "ü"
    "quo'te\"",
    "q?x=1#z",
    "(paren)",
    "a&b=c;d,e:f@g$h!*",
    "tab\tline",
    "back\\slash",
    "~tilde",
    "k" * 1024,
    "é" * 512,
)
# SeaweedFS stores objects as paths of files. It removes dot segments, merges slashes, treats a backslash as a slash and
# a trailing slash as a folder, and bounds a name to 255 bytes.
NOT_SEAWEED = frozenset({"a//b", "/lead", "x/", "../x", "a/./b", "back\\slash", "k" * 1024, "é" * 512})


ABSENT_BUCKET = "no-such-bucket-4711"


class Writes(Protocol):
    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: None = None,
        about_to_write: Announce = ...,
    ) -> Written: ...

    async def delete(self, key: ObjectKey) -> None: ...


class Subject:
    """One Origin under test with a bucket of its own, and the actions of its owner, which do not pass the Origin."""

    def __init__(self, origin: Origin, writes: Writes, bucket: str, client: Any) -> None:
        self.origin = origin
        self.writes = writes
        self.bucket = bucket
        self.client = client  # boto3's; None for a fake

    def key(self, name: str = "o") -> ObjectKey:
        return ObjectKey(self.bucket, name)

    def store(self, content: bytes, name: str = "o", **headers: str) -> ObjectKey:
        key = self.key(name)
        if isinstance(self.origin, FakeOrigin):
            self.origin.store(key, content, {header.replace("_", "-"): value for header, value in headers.items()})
        else:
            meta = "x_amz_meta_"
            user = {header[len(meta) :]: value for header, value in headers.items() if header.startswith(meta)}
            params = {
                header.title().replace("_", ""): value
                for header, value in headers.items()
                if not header.startswith(meta)
            }
            self.client.put_object(Bucket=self.bucket, Key=name, Body=content, Metadata=user, **params)
        return key

    async def list_objects(self, prefix: str = "", bucket: str | None = None) -> list[Listed]:
        """Return what the Origin lists, of all pages."""
        found: list[Listed] = []
        token: str | None = None
        while True:
            if isinstance(self.origin, FakeOrigin):
                page = await self.origin.list_objects(bucket or self.bucket, prefix, token)
            else:
                assert isinstance(self.origin, S3Origin)
                page = await list_objects(self.origin, bucket or self.bucket, prefix, token)
            found += page.objects
            token = page.token
            if token is None:
                return found

    def delete(self, key: ObjectKey) -> str:
        """Delete as the owner. Return the version id of the delete marker."""
        assert self.client is not None
        return str(self.client.delete_object(Bucket=self.bucket, Key=key.key)["VersionId"])

    def stored(self, name: str) -> bytes | None:
        """Return the bytes that the owner reads under exactly this name."""
        if isinstance(self.origin, FakeOrigin):
            found = self.origin.objects.get(self.key(name))
            return None if found is None else found.content
        if not any(item["Key"] == name for item in self.listed()):
            return None
        return bytes(self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read())

    def listed(self) -> list[dict[str, Any]]:
        return list(self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ()))


class ChaosSubject(Subject):
    """The real Origin against the chaos origin, whose owner uses no S3 client."""

    def __init__(self, real: S3Origin, server: ChaosOrigin) -> None:
        super().__init__(real, S3Uploader(real, progress_timeout=10), server.bucket, server)
        self._server = server

    def store(self, content: bytes, name: str = "o", **headers: str) -> ObjectKey:
        self._server.store_bytes(name, content, {header.replace("_", "-"): value for header, value in headers.items()})
        return self.key(name)

    def delete(self, key: ObjectKey) -> str:
        return self._server.delete(key.key)

    def stored(self, name: str) -> bytes | None:
        return self._server.stored(name)

    def listed(self) -> list[dict[str, Any]]:
        return [{"Key": key} for key in self._server.keys]


@asynccontextmanager
async def chaos_subject(*, is_versioned: bool) -> AsyncIterator[Subject]:
    async with ChaosOrigin(is_versioned=is_versioned) as server:
        keys = StaticCredentials(access_key_id=SecretStr("any"), secret_access_key=SecretStr("any-secret"))
        async with S3Origin(OriginSettings(endpoint_url=server.endpoint_url, credentials=keys)) as real:
            yield ChaosSubject(real, server)


@pytest.fixture(params=(FAKE, CHAOS, *SERVERS, *OUTSIDE))
async def subject(
    request: pytest.FixtureRequest,
    client_of: Callable[[OriginSettings], Any],
    bucket_of: Callable[[OriginSettings], str],
) -> AsyncIterator[Subject]:
    if request.param == FAKE:
        origin = FakeOrigin(chunk=CHUNK, absent_buckets=frozenset({ABSENT_BUCKET}))
        yield Subject(origin, FakeUploader(origin), "bucket", None)
        assert origin.bodies == 0
        return
    if request.param == CHAOS:
        async with chaos_subject(is_versioned=False) as chaotic:
            yield chaotic
        return
    if request.param in OF_OTHERS:
        settings = request.getfixturevalue("server_of_others")(request.param)
    else:
        settings = request.getfixturevalue(request.param)
    async with S3Origin(settings) as real:
        yield Subject(real, S3Uploader(real, progress_timeout=10), bucket_of(settings), client_of(settings))


@pytest.fixture(params=(FAKE, CHAOS, *SERVERS))
async def versioned(
    request: pytest.FixtureRequest, client_of: Callable[[OriginSettings], Any]
) -> AsyncIterator[Subject]:
    """Return a subject whose bucket keeps versions."""
    if request.param == FAKE:
        origin = FakeOrigin(chunk=CHUNK, is_versioned=True)
        yield Subject(origin, FakeUploader(origin), VERSIONED, None)
        assert origin.bodies == 0
        return
    if request.param == CHAOS:
        async with chaos_subject(is_versioned=True) as chaotic:
            yield chaotic
        return
    settings = request.getfixturevalue(request.param)
    client = client_of(settings)
    client.create_bucket(Bucket=VERSIONED)
    client.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    try:
        async with S3Origin(settings) as real:
            yield Subject(real, S3Uploader(real, progress_timeout=10), VERSIONED, client)
    finally:
        listed = client.list_object_versions(Bucket=VERSIONED)
        for item in (*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())):
            client.delete_object(Bucket=VERSIONED, Key=item["Key"], VersionId=item["VersionId"])
        client.delete_bucket(Bucket=VERSIONED)


async def read(answer: OriginResponse | NotModified) -> bytes:
    assert isinstance(answer, OriginResponse)
    try:
        pieces = []
        while data := await answer.body.read():
            pieces.append(data)
        assert await answer.body.read() == b"", "the end stays the end"
        return b"".join(pieces)
    finally:
        answer.body.close()
        answer.body.close()


class NotMeant(Exception):
    pass


async def stream(content: bytes, piece: int = CHUNK) -> AsyncIterator[bytes]:
    for start in range(0, len(content), piece):
        yield content[start : start + piece]


def metadata_of(answer: OriginResponse | Metadata | NotModified) -> Metadata:
    assert not isinstance(answer, NotModified)
    return answer.metadata if isinstance(answer, OriginResponse) else answer


@pytest.mark.parametrize(
    ("part", "start", "stop"),
    [
        (FromTo(0), 0, SIZE),  # RFC 9110 section 14.1.2, and below
        (FromTo(0, 1), 0, 1),
        (FromTo(0, SIZE), 0, SIZE),
        (FromTo(0, SIZE + 1), 0, SIZE),
        (FromTo(10, 20), 10, 20),
        (FromTo(CHUNK - 1, 2 * CHUNK + 1), CHUNK - 1, 2 * CHUNK + 1),
        (FromTo(SIZE - 1), SIZE - 1, SIZE),
        (FromTo(SIZE - 1, 1 << 40), SIZE - 1, SIZE),
        (Suffix(1), SIZE - 1, SIZE),
        (Suffix(SIZE), 0, SIZE),
        (Suffix(SIZE + 1), 0, SIZE),
        (Suffix(1 << 40), 0, SIZE),
    ],
)
async def test_a_range_gives_exactly_its_bytes(subject: Subject, part: FromTo | Suffix, start: int, stop: int) -> None:
    """I3: a response declares which bytes it has, and has them, for every form of a range."""
    key = subject.store(CONTENT)
    answer = await subject.origin.get(key, part)
    assert isinstance(answer, OriginResponse)
    assert (answer.start, answer.stop) == (start, stop)
    assert answer.metadata.size == SIZE
    assert await read(answer) == CONTENT[start:stop]


async def test_a_cancelled_read_loses_no_byte(subject: Subject) -> None:
    """I1, I3: after a read is cancelled at any time, the next one continues at the same byte. Hedges rely on it."""
    key = subject.store(CONTENT)
    for patience in range(6):
        answer = await subject.origin.get(key, FromTo(0))
        assert isinstance(answer, OriginResponse)
        got = b""
        while len(got) < SIZE:
            reading = asyncio.create_task(answer.body.read())
            for _ in range(patience):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            got += await answer.body.read() if reading.cancelled() else reading.result()
        answer.body.close()
        assert got == CONTENT


@pytest.mark.parametrize("part", [FromTo(SIZE), FromTo(SIZE, SIZE + 1), FromTo(1 << 40)])
async def test_a_range_beyond_the_end_is_unsatisfiable(subject: Subject, part: FromTo) -> None:
    """RFC 9110 section 15.5.17: no byte of the object lies in the range."""
    key = subject.store(CONTENT)
    with pytest.raises(RangeUnsatisfiable):
        await subject.origin.get(key, part)


@pytest.mark.parametrize("part", [FromTo(0), FromTo(0, 10), FromTo(3), Suffix(1), Suffix(1 << 40)])
async def test_an_empty_object_has_no_range(subject: Subject, part: FromTo | Suffix) -> None:
    """Every range of an empty object is unsatisfiable, and HEAD returns size 0."""
    key = subject.store(b"")
    with pytest.raises(RangeUnsatisfiable):
        await subject.origin.get(key, part)
    assert metadata_of(await subject.origin.head(key)).size == 0


async def test_a_list(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has the keys of a prefix in the order of their bytes, with their sizes, over all pages."""
    if isinstance(subject, ChaosSubject):
        pytest.skip("the chaos origin lists nothing")
    monkeypatch.setattr(listing, "MAX_KEYS", 2)
    if isinstance(subject.origin, FakeOrigin):
        subject.origin.page_keys = 2
    names = ["p/a b", "p/a+b", "p/ä", "p/b/c", "p/%2F&<>"]
    for name in (*names, "q", "o"):
        subject.store(b"x" * len(name), name)
    assert await subject.list_objects("p/") == [Listed(subject.key(name), len(name)) for name in sorted(names)]
    assert await subject.list_objects("no/such/") == []
    with pytest.raises(NoSuchBucket):
        await subject.list_objects(bucket=ABSENT_BUCKET)


async def test_metadata_of_get_and_head(subject: Subject) -> None:
    """I4: GET and HEAD return the object's own headers and its whole size, for any range."""
    key = subject.store(
        CONTENT,
        content_type="video/mp4; codecs=avc1",
        content_encoding="br",
        content_language="de, en",
        content_disposition='attachment; filename="a b.mp4"',
        cache_control="public, max-age=60",
        expires="Wed, 21 Oct 2065 07:28:00 GMT",
        x_amz_meta_colour="blue",
        x_amz_meta_size="XL",
    )
    answer = await subject.origin.get(key, FromTo(5, 10))
    await read(answer)
    metadata = metadata_of(answer)
    assert metadata.size == SIZE
    assert metadata.etag.startswith('"')
    assert metadata.etag.endswith('"')
    assert len(metadata.etag) > 2
    assert metadata.last_modified is not None
    assert metadata.last_modified.endswith(" GMT")
    assert metadata.headers == (
        ("Content-Type", "video/mp4; codecs=avc1"),
        ("Content-Encoding", "br"),
        ("Content-Language", "de, en"),
        ("Content-Disposition", 'attachment; filename="a b.mp4"'),
        ("Cache-Control", "public, max-age=60"),
        ("Expires", "Wed, 21 Oct 2065 07:28:00 GMT"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-meta-size", "XL"),
    )
    assert metadata_of(await subject.origin.head(key)) == metadata


async def test_the_etag_names_the_version(subject: Subject) -> None:
    """The ETag is equal for the same version on every call, and another one after a change."""
    key = subject.store(CONTENT)
    first = metadata_of(await subject.origin.head(key))
    assert metadata_of(await subject.origin.head(key)) == first
    subject.store(CONTENT[::-1])
    assert metadata_of(await subject.origin.head(key)).etag != first.etag


@pytest.mark.parametrize("part", [FromTo(0, 10), FromTo(7), Suffix(3)])
async def test_if_match_holds_a_range_to_a_version(subject: Subject, part: FromTo | Suffix) -> None:
    """I1, RFC 9110 section 13.1.1: If-Match returns the named version, or raises ObjectChanged without a byte of
    another.
    """
    key = subject.store(CONTENT)
    etag = metadata_of(await subject.origin.head(key)).etag
    span = part.within(SIZE)
    assert span is not None
    assert await read(await subject.origin.get(key, part, if_match=etag)) == CONTENT[span.start : span.stop]
    with pytest.raises(ObjectChanged):
        await subject.origin.get(key, part, if_match=OTHER)


async def test_if_match_after_a_change(subject: Subject) -> None:
    """I1: an overwritten version is no longer available by its ETag."""
    key = subject.store(CONTENT)
    etag = metadata_of(await subject.origin.head(key)).etag
    subject.store(CONTENT[::-1])
    with pytest.raises(ObjectChanged):
        await subject.origin.get(key, FromTo(0, 10), if_match=etag)


async def test_if_none_match(subject: Subject) -> None:
    """RFC 9110 section 13.1.2: the same version is not sent again, and another one is, with GET and with HEAD."""
    key = subject.store(CONTENT, cache_control="max-age=60", expires="Wed, 21 Oct 2065 07:28:00 GMT")
    metadata = metadata_of(await subject.origin.head(key))
    etag = metadata.etag
    for answer in (
        await subject.origin.get(key, FromTo(0, 10), if_none_match=etag),
        await subject.origin.head(key, if_none_match=etag),
    ):
        assert isinstance(answer, NotModified)
        said_less(answer, metadata)
    assert await read(await subject.origin.get(key, FromTo(0, 10), if_none_match=OTHER)) == CONTENT[:10]
    assert metadata_of(await subject.origin.head(key, if_none_match=OTHER)).etag == etag


def said_less(answer: NotModified, metadata: Metadata) -> None:
    """Assert that a 304 repeats only headers of the 200 (RFC 9110 section 15.4.5). S3 servers repeat more or fewer."""
    assert answer.last_modified in (None, metadata.last_modified)
    for name, value in answer.headers:
        assert value == metadata.header(name)
    assert answer.age == metadata.age


async def test_an_absent_object(subject: Subject) -> None:
    """I13: S3's 404 is ObjectNotFound with GET and HEAD, with every condition."""
    key = subject.key("absent")
    for part in (FromTo(0, 10), Suffix(5)):
        with pytest.raises(ObjectNotFound):
            await subject.origin.get(key, part)
    with pytest.raises(ObjectNotFound):
        await subject.origin.get(key, FromTo(0), if_none_match=OTHER)
    with pytest.raises(ObjectNotFound):
        await subject.origin.head(key)
    with pytest.raises(ObjectNotFound):
        await subject.origin.get(subject.key("\x1b[31m"), FromTo(0))  # S3's XML cannot hold that key


async def test_an_absent_bucket(subject: Subject) -> None:
    """I13, I35: a bucket that does not exist is a fault of the configuration, and no absence of an object."""
    key = ObjectKey(ABSENT_BUCKET, "o")
    with pytest.raises(NoSuchBucket):
        await subject.origin.get(key, FromTo(0))
    with pytest.raises(NoSuchBucket):
        await subject.origin.head(key)


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_names_what_its_owner_stored(subject: Subject, name: str, request: pytest.FixtureRequest) -> None:
    """I23: reads, writes and deletes of a key touch the object of exactly that name, as boto3 sees it."""
    if "seaweed" in request.node.callspec.id and name in NOT_SEAWEED:
        pytest.skip("SeaweedFS has no such name")
    content = name.encode() + b"!"
    key = subject.store(content, name)
    assert await read(await subject.origin.get(key, FromTo(0))) == content
    assert metadata_of(await subject.origin.head(key)).size == len(content)

    await subject.writes.put(key, stream(content[::-1]), len(content), WriteHead())
    assert subject.stored(name) == content[::-1]
    if subject.client is not None:
        assert [item["Key"] for item in subject.listed()] == [name], "and no other name came to be"

    await subject.writes.delete(key)
    assert subject.stored(name) is None


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5 * CHUNK + 1])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_put_is_read_back(subject: Subject, size: int, is_known: bool) -> None:
    """I5: a body comes back byte for byte and under the ETag of the write, with known and unknown length."""
    content = object_bytes(size, seed=2)
    key, head = subject.key("put"), WriteHead((("content-type", "text/x"),))
    written = await subject.writes.put(key, stream(content), size if is_known else None, head)
    assert subject.stored("put") == content
    metadata = metadata_of(await subject.origin.head(key))
    assert (metadata.etag, metadata.size, metadata.header("content-type")) == (written.etag, size, "text/x")
    if size:
        assert await read(await subject.origin.get(key, FromTo(0), if_match=written.etag)) == content


@pytest.mark.parametrize("size", [0, CHUNK, 9 << 20])
async def test_a_write_is_announced(subject: Subject, size: int) -> None:
    """I9: `about_to_write` is called once, after the whole body came and before the object changes. It may refuse."""
    key, content = subject.store(b"old", "put"), object_bytes(size, seed=3)
    heard: list[tuple[bytes | None, bool]] = []
    has_come = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal has_come
        for at in range(0, size, 1 << 20):
            yield content[at : at + (1 << 20)]
        has_come = True

    async def about_to_write() -> None:
        heard.append((subject.stored("put"), has_come))

    await subject.writes.put(key, body(), None, WriteHead(), None, about_to_write)
    assert heard == [(b"old", True)]
    assert subject.stored("put") == content

    async def refuse() -> None:
        raise NotMeant

    with pytest.raises(NotMeant):
        await subject.writes.put(key, stream(b"new"), None, WriteHead(), None, refuse)
    assert subject.stored("put") == content


async def test_delete(subject: Subject) -> None:
    """A deleted object is absent, and a second delete is no error."""
    key = subject.store(CONTENT)
    await subject.writes.delete(key)
    await subject.writes.delete(key)
    with pytest.raises(ObjectNotFound):
        await subject.origin.head(key)


# --- versions ------------------------------------------------------------------------------------------------


async def stored_as(subject: Subject, content: bytes) -> ObjectKey:
    """Store a version. Return its key with the version id that the origin names for the current object."""
    key = subject.store(content)
    version = metadata_of(await subject.origin.head(key)).version
    assert version is not None
    return key._replace(version=version)


async def test_each_version_stays_what_it_was(versioned: Subject) -> None:
    """I1, I25: later versions do not change the bytes, ETag and id of a version, by GET, range and HEAD."""
    contents = (CONTENT, CONTENT[::-1], CONTENT[:5])
    keys = [await stored_as(versioned, content) for content in contents]
    assert len({key.version for key in keys}) == 3
    for key, content in zip(keys, contents, strict=True):
        answer = await versioned.origin.get(key, FromTo(0))
        metadata = metadata_of(answer)
        assert await read(answer) == content
        assert (metadata.version, metadata.size) == (key.version, len(content))
        assert metadata_of(await versioned.origin.head(key)) == metadata
        assert await read(await versioned.origin.get(key, FromTo(1, 4), if_match=metadata.etag)) == content[1:4]
        with pytest.raises(ObjectChanged):
            await versioned.origin.get(key, FromTo(1, 4), if_match=OTHER)
        with pytest.raises(RangeUnsatisfiable):
            await versioned.origin.get(key, FromTo(SIZE))
    current = await versioned.origin.get(versioned.key(), FromTo(0))
    assert metadata_of(current).version == keys[-1].version
    assert await read(current) == contents[-1]


async def test_a_version_is_revalidated(versioned: Subject) -> None:
    """RFC 9110 section 13.1.2: the ETag of a version gives a 304 for that version, and that of the current object does
    not.
    """
    old = await stored_as(versioned, CONTENT)
    new = await stored_as(versioned, CONTENT[::-1])
    etags = [metadata_of(await versioned.origin.head(key)).etag for key in (old, new)]
    for answer in (
        await versioned.origin.get(old, FromTo(0, 10), if_none_match=etags[0]),
        await versioned.origin.head(old, if_none_match=etags[0]),
    ):
        assert isinstance(answer, NotModified)
        said_less(answer, metadata_of(await versioned.origin.head(old)))
    assert await read(await versioned.origin.get(old, FromTo(0, 10), if_none_match=etags[1])) == CONTENT[:10]
    assert metadata_of(await versioned.origin.head(old, if_none_match=etags[1])).etag == etags[0]


async def test_versions_that_do_not_exist(versioned: Subject) -> None:
    """I13: an id that never existed is ObjectNotFound, also for an object that does not exist."""
    key = await stored_as(versioned, CONTENT)
    assert key.version is not None
    unknown = key._replace(version=key.version[:-1] + ("0" if key.version[-1] != "0" else "1"))
    for absent in (unknown, key._replace(key="absent")):
        with pytest.raises(ObjectNotFound):
            await versioned.origin.get(absent, FromTo(0))
        with pytest.raises(ObjectNotFound):
            await versioned.origin.head(absent)


async def test_a_deleted_object_has_its_versions_still(versioned: Subject) -> None:
    """The current object is absent, earlier versions can be read, and the delete marker itself has no bytes."""
    key = await stored_as(versioned, CONTENT)
    if isinstance(versioned.origin, FakeOrigin):
        await versioned.origin.delete(versioned.key())
        marker = list(versioned.origin.versions)[-1]
    else:
        marker = key._replace(version=versioned.delete(key))
    with pytest.raises(ObjectNotFound):
        await versioned.origin.head(versioned.key())
    assert await read(await versioned.origin.get(key, FromTo(0))) == CONTENT
    # S3 and moto's HEAD send 405, moto's GET and SeaweedFS 404. Both mean absence, and no outage.
    with pytest.raises((DeleteMarker, ObjectNotFound)):
        await versioned.origin.get(marker, FromTo(0))
    with pytest.raises((DeleteMarker, ObjectNotFound)):
        await versioned.origin.head(marker)


async def test_an_unversioned_object_has_the_version_null_alone(subject: Subject) -> None:
    """I1: "null" is the current object. For any other id no byte comes, also if the server ignores versionId."""
    key = subject.store(CONTENT)
    assert metadata_of(await subject.origin.head(key)).version is None
    null = await subject.origin.get(key._replace(version="null"), FromTo(0))
    assert metadata_of(null).version is None
    assert await read(null) == CONTENT
    unknown = key._replace(version="67152e0713b909e7d6c86891fd390cee")
    with pytest.raises((ObjectNotFound, NoSuchVersion, InvalidOriginResponse)):
        await subject.origin.get(unknown, FromTo(0))
    with pytest.raises((ObjectNotFound, NoSuchVersion, InvalidOriginResponse)):
        await subject.origin.head(unknown)
