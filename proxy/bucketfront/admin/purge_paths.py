"""What paths, prefixes and globs of URLs select in the cache. No I/O here.

A purge selects more rather than less. If a nested mount hides a part of an outer mount, the keys of both are selected:
those of the outer one may be in the cache from another route or an earlier configuration.
"""

from collections.abc import Iterator
from dataclasses import replace

from bucketfront.cache import KeyRange, PathGlob
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import BadPath, NoSuchMount
from bucketfront.http.glob import glob_of
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import ObjectKey, parse_target
from bucketfront.server.router import Route, Router
from bucketfront.server.selection import candidates

_ALL_CODINGS = "br, zstd, gzip"


def _admit(_: ObjectKey) -> None:
    """Admit every key, because operators may purge all of them."""


class PurgePaths:
    """The mounts as a purge sees them. All paths are percent-encoded, as clients send them."""

    def __init__(self, mounts: tuple[MountSettings, ...]) -> None:
        self._mounts = mounts
        self._router = Router(mounts, None)

    def keys(self, path: str) -> set[ObjectKey]:
        """Return the keys of all objects that may serve a path: of a site its index page and the like as well.

        The document that a site has for missing paths, and those for errors, have paths of their own. Raises BadPath,
        NoSuchMount.
        """
        route = self._router.locate(path).with_admission(_admit)
        found = set(_keys_of(route))
        for mount in self._mounts:
            if mount is not route.mount and route.path.startswith(mount.path.encode()):
                try:
                    found.update(_keys_of(replace(route, mount=mount, octets=_rest(route.path, mount))))
                except BadPath:
                    continue  # the path names a key below the nested mount alone
        return found

    def below(self, prefix: str) -> list[KeyRange]:
        """Return what all mounts show at the paths that begin with `prefix`. Raises BadPath, NoSuchMount."""
        octets = parse_target(prefix).path
        try:
            found = [KeyRange(mount.bucket, tail.decode()) for mount, tail in self._reached(octets)]
        except UnicodeDecodeError as error:
            raise BadPath("the prefix is not UTF-8") from error
        if not found:
            raise NoSuchMount("no mount serves a path with this prefix")
        return found

    def matching(self, pattern: str) -> list[KeyRange]:
        """Return what all mounts show at the paths that match a glob. Raises BadPath, NoSuchMount."""
        glob = glob_of(pattern)
        is_anchored = "/" in pattern
        head = f"/{glob.head}" if is_anchored else ""
        found = [
            KeyRange(mount.bucket, tail.decode(), PathGlob(pattern, mount.path, len(mount.prefix)))
            for mount, tail in self._reached(head.encode())
        ]
        if not found:
            raise NoSuchMount("no mount serves a path that this glob matches")
        return found

    def path_of(self, key: ObjectKey) -> str | None:
        """Return a path that shows the key, or None if no mount does."""
        return next(iter(self._router.paths(key._replace(version=None))), None)

    def _reached(self, head: bytes) -> Iterator[tuple[MountSettings, bytes]]:
        """Yield the mounts that show paths with this begin, each with the begin of its keys there."""
        for mount in self._mounts:
            path = mount.path.encode()
            if path.startswith(head):
                yield mount, mount.prefix.encode()
            elif head.startswith(path):
                yield mount, mount.prefix.encode() + head[len(path) :]


def _keys_of(route: Route) -> Iterator[ObjectKey]:
    for candidate in candidates(route, None, _ALL_CODINGS, Dialect.HTTP):
        if not candidate.is_fallback:
            yield candidate.key


def _rest(path: bytes, mount: MountSettings) -> bytes:
    return path[len(mount.path.encode()) :]
