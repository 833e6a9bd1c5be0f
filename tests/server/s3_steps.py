"""Requests of S3's clients in scenarios: the same ones go to S3 itself and through bucketfront.

Keys are relative to a folder of the scenario. `{name}` in a query, a field or a body stands for what an earlier
response of the scenario had (`Step.keeps`), or for `{bucket}` and `{folder}`.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from anycrc import Model

Query = tuple[tuple[str, str | None], ...]

BODY = bytes(range(1, 251)) * 1200  # 300,000 bytes: several blocks of the cache under test
PART = bytes(range(1, 250)) * 21100  # a bit more than 5 MiB, the smallest part of S3
ODD_KEYS = (
    "plain.txt", "a b", "a+b", "a%20b", "ä/ö/日本", "(x)[y]{z}", "semi;colon,comma", "q?u=e&r#y", "quote'\"<>",
    "~._-!*", "a//b", "/lead", "trail/", ".", "a/./b", "a/../b", "back\\slash", "%2F", "@:$=", "x" * 200,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `keeps` has names, and the field or the XML element of the response whose text they stand for.

    `key` is None for a request of the bucket, and `bucket` is another bucket's name. `differs` is why the responses may
    be different ones.
    """

    method: str
    key: str | None = None
    query: Query = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    keeps: Mapping[str, str] = field(default_factory=dict)
    bucket: str | None = None
    differs: str = ""

    def __str__(self) -> str:
        query = "&".join(name if value is None else f"{name}={value}" for name, value in self.query)
        fields = " ".join(f"{name}:{value}" for name, value in self.fields.items())
        return f"{self.method} {self.key if self.key is not None else '(bucket)'} {query} {fields}"[:150].strip()


def get(key: str, *query: tuple[str, str | None], **fields: str) -> Step:
    return Step("GET", key, query, _named(fields))


def head(key: str, *query: tuple[str, str | None], **fields: str) -> Step:
    return Step("HEAD", key, query, _named(fields))


def put(key: str, body: bytes = BODY, **fields: str) -> Step:
    return Step("PUT", key, (), _named(fields), body, {"etag": "ETag"})


def delete(key: str, *query: tuple[str, str | None], **fields: str) -> Step:
    return Step("DELETE", key, query, _named(fields))


def copy(source: str, target: str, **fields: str) -> Step:
    return Step("PUT", target, (), {"x-amz-copy-source": "{bucket}/{folder}/" + quote(source), **_named(fields)})


def _named(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


def differing(why: str, step: Step) -> Step:
    """Return the step as one that is sent, but whose responses are not compared."""
    return replace(step, differs=why)


def of_odd_keys() -> Iterator[tuple[str, list[Step]]]:
    """Yield the life of an object under each odd key."""
    for number, key in enumerate(ODD_KEYS):
        why = "SeaweedFS keeps no bytes of folders" if key.endswith("/") else ""
        yield (
            f"key-{number}",
            [
                get(key),
                put(key, key.encode(), content_type="text/plain", x_amz_meta_a="b"),
                head(key),
                get(key),
                get(key),
                differing(why, get(key, range="bytes=1-2")),
                differing(why, get(key, if_none_match="{etag}")),
                put(key, b"another", content_type="text/html"),
                get(key),
                copy(key, "copy"),
                get("copy"),
                delete(key),
                get(key),
                head(key),
                delete(key),
            ],
        )


RANGES = (
    "bytes=0-", "bytes=0-0", "bytes=5-9", "bytes=299999-", "bytes=299990-400000", "bytes=-1", "bytes=-300000",
    "bytes=-400000", "bytes=300000-", "bytes=300000-300001", "bytes=-0", "bytes=",
    "bytes=65535-65536", "bytes=0-299999", "bytes=131072-196607",
)  # fmt: skip


def of_ranges() -> Iterator[tuple[str, list[Step]]]:
    """Yield reads of ranges, each of a cold object and of a warm one."""
    for name, first in (("cold", []), ("warm", [get("data")])):
        yield f"ranges-{name}", [put("data"), *first, *(get("data", range=each) for each in RANGES)]
    yield (
        "odd-ranges",
        [
            put("data"),
            differing("moto fails, and S3 has all bytes", get("data", range="bytes 0-1")),
            differing("moto takes any unit, and S3 has all bytes", get("data", range="items=0-1")),
            differing("S3 knows one range only, and has all bytes", get("data", range="bytes=0-1,5-6")),
            *(differing("SeaweedFS has 416", get("data", range=each)) for each in ("bytes=9-5", "bytes=a-b")),
            get("data", range="bytes=5-6"),
        ],
    )
    yield "ranges-of-heads", [put("data"), *(head("data", range=each) for each in RANGES)]
    yield (
        "ranges-of-nothing",
        [
            put("data", b""),
            get("data"),
            get("data", range="bytes=0-"),
            differing("moto has 200", get("data", range="bytes=-5")),
        ],
    )
    yield (
        "ranges-with-conditions",
        [
            put("data"),
            get("data", range="bytes=1-2", if_match="{etag}"),
            get("data", range="bytes=1-2", if_match='"other"'),
            get("data", range="bytes=1-2", if_none_match="{etag}"),
            get("none", range="bytes=1-2"),
        ],
    )


PAST, FUTURE = "Wed, 01 Jan 2020 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
CONDITIONS = (
    {"if_match": "{etag}"},
    {"if_match": '"other"'},
    {"if_none_match": "{etag}"},
    {"if_none_match": '"other"'},
    {"if_modified_since": PAST},
    {"if_unmodified_since": PAST},
    {"if_unmodified_since": FUTURE},
    {"if_none_match": '"other"', "if_modified_since": PAST},
    {"if_none_match": "{etag}", "if_modified_since": PAST},
    {"if_match": '"other"', "if_none_match": "{etag}"},
)
# moto and SeaweedFS differ here from RFC 9110, and in part from S3 API, GetObject.
DIFFERENT_CONDITIONS = (
    {"if_match": "*"}, {"if_match": '"other", {etag}'}, {"if_none_match": "*"}, {"if_modified_since": "yesterday"},
    {"if_match": "{etag}", "if_unmodified_since": PAST},
)  # fmt: skip


def of_conditions() -> Iterator[tuple[str, list[Step]]]:
    """Yield conditional reads and writes."""
    for method in ("GET", "HEAD"):
        reads = [Step(method, "data", (), _named(each)) for each in CONDITIONS]
        others = [Step(method, "data", (), _named(each)) for each in DIFFERENT_CONDITIONS]
        yield f"different-conditions-of-{method}", [put("data"), *(differing("RFC 9110", step) for step in others)]
        yield f"conditions-of-{method}", [put("data"), *reads, *reads]
        yield f"conditions-of-{method}-of-nothing", [Step(method, "none", (), _named(each)) for each in CONDITIONS]
    yield (
        "conditions-of-PUT",
        [
            put("data", b"one", if_none_match="*"),
            Step("PUT", "data", (), {"if-none-match": "*"}, b"two"),
            get("data"),
            Step("PUT", "data", (), {"if-match": '"other"'}, b"three"),
            get("data"),
            Step("PUT", "data", (), {"if-match": "{etag}"}, b"four"),
            get("data"),
            Step("PUT", "none", (), {"if-match": "{etag}"}, b"five"),
            get("none"),
        ],
    )


OVERRIDES = ("content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding")


def of_response_fields() -> Iterator[tuple[str, list[Step]]]:
    """Yield reads whose clients choose fields of the response."""
    every = tuple((f"response-{name}", "text/x; a=b") for name in OVERRIDES)
    yield (
        "response-fields",
        [
            put("data", b"data", content_type="text/plain", cache_control="max-age=3"),
            *(get("data", (f"response-{name}", "text/x")) for name in OVERRIDES),
            *(differing("moto has no such HEAD", head("data", (f"response-{name}", "text/x"))) for name in OVERRIDES),
            get("data", *every),
            get("data"),
            get("data", ("x-id", "GetObject")),
            get("none", ("response-content-type", "text/x")),
        ],
    )


FIELDS: tuple[dict[str, str], ...] = (
    {}, {"content_type": "text/plain; charset=utf-8"}, {"content_type": ""}, {"cache_control": "max-age=60"},
    {"content_disposition": 'attachment; filename="a.txt"'}, {"content_encoding": "gzip"}, {"content_language": "de"},
    {"expires": FUTURE}, {"x_amz_meta_a": "b", "x_amz_meta_c": "d"}, {"x_amz_meta_a": "  spaces  within  "},
    {"x_amz_meta_UPPER": "Case"}, {"x_amz_meta_empty": ""}, {"x_amz_tagging": "a=b&c=d"}, {"x_amz_tagging": "a=%20"},
    {"x_amz_storage_class": "STANDARD"}, {"x_amz_storage_class": "STANDARD_IA"}, {"x_amz_acl": "private"},
    {"x_amz_website_redirect_location": "/other"},
)  # fmt: skip


def of_writes() -> Iterator[tuple[str, list[Step]]]:
    """Yield writes with fields of all kinds, and what reads have of them."""
    for number, fields in enumerate(FIELDS):
        yield f"fields-{number}", [put("data", b"data", **fields), head("data"), get("data"), get("data")]
    yield (
        "copies",
        [
            put("data", b"data", content_type="text/plain", x_amz_meta_a="b"),
            copy("data", "copy"),
            head("copy"),
            copy("data", "copy", x_amz_metadata_directive="REPLACE", x_amz_meta_c="d", content_type="text/html"),
            get("copy"),
            copy("data", "data"),
            copy("data", "copy", x_amz_copy_source_if_match='"other"'),
            copy("data", "copy", x_amz_copy_source_if_none_match='"other"'),
            copy("none", "copy"),
            differing(
                "the key is for one bucket", Step("PUT", "copy", (), {"x-amz-copy-source": "no-such-bucket/key"})
            ),
            get("copy"),
        ],
    )


def digests(data: bytes) -> dict[str, str]:
    """Return the checksums of S3 by the names of their fields."""
    made = {
        "crc32": zlib.crc32(data).to_bytes(4),
        "crc32c": Model("CRC32C").calc(data).to_bytes(4),
        "sha1": hashlib.sha1(data).digest(),
        "sha256": hashlib.sha256(data).digest(),
    }
    return {f"x-amz-checksum-{name}": base64.b64encode(digest).decode() for name, digest in made.items()}


def of_checksums() -> Iterator[tuple[str, list[Step]]]:
    """Yield writes with checksums, and reads that ask for them."""
    for name, value in digests(BODY).items():
        yield (
            name,
            [
                Step("PUT", "data", (), {name: value}, BODY),
                get("data", x_amz_checksum_mode="ENABLED"),
                get("data", x_amz_checksum_mode="ENABLED"),
                get("data"),
                get("data", x_amz_checksum_mode="ENABLED", range="bytes=0-9"),
                head("data", x_amz_checksum_mode="ENABLED"),
                get("data", ("attributes", None), x_amz_object_attributes="ETag,ObjectSize,Checksum,StorageClass"),
            ],
        )
    right = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    yield "content-md5", [put("data", b"data", content_md5=right), get("data")]


def of_lists() -> Iterator[tuple[str, list[Step]]]:
    """Yield lists by all parameters."""
    keys = ("a", "b/1", "b/2", "b/c/3", "d e", "f+g", "ü")
    below = ("prefix", "{folder}/")
    pages = [
        (), (("delimiter", "/"),), (("max-keys", "2"),), (("max-keys", "0"),), (("encoding-type", "url"),),
        (("delimiter", "/"), ("max-keys", "1")), (("delimiter", "b"),), (("max-keys", "9999"),),
    ]  # fmt: skip
    stored = [put(key, key.encode()) for key in keys]
    for name, kind in (("v1", ()), ("v2", (("list-type", "2"),)), ("versions", (("versions", None),))):
        lists = [Step("GET", None, (*kind, below, *page)) for page in pages]
        after = {"v1": "marker", "v2": "start-after", "versions": "key-marker"}[name]
        yield (
            f"list-{name}",
            [
                *stored,
                *lists,
                Step("GET", None, (*kind, below, (after, "{folder}/b/1"))),
                Step("GET", None, (*kind, ("prefix", "{folder}/none/"))),
                Step("GET", None, (*kind, ("prefix", "{folder}/b/"), ("delimiter", "/"))),
                delete("a"),
                Step("GET", None, (*kind, below)),
                put("new", b"new"),
                Step("GET", None, (*kind, below)),
            ],
        )
    v2 = ("list-type", "2")
    yield (
        "list-tokens",
        [
            *stored,
            Step("GET", None, (v2, below, ("max-keys", "3")), keeps={"token": "NextContinuationToken"}),
            Step("GET", None, (v2, below, ("max-keys", "3"), ("continuation-token", "{token}"))),
            Step("GET", None, (v2, below, ("fetch-owner", "true"))),
        ],
    )


def parts(*numbers: int) -> bytes:
    found = "".join(f"<Part><PartNumber>{each}</PartNumber><ETag>{{part{each}}}</ETag></Part>" for each in numbers)
    return f"<CompleteMultipartUpload>{found}</CompleteMultipartUpload>".encode()


_UPLOAD: Query = (("uploadId", "{upload}"),)
_BEGUN = Step(
    "POST", "data", (("uploads", None),), {"content-type": "text/plain", "x-amz-meta-a": "b"},
    keeps={"upload": "UploadId"},
)  # fmt: skip


def _part(number: int, body: bytes, **fields: str) -> Step:
    query = (("partNumber", str(number)), *_UPLOAD)
    return Step("PUT", "data", query, _named(fields), body, {f"part{number}": "ETag"})


def of_uploads() -> Iterator[tuple[str, list[Step]]]:
    """Yield uploads in parts."""
    upload, begun, part = _UPLOAD, _BEGUN, _part
    yield (
        "upload",
        [
            put("data", b"before"),
            get("data"),
            begun,
            part(1, PART),
            part(2, b"end"),
            Step("GET", "data", upload),
            Step("GET", "data", (*upload, ("max-parts", "1"))),
            Step("GET", None, (("uploads", None), ("prefix", "{folder}/"))),
            get("data"),
            Step("POST", "data", upload, {}, parts(1, 2)),
            get("data", range="bytes=0-9"),
            head("data"),
            get("data", range="bytes=-10"),
            head("data", ("partNumber", "2")),
            get("data", ("partNumber", "2")),
            Step("GET", None, (("uploads", None), ("prefix", "{folder}/"))),
        ],
    )
    yield (
        "upload-that-fails",
        [
            begun,
            part(1, b"too small"),
            part(2, b"end"),
            Step("POST", "data", upload, {}, parts(1, 2)),
            Step("POST", "data", upload, {}, parts(2, 1)),
            Step("POST", "data", upload, {}, b"<CompleteMultipartUpload></CompleteMultipartUpload>"),
            Step("POST", "data", upload, {}, parts(2).replace(b"{part2}", b'"other"')),
            get("data"),
            Step("DELETE", "data", upload),
            get("data"),
            differing("moto fails", part(3, b"late")),
            Step("DELETE", "data", upload),
            Step("GET", "data", upload),
            differing("moto fails", Step("POST", "data", (("uploadId", "none"),), {}, parts())),
        ],
    )
    source = {"x-amz-copy-source": "{bucket}/{folder}/source"}
    yield (
        "upload-of-copies",
        [
            put("source", PART),
            put("data", b"before"),
            get("data"),
            begun,
            replace(part(1, b"", **source), body=None),
            replace(part(2, b"", **source, x_amz_copy_source_range="bytes=0-9"), body=None),
            Step("POST", "data", upload, {}, parts(1, 2)),
            get("data", range="bytes=-12"),
        ],
    )


def of_deletes() -> Iterator[tuple[str, list[Step]]]:
    """Yield deletes of many objects."""

    def many(*keys: str, quiet: bool = False) -> Step:
        named = "".join(f"<Object><Key>{{folder}}/{key}</Key></Object>" for key in keys)
        body = f"<Delete><Quiet>{str(quiet).lower()}</Quiet>{named}</Delete>".encode()
        return Step("POST", None, (("delete", None),), {"content-md5": "{md5}"}, body)

    yield (
        "deletes",
        [
            *(put(key, b"data") for key in ("a", "b", "c d", "e")),
            *(get(key) for key in ("a", "b", "c d", "e")),
            many("a", "none"),
            differing("moto is never quiet", many("b", "c d", quiet=True)),
            *(get(key) for key in ("a", "b", "c d", "e")),
            differing("moto fails", Step("POST", None, (("delete", None),), {"content-md5": "{md5}"}, b"<Delete>")),
            get("e"),
        ],
    )


def of_buckets() -> Iterator[tuple[str, list[Step]]]:
    """Yield requests of the bucket, and of one that does not exist."""
    others = (
        Step("HEAD", bucket="no-such-bucket-0"),
        Step("GET", bucket="no-such-bucket-0"),
        Step("GET", "data", bucket="no-such-bucket-0"),
        Step("PUT", "data", (), {}, b"data", bucket="no-such-bucket-0"),
        Step("DELETE", "data", bucket="no-such-bucket-0"),
    )
    yield (
        "buckets",
        [
            Step("HEAD"),
            Step("GET", None, (("location", None),)),
            *(differing("the key is for one bucket", step) for step in others),
        ],
    )


def of_versions() -> Iterator[tuple[str, list[Step]]]:
    """Yield the life of an object in a bucket with versions."""
    first, second = ("versionId", "{first}"), ("versionId", "{second}")
    yield (
        "versions",
        [
            Step("PUT", "data", (), {}, b"first", {"first": "x-amz-version-id"}),
            get("data"),
            Step("PUT", "data", (), {}, b"second", {"second": "x-amz-version-id"}),
            get("data"),
            get("data", first),
            get("data", first),
            head("data", first),
            get("data", second, range="bytes=0-2"),
            get("data", ("versionId", "none")),
            Step("PUT", "copy", (), {"x-amz-copy-source": "{bucket}/{folder}/data?versionId={first}"}),
            get("copy"),
            delete("data"),
            get("data"),
            head("data"),
            get("data", first),
            Step("GET", None, (("versions", None), ("prefix", "{folder}/"))),
            delete("data", second),
            get("data", second),
            get("data", first),
            delete("data", first),
            get("data", first),
        ],
    )


SCENARIOS = dict(
    scenario
    for family in (
        of_odd_keys, of_ranges, of_conditions, of_response_fields, of_writes, of_checksums, of_lists, of_uploads,
        of_deletes, of_buckets,
    )
    for scenario in family()
)  # fmt: skip
VERSIONED = dict(of_versions())
