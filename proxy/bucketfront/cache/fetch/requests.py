"""What the origin is asked about an object whose size, or version, is not known yet."""

from dataclasses import replace

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.read_ahead import ReadAhead
from bucketfront.cache.origin import NotModified, Origin, OriginResponse
from bucketfront.errors import OriginUnavailable, RangeUnsatisfiable
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey

MAX_OBJECT = 1 << 50  # beyond any object of S3: nothing there to ask for by range


async def fetch_initial(
    origin: Origin, ramp: ReadAhead, key: ObjectKey, part: FromTo | Suffix | None, *, get: bool
) -> OriginResponse | Metadata:
    """What there is, with its first bytes if they are to be had. Raises the OriginErrors of `Origin.get`."""
    return _unconditional(key, await _ask(origin, ramp, key, part, None, get=get))


async def revalidate(
    origin: Origin, ramp: ReadAhead, stale: Entry, part: FromTo | Suffix | None, *, get: bool
) -> tuple[OriginResponse | Metadata, int]:
    """A new version, with its first bytes; or what holds of the one that is stale. And the origin's status.

    An object that was copied onto itself keeps its ETag and gets new metadata: its Last-Modified tells. All that
    is kept comes from one answer (I4), so that one is asked for. A HEAD costs no bytes: it is not conditional, and
    tells all there is.
    """
    known = stale.metadata
    if not get:
        return _unconditional(stale.key, await origin.head(stale.key)), 200
    answer = await _ask(origin, ramp, stale.key, part, known.etag, get=True)
    if isinstance(answer, NotModified):
        if answer.last_modified in (None, known.last_modified):
            return replace(known, age=answer.age), 304
        return _unconditional(stale.key, await origin.head(stale.key)), 304
    if isinstance(answer, OriginResponse) and known.is_version(answer.metadata) and stale.file is not None:
        # The origin does not know If-None-Match.
        answer.body.close()
        return answer.metadata, 206
    return answer, 200


async def _ask(
    origin: Origin, ramp: ReadAhead, key: ObjectKey, part: FromTo | Suffix | None, etag: str | None, *, get: bool
) -> OriginResponse | Metadata | NotModified:
    if get and not (isinstance(part, FromTo) and part.start >= MAX_OBJECT):
        try:
            return await origin.get(key, _first_part(ramp, part), if_none_match=etag)
        except RangeUnsatisfiable:
            pass  # beyond the end, or the object is empty: its size is needed
    return await origin.head(key, if_none_match=etag)


def _first_part(ramp: ReadAhead, part: FromTo | Suffix | None) -> FromTo | Suffix:
    """What to ask for before the size is known: whole blocks around the client's range, one part at most.

    Of a range that may be dropped at any time only what `ReadAhead` gives such a reader first.
    """
    size, limit = ramp.block_size, ramp.part_size
    if part is None:
        return FromTo(0, limit)
    if isinstance(part, Suffix):
        # The object's end need not be a block's end: one block more makes the first of them whole.
        return Suffix(min(max(part.length, 1), limit) + size)
    start = part.start // size * size
    if part.stop is None or part.stop - part.start > limit:
        return FromTo(start, start + ramp.first)
    return FromTo(start, min(start + limit, -(-part.stop // size) * size))


def _unconditional(key: ObjectKey, answer: OriginResponse | Metadata | NotModified) -> OriginResponse | Metadata:
    """Raises OriginUnavailable."""
    if isinstance(answer, NotModified):
        raise OriginUnavailable(f"{key}: the origin answered 304 to an unconditional request")
    return answer
