"""What a job fills: items, from request paths or from lists of S3."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bucketfront.http import ranges
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey
from bucketfront.s3.listing import ListPage
from bucketfront.warm.manifest import Wanted
from bucketfront.warm.places import Place, Places

ListObjects = Callable[[str, str, str | None], Awaitable[ListPage]]


@dataclass(frozen=True, slots=True)
class Item:
    """One object to fill. `path` is percent-encoded, as clients send it, without a query.

    `range` is the value of a Range header, None for all of it. `size` is known from a list. `depth` counts the
    documents that led to it. `is_listed` is true if it comes from a list of a bucket.
    """

    key: ObjectKey
    path: str
    range: str | None = None
    size: int | None = None
    depth: int = 0
    is_listed: bool = False

    def spans(self, size: int) -> tuple[Span, ...]:
        """Return the wanted bytes of an object of that size."""
        if self.range is None:
            return (Span(0, size),)
        found = ranges.parse(self.range, size)
        if found is ranges.IGNORED:
            return (Span(0, size),)
        return () if found is ranges.UNSATISFIABLE else found


def named(wanted: Iterable[Wanted], places: Places) -> list[Item]:
    """Return the items of request paths. Raises BadPath, NoSuchMount."""
    return [Item(places.key(one.path), one.path.partition("?")[0], one.range) for one in wanted]


async def listed(below: Sequence[Place], places: Places, lists: ListObjects) -> AsyncGenerator[list[Item], None]:
    """Yield what S3 lists of some places, page by page. Raises OriginErrors.

    A page is requested when the caller wants it, so that a list of any length takes little memory.
    """
    for place in below:
        token: str | None = None
        while True:
            page = await lists(place.mount.bucket, place.prefix, token)
            yield list(_shown(page, place, places))
            token = page.token
            if token is None:
                break


def _shown(page: ListPage, place: Place, places: Places) -> Iterator[Item]:
    for one in page.objects:
        path = places.path(place.mount, one.key)
        # An empty object with a slash at its end stands for a folder, and has no page.
        if path is not None and (one.size or not one.key.key.endswith("/")):
            yield Item(one.key, path, size=one.size, is_listed=True)
