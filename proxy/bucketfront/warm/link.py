"""What a playlist or a sitemap refers to. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from bucketfront.errors import ProxyError


class NotFollowed(ProxyError):
    """A document is no playlist or sitemap that can be followed. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Link:
    """One reference. `uri` is resolved against `bases`, outermost first, and they against the document's own URL.

    `first` and `last` are the bytes of a range, both None for the whole object.
    """

    uri: str
    bases: tuple[str, ...] = ()
    first: int | None = None
    last: int | None = None


Links = Iterator[Link]
