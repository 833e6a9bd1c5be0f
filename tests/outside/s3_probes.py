"""What a client relies on in S3, each tried at a server itself and through bucketfront in front of it."""

import base64
import hashlib
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from s3_wire import Objects, Response

HOLDS = "yes"
CONTENT = random.Random(5).randbytes(3 * 1024 + 17)
LARGE = random.Random(6).randbytes((9 << 20) + 1)  # more than one part of bucketfront
ODD_KEYS = ("a b", "a+b", "a%2Fb", "ü/日本", "a//b", "x/", "a/./b", "q?x=1#z", "back\\slash", "k" * 300)
KEPT = {
    "Content-Type": "video/mp4; codecs=avc1",
    "Content-Encoding": "br",
    "Content-Language": "de, en",
    "Content-Disposition": 'attachment; filename="a b.mp4"',
    "Cache-Control": "public, max-age=60",
    "Expires": "Wed, 21 Oct 2065 07:28:00 GMT",
    "x-amz-meta-colour": "blue",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """`run` returns HOLDS, or what happens instead."""

    what: str
    run: Callable[[Objects], str]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _stored(objects: Objects, key: str, content: bytes = CONTENT, **headers: str) -> Response:
    response = objects.put(key, content, **headers)
    assert response.is_success, f"a PUT of {key!r} gets {response.status}"
    return response


def _expected(response: Response, *statuses: int) -> str:
    return HOLDS if response.status in statuses else f"{response.status}"


def round_trip(objects: Objects) -> str:
    for number, size in enumerate((0, 1, len(CONTENT))):
        _stored(objects, f"round-trip/{number}", CONTENT[:size])
        response = objects.get(f"round-trip/{number}")
        if (response.status, response.body) != (200, CONTENT[:size]):
            return f"{response.status} for {size} bytes"
    return HOLDS


def large(objects: Objects) -> str:
    response = objects.send("PUT", "large", {}, LARGE)
    if not response.is_success:
        return f"{response.status} to the PUT"
    read = objects.get("large")
    return HOLDS if read.body == LARGE else f"{read.status} to the GET"


def etag_is_md5(objects: Objects) -> str:
    _stored(objects, "etag")
    etag = objects.head("etag").etag
    return HOLDS if etag == f'"{_md5(CONTENT)}"' else f"`{etag}`" if etag else "no ETag"


def etag_changes(objects: Objects) -> str:
    _stored(objects, "changes")
    first = objects.head("changes").etag
    _stored(objects, "changes", CONTENT[::-1])
    return HOLDS if first != objects.head("changes").etag else f"both versions have `{first}`"


def head_describes(objects: Objects) -> str:
    _stored(objects, "head")
    response = objects.head("head")
    missing = [name for name in ("content-length", "etag", "last-modified") if not response.fields.get(name)]
    if missing:
        return f"no {', '.join(missing)}"
    length = response.fields["content-length"]
    return HOLDS if length == str(len(CONTENT)) else f"Content-Length {length}"


def keeps_fields(objects: Objects) -> str:
    assert objects.send("PUT", "fields", KEPT, CONTENT).is_success
    response = objects.get("fields")
    changed = [name for name, value in KEPT.items() if response.fields.get(name.lower()) != value]
    return HOLDS if not changed else f"lost or changed: {', '.join(changed)}"


def ranges(objects: Objects) -> str:
    _stored(objects, "ranges")
    size, wrong = len(CONTENT), []
    for text, start, stop in (("0-0", 0, 1), ("10-19", 10, 20), ("100-", 100, size), ("-5", size - 5, size)):
        response = objects.get("ranges", Range=f"bytes={text}")
        right = (206, CONTENT[start:stop], f"bytes {start}-{stop - 1}/{size}")
        if (response.status, response.body, response.fields.get("content-range")) != right:
            wrong.append(f"{text}: {response.status} {response.fields.get('content-range', '')}".strip())
    return HOLDS if not wrong else "; ".join(wrong)


def range_beyond_end(objects: Objects) -> str:
    _stored(objects, "beyond")
    return _expected(objects.get("beyond", Range=f"bytes={len(CONTENT)}-"), 416)


def if_none_match(objects: Objects) -> str:
    _stored(objects, "not-modified")
    etag = objects.head("not-modified").etag
    if not etag:
        return "no ETag"
    found = [objects.get("not-modified", If_None_Match=value).status for value in (etag, '"other"')]
    return HOLDS if found == [304, 200] else f"{found[0]} for the same, {found[1]} for another"


def if_match(objects: Objects) -> str:
    _stored(objects, "match")
    etag = objects.head("match").etag
    if not etag:
        return "no ETag"
    found = [objects.get("match", If_Match=value, Range="bytes=0-9").status for value in (etag, '"other"')]
    return HOLDS if found == [206, 412] else f"{found[0]} for the same, {found[1]} for another"


def create_only(objects: Objects) -> str:
    _stored(objects, "create", b"old")
    response = objects.put("create", b"new", If_None_Match="*")
    if objects.get("create").body == b"new":
        return f"{response.status}, and replaced"
    return _expected(response, 412)


def replace_only(objects: Objects) -> str:
    _stored(objects, "replace", b"old")
    response = objects.put("replace", b"new", If_Match=f'"{_md5(b"other")}"')
    if objects.get("replace").body == b"new":
        return f"{response.status}, and replaced"
    return _expected(response, 412)


def content_md5(objects: Objects) -> str:
    digest = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    response = objects.put("content-md5", CONTENT, Content_MD5=digest)
    if objects.get("content-md5").status != 404:
        return f"{response.status}, and stored"
    return _expected(response, 400)


def checksum(objects: Objects) -> str:
    digest = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
    response = objects.put("checksum", CONTENT, x_amz_checksum_crc32=digest)
    if objects.get("checksum").status != 404:
        return f"{response.status}, and stored"
    return _expected(response, 400)


def absent(objects: Objects) -> str:
    found = [objects.get("absent").status, objects.head("absent").status, objects.delete("absent").status]
    return HOLDS if found == [404, 404, 204] else "GET {}, HEAD {}, DELETE {}".format(*found)


def deletes(objects: Objects) -> str:
    _stored(objects, "deleted")
    found = [objects.delete("deleted").status, objects.get("deleted").status]
    return HOLDS if found == [204, 404] else f"{found[0]}, then {found[1]}"


def keys(objects: Objects) -> str:
    wrong = []
    for key in ODD_KEYS:
        content = key.encode()
        response = objects.put(key, content)
        if not response.is_success:
            wrong.append(f"{_shown(key)}: {response.status}")
        elif (read := objects.get(key)).body != content:
            wrong.append(f"{_shown(key)}: {read.status} to the GET")
        objects.delete(key)
    return HOLDS if not wrong else ", ".join(wrong)


def _shown(key: str) -> str:
    return f"“{key[:12]}”"


PROBES = (
    Probe("What is written is read", round_trip),
    Probe("9 MiB in one PUT", large),
    Probe("The ETag is the MD5", etag_is_md5),
    Probe("An overwrite changes the ETag", etag_changes),
    Probe("HEAD has Content-Length, ETag, Last-Modified", head_describes),
    Probe("Content fields and metadata are kept", keeps_fields),
    Probe("Ranges", ranges),
    Probe("416 beyond the end", range_beyond_end),
    Probe("GET with If-None-Match", if_none_match),
    Probe("GET with If-Match", if_match),
    Probe("PUT with `If-None-Match: *`", create_only),
    Probe("PUT with If-Match", replace_only),
    Probe("A wrong Content-MD5 is refused", content_md5),
    Probe("A wrong checksum is refused", checksum),
    Probe("404 for what is absent, 204 for its DELETE", absent),
    Probe("DELETE", deletes),
    Probe("Each key is a name of its own", keys),
)


def tried(probe: Probe, objects: Objects) -> str:
    """Return what the probe found. A probe whose own preparation fails tells that."""
    try:
        return probe.run(objects)
    except (AssertionError, OSError) as error:
        return str(error) or type(error).__name__
