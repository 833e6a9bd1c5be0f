"""From the text of a playlist, a manifest of DASH or a sitemap to the items that it names. Pure, for a thread.

References that lead out of the mounts of this proxy are counted, and no request is sent for them
(docs/invariants.md#fixed-egress). Queries are dropped: they do not change what the cache stores.
"""

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from urllib.parse import urljoin, urlsplit

from bucketfront.errors import BadPath, NoSuchMount
from bucketfront.http import media_types
from bucketfront.warm import dash, hls, sitemap
from bucketfront.warm.item import Item
from bucketfront.warm.link import Link, Links, NotFollowed
from bucketfront.warm.places import Places

MAX_DOCUMENT_BYTES = 8 << 20  # a playlist of a day, or a sitemap of 50,000 locations
MAX_LINKS = 50_000  # of one document, as in a sitemap; more of them would take too much memory
MAX_DEPTH = 4  # a sitemap's index, a sitemap, a master playlist, a media playlist
MAX_RANGES = 100  # of one object, as in a Range header; an object with more is filled whole
_SELF = "http://self.invalid"  # RFC 6761 section 6.4: no host has this name


class Kind(Enum):
    HLS = "HLS playlist"
    DASH = "DASH manifest"
    SITEMAP = "sitemap"


@dataclass(frozen=True, slots=True)
class Followed:
    """What a document names: items, and the number of references that lead elsewhere, with the host of one of them."""

    items: tuple[Item, ...] = ()
    outside: int = 0
    example: str | None = None
    is_cut: bool = False  # it names more than MAX_LINKS


def kind_of(item: Item, content_type: str) -> Kind | None:
    """Return what kind of document an object is, or None for one that is not followed.

    An XML file is taken for a sitemap only if an operator or a sitemap names it.
    """
    name, essence = item.key.key.lower(), media_types.essence(content_type)
    if name.endswith((".m3u8", ".m3u")) or essence in ("application/vnd.apple.mpegurl", "application/x-mpegurl"):
        return Kind.HLS
    if name.endswith(".mpd") or essence == "application/dash+xml":
        return Kind.DASH
    if name.endswith(".xml") and not item.is_listed:
        return Kind.SITEMAP
    return None


def follow(kind: Kind, document: bytes, item: Item, places: Places, hosts: frozenset[str]) -> Followed:
    """Return what the document of an item names. Absolute URLs count as ours if their host is one of `hosts`.

    Raises NotFollowed.
    """
    found = _links(kind, document)
    ranges: defaultdict[str, list[tuple[int, int] | None]] = defaultdict(list)
    outside, example = 0, None
    for link in islice(found, MAX_LINKS):
        path, host = _resolved(link, item.path, hosts)
        if path is None or not _is_inside(path, places):
            outside += 1
            example = example or host
            continue
        ranges[path].append(None if link.first is None or link.last is None else (link.first, link.last))
    items = (Item(places.key(path), path, _joined(spans), depth=item.depth + 1) for path, spans in ranges.items())
    return Followed(tuple(items), outside, example, is_cut=next(found, None) is not None)


def _links(kind: Kind, document: bytes) -> Links:
    match kind:
        case Kind.HLS:
            return hls.links(document.decode("utf-8", "replace"))
        case Kind.DASH:
            return dash.links(document)
        case Kind.SITEMAP:
            return sitemap.links(document)


def _resolved(link: Link, path: str, hosts: frozenset[str]) -> tuple[str | None, str | None]:
    """Return the path of a reference on this proxy, or else the host that it names, if any."""
    url = _SELF + path
    try:
        for part in (*link.bases, link.uri):
            url = urljoin(url, part)
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None, None
    is_ours = url.startswith(f"{_SELF}/") or (parts.scheme in ("http", "https") and host in hosts)
    return (parts.path or "/", None) if is_ours else (None, host or None)


def _is_inside(path: str, places: Places) -> bool:
    try:
        places.key(path)
    except (BadPath, NoSuchMount):
        return False
    return True


def _joined(spans: list[tuple[int, int] | None]) -> str | None:
    """Return the Range of all of these bytes. Returns None if one of them, or their number, stands for the whole."""
    merged: list[tuple[int, int]] = []
    for span in sorted(span for span in spans if span is not None):
        if merged and span[0] <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], span[1])
        else:
            merged.append(span)
    if None in spans or len(merged) > MAX_RANGES:
        return None
    return "bytes=" + ",".join(f"{first}-{last}" for first, last in merged)


__all__ = ["MAX_DEPTH", "MAX_DOCUMENT_BYTES", "MAX_LINKS", "Followed", "Kind", "NotFollowed", "follow", "kind_of"]
