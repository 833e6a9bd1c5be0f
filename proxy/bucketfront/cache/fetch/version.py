"""How the origin is asked for bytes of one version, and what of its answers is believed (I1)."""

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
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey


class Version:
    """An entry's version at the origin: asked for by key while it is the current one, by its version id after that.

    `changed` is told that it is not current any more, when that is found out.
    """

    def __init__(self, entry: Entry, origin: Origin, changed: Callable[[Entry], None]) -> None:
        self._entry = entry
        self._origin = origin
        self._changed = changed
        self._replaced: str | None = None  # how it was found out

    async def ask(self, part: FromTo) -> OriginResponse:
        """`part` of this version and of no other.

        Raises ObjectChanged where it is to be had no more: it has no version id, or the origin does not give it by that
        one. Else as `Origin.get`, but for ObjectNotFound and RangeUnsatisfiable.
        """
        if self._replaced is None:
            try:
                return await self._get(self._entry.key, part)
            except ObjectChanged as error:
                self._replaced = str(error)
                # At once: whoever comes from now on gets the new version, though this one may still be completed.
                self._changed(self._entry)
        return await self._get_past(part, self._replaced)

    async def _get_past(self, part: FromTo, replaced: str) -> OriginResponse:
        key, version = self._entry.key, self._entry.metadata.version
        if key.version is not None or version is None:
            raise ObjectChanged(replaced)
        try:
            return await self._get(key._replace(version=version), part)
        except (ObjectChanged, AccessDenied, NoSuchVersion, DeleteMarker, InvalidOriginResponse) as error:
            # InvalidOriginResponse: S3-alikes ignore a version id that they do not know, and send what is current.
            raise ObjectChanged(replaced) from error

    async def _get(self, key: ObjectKey, part: FromTo) -> OriginResponse:
        known = self._entry.metadata
        try:
            answer = await self._origin.get(key, part, if_match=known.etag)
        except (ObjectNotFound, RangeUnsatisfiable) as error:
            # A part of this version exists: who has no such object or range now has another version, or none.
            raise ObjectChanged(str(error)) from error
        assert not isinstance(answer, NotModified)
        found = answer.metadata
        if not found.is_version(known):
            answer.body.close()
            raise ObjectChanged(f"{key} was {known.etag} of {known.size} bytes, is {found.etag} of {found.size}")
        return answer
