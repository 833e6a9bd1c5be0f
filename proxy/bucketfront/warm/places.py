"""Between request paths and keys, for operators: what a path or a prefix names, and the path that shows a key."""

from collections.abc import Sequence
from dataclasses import dataclass

from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import BadPath, NoSuchMount
from bucketfront.keys import ObjectKey, parse_target, percent_encode, url_path
from bucketfront.server.router import Router


@dataclass(frozen=True, slots=True)
class Place:
    """Keys that begin with `prefix`, as `mount` shows them."""

    mount: MountSettings
    prefix: str


class Places:
    """The mounts of this proxy."""

    def __init__(self, mounts: Sequence[MountSettings]) -> None:
        self._mounts = mounts
        self._router = Router(tuple(mounts), None)

    def key(self, path: str) -> ObjectKey:
        """Return the object of a request path. The path of a folder names its index. Raises BadPath, NoSuchMount."""
        route = self._router.locate(path)
        site = route.mount.site
        is_folder = not route.octets or route.octets.endswith(b"/")
        return route.unadmitted_key(site.index if site is not None and is_folder else "")

    def below(self, path: str) -> list[Place]:
        """Return the places whose keys have paths that begin with `path`. Raises BadPath, NoSuchMount.

        These are the part of one mount, and all of the mounts further down.
        """
        octets = parse_target(path).path
        found = [Place(mount, mount.prefix) for mount in self._mounts if mount.path.encode().startswith(octets)]
        try:
            route = self._router.locate(path)
        except NoSuchMount:
            if not found:
                raise
            return found
        try:
            prefix = (route.mount.prefix.encode() + route.octets).decode()
        except UnicodeDecodeError as error:
            raise BadPath("the prefix is not UTF-8") from error
        place = Place(route.mount, prefix)
        return found if place in found else [place, *found]

    def path(self, mount: MountSettings, key: ObjectKey) -> str | None:
        """Return the path under which `mount` shows a key. Returns None if another mount has that path."""
        path = url_path(mount.path.encode()) + percent_encode(key.key[len(mount.prefix) :])
        try:
            is_shown = self._router.locate(path).mount is mount
        except (BadPath, NoSuchMount):
            return None
        return path if is_shown else None
