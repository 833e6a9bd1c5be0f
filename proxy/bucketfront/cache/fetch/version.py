"""Ranged GETs of one version: version purity (docs/invariants.md#version-purity)."""

from collections.abc import Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.origin import NotModified, Origin, OriginResponse
from bucketfront.errors import (
    AccessDenied,
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    RangeUnsatisfiable,
)
from bucketfront.http.ranges import FromTo, Span
from bucketfront.keys import ObjectKey


class Version:
    """An entry's version at the origin. It is fetched by key while it is current, and by version id after that.

    `on_replaced` is called once, when a response shows that the version is no longer current.
    """

    def __init__(self, entry: Entry, origin: Origin, on_replaced: Callable[[Entry], None]) -> None:
        self._entry = entry
        self._origin = origin
        self._on_replaced = on_replaced
        self._replaced: str | None = None  # what showed that the version is no longer current

    async def fetch(self, part: FromTo) -> OriginResponse:
        """Return `part` of this version and of no other.

        Raises ObjectChanged if the origin no longer has the version: it has no version id, or the GET with it fails.
        Otherwise raises what `Origin.get` raises, except ObjectNotFound and RangeUnsatisfiable.
        """
        if self._replaced is None:
            try:
                return await self._get(self._entry.key, part)
            except ObjectChanged as error:
                self._replaced = str(error)
                # At once: later requests must get the new version, although this one may still be completed.
                self._on_replaced(self._entry)
        return await self._get_past(part, self._replaced)

    async def _get_past(self, part: FromTo, replaced: str) -> OriginResponse:
        key, version = self._entry.key, self._entry.metadata.version
        if key.version is not None or version is None:
            raise ObjectChanged(replaced)
        try:
            return await self._get(key._replace(version=version), part)
        except (ObjectChanged, AccessDenied, NoSuchVersion, DeleteMarker, InvalidOriginResponse) as error:
            # InvalidOriginResponse: some S3-alikes ignore a version id that they do not know, and send the current one.
            raise ObjectChanged(replaced) from error

    async def _get(self, key: ObjectKey, part: FromTo) -> OriginResponse:
        known = self._entry.metadata
        if not known.is_strong and part.within(known.size) != Span(0, known.size):
            raise ObjectChanged(f"{key} has no strong ETag, so all its bytes must come from one response")
        try:
            # If-Match compares strongly, so a weak ETag never matches (RFC 9110 section 13.1.1).
            response = await self._origin.get(key, part, if_match=known.etag if known.is_strong else None)
        except (ObjectNotFound, RangeUnsatisfiable) as error:
            # The part exists in this version, so a 404 or 416 means that the version was replaced or deleted.
            raise ObjectChanged(str(error)) from error
        assert not isinstance(response, NotModified)
        found = response.metadata
        if not found.is_version(known):
            response.body.close()
            was, now = (
                f"{one.etag} of {one.size} bytes, {one.last_modified}, version id {one.version}"
                for one in (known, found)
            )
            raise ObjectChanged(f"{key} was {was}, is {now}")
        return response
