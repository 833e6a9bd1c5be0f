"""The requests of a lookup, about an object whose size or current version is not known yet."""

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.read_ahead import ReadAhead
from bucketfront.cache.origin import NotModified, Origin, OriginResponse
from bucketfront.errors import OriginUnavailable, RangeIgnored, RangeUnsatisfiable
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey

MAX_OBJECT_BYTES = 1 << 50  # larger than any object of S3, so a range that begins there needs no GET


async def fetch_initial(
    origin: Origin, read_ahead: ReadAhead, key: ObjectKey, part: FromTo | Suffix | None, *, get: bool
) -> OriginResponse | Metadata:
    """Return the object's metadata, with its first bytes if `get` and the range allow. Raises as `Origin.get`."""
    return _unconditional(key, await _get_or_head(origin, read_ahead, key, part, None, get=get))


async def revalidate(
    origin: Origin, read_ahead: ReadAhead, stale: Entry, part: FromTo | Suffix | None, *, get: bool
) -> tuple[OriginResponse | Metadata, int]:
    """Return a new version with its first bytes, or the present metadata of the stale one; and the origin's status.

    A 304 renews the fields of the lifetime. An object that is copied onto itself keeps its ETag and gets new metadata,
    and maybe other bytes, if its ETag does not tell versions apart. Its Last-Modified shows that, and it is fetched
    again. If another field of the 304 differs, a HEAD fetches the metadata, because all stored metadata of the object
    comes from one response (docs/invariants.md#one-source-of-metadata). Without `get` an unconditional HEAD is enough,
    because it has no body to save.

    If nothing but the ETag tells the versions apart, only a 304 confirms the stale one.
    """
    known = stale.metadata
    if not get and known.has_second_validator:
        return _unconditional(stale.key, await origin.head(stale.key)), 200
    etag = known.etag if known.has_validator else None
    response = await _get_or_head(origin, read_ahead, stale.key, part, etag, get=get)
    if isinstance(response, NotModified):
        renewed = known.renewed(
            response.last_modified, response.headers, response.age, response.date, response.cache_status
        )
        if renewed is not None:
            return renewed, 304
        if None not in (response.last_modified, known.last_modified) and response.last_modified != known.last_modified:
            response = await fetch_initial(origin, read_ahead, stale.key, part, get=get)
            return response, response.status if isinstance(response, OriginResponse) else 200
        return _unconditional(stale.key, await origin.head(stale.key)), 304
    if (
        isinstance(response, OriginResponse)
        and stale.file is not None
        and known.has_second_validator
        and known.is_version(response.metadata)
    ):
        # This origin ignores If-None-Match.
        response.body.close()
        return response.metadata, response.status
    return response, response.status if isinstance(response, OriginResponse) else 200


async def _get_or_head(
    origin: Origin,
    read_ahead: ReadAhead,
    key: ObjectKey,
    part: FromTo | Suffix | None,
    etag: str | None,
    *,
    get: bool,
) -> OriginResponse | Metadata | NotModified:
    if get and not (isinstance(part, FromTo) and part.start >= MAX_OBJECT_BYTES):
        try:
            try:
                response = await origin.get(key, _first_part(read_ahead, part), if_none_match=etag)
            except RangeIgnored:
                return await origin.get(key, FromTo(0), if_none_match=etag)
            if isinstance(response, OriginResponse) and not _may_be_joined(response):
                response.body.close()
                response = await origin.get(key, FromTo(0), if_none_match=etag)
            return response
        except RangeUnsatisfiable:
            # The range is beyond the end, or the object is empty: a HEAD has the size.
            found = await origin.head(key, if_none_match=etag)
            if isinstance(found, Metadata) and _must_come_whole(found, part):
                return await origin.get(key, FromTo(0), if_none_match=etag)
            return found
    return await origin.head(key, if_none_match=etag)


def _must_come_whole(found: Metadata, part: FromTo | Suffix | None) -> bool:
    """Return whether a range exists after all, of an object whose bytes must all come in one response.

    Some S3-alikes send 416 for a suffix that is longer than the object, and `_first_part` makes such ones.
    """
    return not found.is_strong and part is not None and part.within(found.size) is not None


def _may_be_joined(response: OriginResponse) -> bool:
    """Return whether the response has all bytes, or other responses may bring the rest of them."""
    return response.metadata.is_strong or (response.start == 0 and response.stop == response.metadata.size)


def _first_part(read_ahead: ReadAhead, part: FromTo | Suffix | None) -> FromTo | Suffix:
    """Return the range to request before the size is known: whole blocks around `part`, at most one part.

    A range without an end may be dropped at any time, so it gets only what `ReadAhead` allows such a reader first. So
    does a long one from the middle, whose end may be the object's: see `ReadAhead.is_eager`.
    """
    size, limit = read_ahead.block_size, read_ahead.part_size
    if part is None:
        return FromTo(0, limit)
    if isinstance(part, Suffix):
        # The object's end need not be a block's end. One block more makes the first of them whole.
        return Suffix(min(max(part.length, 1), limit) + size)
    start = part.start // size * size
    if part.stop is None:
        return FromTo(start, start + read_ahead.first)
    stop = -(-part.stop // size) * size
    if stop - start <= read_ahead.longest:
        return FromTo(start, stop)
    return FromTo(start, start + (read_ahead.first if start else limit))


def _unconditional(key: ObjectKey, response: OriginResponse | Metadata | NotModified) -> OriginResponse | Metadata:
    """Return the response unless it is a 304. Raises OriginUnavailable."""
    if isinstance(response, NotModified):
        raise OriginUnavailable(f"{key}: the origin answered 304 to an unconditional request")
    return response
