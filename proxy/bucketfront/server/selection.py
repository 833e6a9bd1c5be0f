"""Which objects may answer a path, in the order in which they are tried: the key itself; on a mount with a site or with
precompressed siblings, others as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bucketfront.errors import BadPath
from bucketfront.http import media_types, negotiation
from bucketfront.keys import MAX_KEY_BYTES, ObjectKey
from bucketfront.server.router import Route

_SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """`name` is the key that type and rules go by: `a.js` for its sibling `a.js.br`, whose `coding` is br. `varies`:
    another Accept-Encoding may get another object. `is_folder`: if it is there, the path only lacks its last "/".
    `is_fallback`: it is another resource's, for a path that has no object.
    """

    key: ObjectKey
    name: str
    coding: str | None = None
    varies: bool = False
    is_folder: bool = False
    is_fallback: bool = False


def candidates(route: Route, version: str | None, accept_encoding: str | None) -> Iterator[Candidate]:
    """At least one; each is made when its turn comes, and most paths need the first only. Raises BadPath."""
    if version is not None:
        key = route.key()._replace(version=version)
        yield Candidate(key, key.key)
        return
    site = route.mount.site
    if site is None:
        yield from _with_siblings(route, route.octets, accept_encoding)
        return
    is_folder = not route.octets or route.octets.endswith(b"/")
    index = site.index.encode()
    yield from _with_siblings(route, route.octets + index if is_folder else route.octets, accept_encoding)
    if not is_folder:
        for extension in site.try_extensions:
            yield from _unless_too_long(route, route.octets + extension.encode(), accept_encoding)
        # A Location that begins with two slashes would name another host.
        if site.redirect_folders and not route.path.startswith(b"//"):
            for folder in _unless_too_long(route, route.octets + b"/" + index, None):
                yield replace(folder, is_folder=True)
    if site.fallback is not None:
        for document in _with_siblings(route, site.fallback.encode(), accept_encoding):
            yield replace(document, is_fallback=True)


def error_document(route: Route, status: int) -> ObjectKey | None:
    """The document that a site shows with that status."""
    site = route.mount.site
    name = None if site is None else site.errors.get(str(status))
    return None if name is None else ObjectKey(route.mount.bucket, route.mount.prefix + name)


def _unless_too_long(route: Route, octets: bytes, accept_encoding: str | None) -> list[Candidate]:
    """For names that are longer than the path was."""
    try:
        return _with_siblings(route, octets, accept_encoding)
    except BadPath:
        return []


def _with_siblings(route: Route, octets: bytes, accept_encoding: str | None) -> list[Candidate]:
    """The object, behind those of its precompressed siblings that the client takes."""
    key = replace(route, octets=octets).key()
    offered: list[str] = list(route.mount.precompressed) if media_types.is_compressible(key.key) else []
    varies = bool(offered)
    found: list[Candidate] = []
    while offered and (coding := negotiation.coding(accept_encoding, offered)) is not None:
        offered.remove(coding)
        sibling = key.key + _SUFFIXES[coding]
        if len(sibling.encode()) <= MAX_KEY_BYTES:
            found.append(Candidate(key._replace(key=sibling), key.key, coding, varies=True))
    return [*found, Candidate(key, key.key, varies=varies)]
