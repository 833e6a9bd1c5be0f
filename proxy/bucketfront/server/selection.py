"""The objects that may serve a path, in the order in which the proxy tries them.

The first is the key itself. A mount with a site or with precompressed siblings has further ones. A client of S3 names
one object, so there are no further ones for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bucketfront.errors import BadPath
from bucketfront.http import media_types, negotiation
from bucketfront.http.key_template import has_dot_segment, without_dot_segments
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import MAX_KEY_BYTES, ObjectKey
from bucketfront.server.router import Route

_SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One object that may serve a path.

    `name` is the key that decides on type and rules: `a.js` for its sibling `a.js.br`, whose `coding` is br. `varies`
    is true if another Accept-Encoding may select another object. If the object exists, the client is redirected to
    `location`, unless that is None. `is_fallback` is true for the document that a site has for missing paths.
    `is_optional` is true if the path may well be served without it: for siblings and for names that a site adds to.
    """

    key: ObjectKey
    name: str
    coding: str | None = None
    varies: bool = False
    location: str | None = None
    is_fallback: bool = False
    is_optional: bool = False


def candidates(route: Route, version: str | None, accept_encoding: str | None, dialect: Dialect) -> Iterator[Candidate]:
    """Yield at least one candidate. Each is made when it is needed, because most paths need only the first.

    Raises BadPath, and the ProxyError of a stage that refuses a candidate's key.
    """
    if version is not None or dialect is Dialect.S3:
        key = route.key()._replace(version=version)
        yield Candidate(key, key.key)
        return
    site = route.mount.site
    if site is None:
        yield from _with_siblings(route, route.octets, accept_encoding)
        yield from _without_dot_segments(route, "")
        return
    is_folder = not route.octets or route.octets.endswith(b"/")
    index = site.index.encode()
    yield from _with_siblings(route, route.octets + index if is_folder else route.octets, accept_encoding)
    if not is_folder:
        for extension in site.try_extensions:
            for longer in _unless_too_long(route, route.octets + extension.encode(), accept_encoding):
                yield replace(longer, is_optional=True)
        # A Location that begins with two slashes would name another host.
        if site.redirect_folders and not route.path.startswith(b"//"):
            for folder in _unless_too_long(route, route.octets + b"/" + index, None):
                location = route.location_of(route.octets.decode()) + "/"
                yield replace(folder, location=location, is_optional=True)
    yield from _without_dot_segments(route, site.index)
    if site.fallback is not None:
        for document in _with_siblings(route, site.fallback.encode(), accept_encoding):
            yield replace(document, is_fallback=True)


def error_document(route: Route, status: int) -> ObjectKey | None:
    """Return the document that a site has for that status. Raises the ProxyError of a stage that refuses its key."""
    site = route.mount.site
    name = None if site is None else site.errors.get(str(status))
    return None if name is None else route.key_in_mount(name)


def _without_dot_segments(route: Route, index: str) -> Iterator[Candidate]:
    """Yield the object of the path without dot segments, if the path has some. `index` is the page of a folder.

    A key may have such segments (docs/invariants.md#one-name). But clients that are no browsers may not have resolved
    them, as apt for `deb https://host/repo ./`, and some origins take no such key.
    """
    whole = route.path.decode()
    if not has_dot_segment(whole):
        return
    path, mount = without_dot_segments(whole), route.mount.path
    name = path.removeprefix(mount)
    is_folder = not name or name.endswith("/")
    if path.startswith(mount) and (index or not is_folder):
        key = replace(route, octets=(name + index if is_folder else name).encode()).key()
        location = route.location(key._replace(key=key.key.removesuffix(index) if is_folder else key.key))
        yield Candidate(key, key.key, location=location, is_optional=True)


def _unless_too_long(route: Route, octets: bytes, accept_encoding: str | None) -> list[Candidate]:
    """Return the candidates for a name that is longer than the path. Returns none if it is too long for a key."""
    try:
        return _with_siblings(route, octets, accept_encoding)
    except BadPath:
        return []


def _with_siblings(route: Route, octets: bytes, accept_encoding: str | None) -> list[Candidate]:
    """Return the precompressed siblings that the client accepts, and then the object itself."""
    key = replace(route, octets=octets).key()
    offered: list[str] = list(route.mount.precompressed) if media_types.is_compressible(key.key) else []
    varies = bool(offered)
    found: list[Candidate] = []
    while offered and (coding := negotiation.coding(accept_encoding, offered)) is not None:
        offered.remove(coding)
        sibling = key.key + _SUFFIXES[coding]
        if len(sibling.encode()) <= MAX_KEY_BYTES:
            admitted = route.admitted(key._replace(key=sibling))
            found.append(Candidate(admitted, key.key, coding, varies=True, is_optional=True))
    return [*found, Candidate(key, key.key, varies=varies)]
