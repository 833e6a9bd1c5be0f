"""The references of a sitemap, and of an index of sitemaps (sitemaps.org, protocol 0.9). Pure."""

from bucketfront.warm.link import Link, Links, NotFollowed
from bucketfront.warm.xml_tree import parse

_ENTRIES = {"urlset": "url", "sitemapindex": "sitemap"}
_KEPT = {"url", "sitemap", "loc"}


def links(document: bytes) -> Links:
    """Yield the locations of a sitemap in its order. Raises NotFollowed."""
    root = parse(document, _KEPT)
    entry = _ENTRIES.get(root.name)
    if entry is None:
        raise NotFollowed("it is no sitemap: its root is neither urlset nor sitemapindex")
    for element in root.all(entry):
        location = element.first("loc")
        if location is not None and (text := location.text.strip()):
            yield Link(text)
