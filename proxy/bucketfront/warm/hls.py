"""The references of an HLS playlist, master or media (RFC 8216). Pure.

Only the tags with URIs and byte ranges are read. Any other tag may have any content, as section 6.3.1 requires.
"""

import re

from bucketfront.warm.link import Link, Links, NotFollowed

# RFC 8216 sections 4.3.2.4, 4.3.2.5, 4.3.4.1, 4.3.4.3, 4.3.4.4, and EXT-X-PART of its second edition.
_TAGS_WITH_URI = frozenset(
    {
        "#EXT-X-MAP",
        "#EXT-X-KEY",
        "#EXT-X-SESSION-KEY",
        "#EXT-X-SESSION-DATA",
        "#EXT-X-MEDIA",
        "#EXT-X-I-FRAME-STREAM-INF",
        "#EXT-X-PART",
    }
)
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')
_BYTE_RANGE = re.compile(r"([0-9]{1,18})(?:@([0-9]{1,18}))?")


def links(text: str) -> Links:
    """Yield the references of a playlist in its order. Raises NotFollowed."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "#EXTM3U":
        raise NotFollowed("it is no HLS playlist: its first line is not #EXTM3U")
    ends: dict[str, int] = {}  # where the last range of each URI ended, at which the next one begins
    wanted: str | None = None
    for line in map(str.strip, lines[1:]):
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-BYTERANGE":
            wanted = value
        elif tag in _TAGS_WITH_URI:
            attributes = {name: given.strip('"') for name, given in _ATTRIBUTE.findall(value)}
            if uri := attributes.get("URI"):
                yield _ranged(uri, attributes.get("BYTERANGE"), ends)
        elif line and not line.startswith("#"):
            yield _ranged(line, wanted, ends)
            wanted = None


def _ranged(uri: str, byte_range: str | None, ends: dict[str, int]) -> Link:
    """Return the link with its range (RFC 8216 section 4.3.2.2). A malformed range stands for the whole object."""
    match = None if byte_range is None else _BYTE_RANGE.fullmatch(byte_range.strip())
    if match is None or not int(match[1]):
        return Link(uri)
    start = ends.get(uri, 0) if match[2] is None else int(match[2])
    ends[uri] = start + int(match[1])
    return Link(uri, first=start, last=ends[uri] - 1)
