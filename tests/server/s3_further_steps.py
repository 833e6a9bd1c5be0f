"""Scenarios of the same kind for what public test suites of S3 check: delimiters, deletes, versions, parts."""

from collections.abc import Iterator
from dataclasses import replace

from s3_steps import PART, Query, Step, copy, delete, differing, get, head, parts, put

V2 = ("list-type", "2")


def of_delimiters() -> Iterator[tuple[str, list[Step]]]:
    """Yield lists of names that hold the delimiter at odd places."""
    names = (
        "asdf",
        "boo/bar",
        "boo/baz/xyzzy",
        "cquux/thud",
        "cquux/bla",
        "per%cent",
        "under_1",
        "white space",
        "d.ot",
    )
    lists = [
        Step("GET", None, (*kind, ("prefix", f"{{folder}}/{prefix}"), ("delimiter", delimiter)))
        for kind in ((), (V2,))
        for prefix, delimiter in (
            ("", "/"), ("", "a"), ("", "%"), ("", " "), ("", "."), ("", "_"), ("", "none"), ("boo/", "/"), ("boo", "/"),
            ("b", "/"), ("cquux/", "b"), ("none", "/"), ("", ""), ("", "oo"),
        )
    ]  # fmt: skip
    yield "delimiters", [*(put(name, b"data") for name in names), *lists]
    pages = (("max-keys", "1"), ("encoding-type", "url"), ("max-keys", "1000"))
    yield (
        "odd-lists",
        [
            put("a", b"data"),
            *(Step("GET", None, (*kind, ("prefix", "{folder}/"), page)) for kind in ((), (V2,)) for page in pages),
            Step("GET", None, (V2, ("prefix", "{folder}/"), ("continuation-token", ""))),
            Step("GET", None, (V2, ("prefix", "{folder}/"), ("start-after", "{folder}/zzz"))),
        ],
    )


def of_objects() -> Iterator[tuple[str, list[Step]]]:
    """Yield objects whose metadata, bodies and copies are special."""
    yield "empty", [put("data", b""), head("data"), get("data"), get("data"), copy("data", "copy"), get("copy")]
    yield (
        "metadata-replaced",
        [
            put("data", b"data", x_amz_meta_a="b"),
            get("data"),
            put("data", b"data", x_amz_meta_c="d"),
            head("data"),
            get("data"),
            put("data", b"data"),
            head("data"),
        ],
    )
    yield (
        "rewritten",
        [
            *(step for body in (b"one", b"two", b"") for step in (put("data", body), get("data"), head("data"))),
            delete("data"),
            get("data"),
            put("data", b"three"),
            get("data"),
        ],
    )
    yield (
        "copy-to-itself",
        [
            put("data", b"data", content_type="text/plain"),
            copy("data", "data"),
            copy("data", "data", x_amz_metadata_directive="REPLACE", content_type="text/html", x_amz_meta_a="b"),
            head("data"),
            get("data"),
        ],
    )
    yield (
        "owners",
        [
            put("data", b"data"),
            get("data", x_amz_expected_bucket_owner="123456789012"),
            get("data", x_amz_request_payer="requester"),
        ],
    )


def of_attributes() -> Iterator[tuple[str, list[Step]]]:
    """Yield attributes of objects in one piece and in parts."""
    attributes: Query = (("attributes", None),)

    def asked(key: str, names: str) -> Step:
        return Step("GET", key, attributes, {"x-amz-object-attributes": names})

    yield (
        "attributes",
        [
            put("data", b"data"),
            asked("data", "ETag"),
            asked("data", "ObjectSize,StorageClass"),
            asked("none", "ETag"),
            put("data", b"longer data"),
            asked("data", "ETag,ObjectSize"),
        ],
    )


def of_deletes() -> Iterator[tuple[str, list[Step]]]:
    """Yield deletes that have conditions, name nothing, or name too much."""
    yield "deletes-of-nothing", [delete("none"), delete("none/"), get("none")]
    yield "deletes-again", [put("data", b"data"), get("data"), delete("data"), delete("data"), head("data")]
    deletes = Step("POST", None, (("delete", None),), {"content-md5": "{md5}"})
    many = "".join(f"<Object><Key>{{folder}}/{number}</Key></Object>" for number in range(1001))
    yield (
        "deletes-of-many",
        [
            put("0", b"data"),
            *(
                differing("moto has no limit, and fails at bad XML", replace(deletes, body=body))
                for body in (f"<Delete>{many}</Delete>".encode(), b"<Delete></Delete>", b"not XML")
            ),
        ],
    )


def of_parts() -> Iterator[tuple[str, list[Step]]]:
    """Yield uploads whose parts come again, out of order, or for nothing."""
    upload: Query = (("uploadId", "{upload}"),)

    def part(number: int, body: bytes) -> Step:
        return Step("PUT", "data", (("partNumber", str(number)), *upload), {}, body, {f"part{number}": "ETag"})

    begun = Step("POST", "data", (("uploads", None),), keeps={"upload": "UploadId"})
    yield (
        "part-again",
        [
            begun,
            part(1, PART),
            part(1, PART[::-1]),
            part(2, b"end"),
            differing("SeaweedFS lists such a part twice", Step("GET", "data", upload)),
            Step("POST", "data", upload, {}, parts(1, 2)),
            get("data", range="bytes=0-9"),
            get("data", range="bytes=-5"),
            get("data", ("partNumber", "1"), range="bytes=0-1"),
            differing("moto fails", head("data", ("partNumber", "3"))),
            head("data", ("partNumber", "0")),
        ],
    )
    yield (
        "parts-out-of-order",
        [begun, part(5, b"end"), part(2, PART), Step("POST", "data", upload, {}, parts(2, 5)), head("data")],
    )
    yield "one-part", [begun, part(1, b"all"), Step("POST", "data", upload, {}, parts(1)), get("data"), get("data")]
    yield "part-of-whole", [put("data", b"data"), get("data", ("partNumber", "1")), head("data", ("partNumber", "1"))]
    yield (
        "no-upload",
        [
            differing("moto fails", Step("PUT", "data", (("partNumber", "1"), ("uploadId", "none")), {}, b"part")),
            Step("GET", "data", (("uploadId", "none"),)),
            Step("DELETE", "data", (("uploadId", "none"),)),
            get("data"),
        ],
    )


def of_versions() -> Iterator[tuple[str, list[Step]]]:
    """Yield objects with versions that several deletes and copies change, in a bucket with versions."""
    first, marker = ("versionId", "{first}"), ("versionId", "{marker}")
    yield (
        "delete-markers",
        [
            Step("PUT", "data", (), {}, b"first", {"first": "x-amz-version-id"}),
            get("data"),
            Step("DELETE", "data", keeps={"marker": "x-amz-version-id"}),
            get("data"),
            delete("data"),
            head("data"),
            differing("neither has the 405 of S3", get("data", marker)),
            delete("data", marker),
            get("data"),
            Step("GET", None, (("versions", None), ("prefix", "{folder}/"), ("max-keys", "1"))),
            Step("GET", None, (("versions", None), ("prefix", "{folder}/"))),
            get("data", first),
        ],
    )
    named = "<Object><Key>{folder}/data</Key><VersionId>{first}</VersionId></Object>"
    deletes = Step("POST", None, (("delete", None),), {"content-md5": "{md5}"})
    yield (
        "deletes-of-versions",
        [
            Step("PUT", "data", (), {}, b"first", {"first": "x-amz-version-id"}),
            put("data", b"second"),
            get("data"),
            get("data", first),
            replace(deletes, body=f"<Delete>{named}</Delete>".encode()),
            get("data", first),
            get("data"),
            replace(deletes, body=b"<Delete><Object><Key>{folder}/data</Key></Object></Delete>"),
            get("data"),
        ],
    )
    upload: Query = (("uploadId", "{upload}"),)
    yield (
        "versions-in-parts",
        [
            put("data", b"first"),
            get("data"),
            Step("POST", "data", (("uploads", None),), keeps={"upload": "UploadId"}),
            Step("PUT", "data", (("partNumber", "1"), *upload), {}, b"second", {"part1": "ETag"}),
            Step("POST", "data", upload, {}, parts(1)),
            get("data"),
            copy("data", "copy"),
            copy("data", "copy"),
            get("copy"),
        ],
    )


FURTHER = dict(
    scenario for family in (of_delimiters, of_objects, of_attributes, of_deletes, of_parts) for scenario in family()
)
FURTHER_VERSIONED = dict(of_versions())
