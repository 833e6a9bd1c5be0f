"""Which object, if any, a request is about, and whether its method is allowed there: decided before any lookup."""

from dataclasses import dataclass, replace

from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.errors import BadPath, NoSuchMount, ProxyError
from bucketfront.http import query
from bucketfront.keys import ObjectKey, Target, check_writable, parse_target, percent_encode, to_key

_KNOWN = ("GET", "HEAD", "PUT", "POST", "DELETE")


class MethodNotAllowed(ProxyError):
    """`allowed` are the methods that the path does take."""

    def __init__(self, allowed: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Route:
    """`octets` are the rest of the decoded `path` below the mount; `query` is raw. `makes_key`: a key is to be made in
    that folder. `deletes_many`: S3's DeleteObjects.
    """

    mount: MountSettings
    octets: bytes
    path: bytes = b""
    query: str = ""
    makes_key: bool = False
    deletes_many: bool = False

    def key(self, name: str = "") -> ObjectKey:
        """The object's key, `name` put behind the folder. Raises BadPath."""
        octets = self.mount.prefix.encode() + self.octets + name.encode()
        if not self.octets and not name:
            raise BadPath("the path names a mount, not an object")
        return ObjectKey(self.mount.bucket, to_key(octets))

    def key_to_write(self, name: str = "") -> ObjectKey:
        """The same, where an object is to be made. Raises BadPath."""
        key = self.key(name)
        check_writable(key.key)
        return key

    def relative(self, key: ObjectKey) -> str:
        """The key as a client of this mount knows it."""
        return key.key[len(self.mount.prefix) :]

    def location(self, key: ObjectKey) -> str:
        """The path of `key` as a URL of this server."""
        path = percent_encode(self.mount.path + self.relative(key))
        # RFC 3986 section 4.2: what begins with two slashes names a host (I29).
        return f"/%2F{path[2:]}" if path.startswith("//") else path


class Router:
    def __init__(self, mounts: tuple[MountSettings, ...], uploads: UploadSettings | None) -> None:
        self._mounts = sorted(((mount.path.encode(), mount) for mount in mounts), key=lambda pair: -len(pair[0]))
        self._uploads = None
        if uploads is not None:
            into = next(mount for mount in mounts if mount.path == uploads.mount)
            self._uploads = (uploads.path.encode(), into)

    def resolve(self, method: str, raw_target: str) -> Route:
        """Raises BadPath, BadQuery, NoSuchMount, MethodNotAllowed."""
        target = parse_target(raw_target)
        if method == "POST" and self._is_delete_objects(target):
            return replace(_allowed("DELETE", self._route(target)), deletes_many=True)
        if (upload := self._upload(method, target)) is not None:
            return upload
        return _allowed(method, self._route(target))

    def upload(self, raw_target: str) -> Route | None:
        """The path below the upload route, whatever the method; None where it is not below it. Raises BadPath."""
        return None if raw_target == "*" else self._upload("POST", parse_target(raw_target))

    def locate(self, raw_target: str) -> Route | None:
        """Return the route of a path for any method; None for "*". Raises BadPath, NoSuchMount."""
        if raw_target == "*":
            return None
        target = parse_target(raw_target)
        return self._upload("POST", target) or self._route(target)

    def methods(self, raw_target: str) -> tuple[str, ...]:
        """What a path takes, for OPTIONS (RFC 9110 section 9.3.7). Raises BadPath, BadQuery, NoSuchMount."""
        if raw_target == "*":
            return (*_KNOWN, "OPTIONS")
        target = parse_target(raw_target)
        uploading = self._upload("POST", target)
        resumed = ["HEAD", "PATCH", "DELETE"] if uploading is not None and uploading.octets else []
        if uploading is not None and not any(target.path.startswith(path) for path, _ in self._mounts):
            return ("POST", *resumed, "OPTIONS")
        of_mount = _methods_of(self._route(target).mount)
        posts = uploading is not None or ("DELETE" in of_mount and self._is_delete_objects(target))
        taken = [*of_mount, *(["POST"] if posts else []), *resumed]
        return (*dict.fromkeys(taken), "OPTIONS")

    def _is_delete_objects(self, target: Target) -> bool:
        """`POST {mount}?delete`, which is a DELETE. Raises BadQuery."""
        return any(target.path == path for path, _ in self._mounts) and query.is_delete_objects(target.query)

    def _route(self, target: Target) -> Route:
        for path, mount in self._mounts:
            if target.path.startswith(path):
                return Route(mount, target.path[len(path) :], target.path, target.query)
        raise NoSuchMount("no mount serves this path")

    def _upload(self, method: str, target: Target) -> Route | None:
        """`POST {uploads.path}` and `POST {uploads.path}/{key}`, allowed whatever the mount's methods are."""
        if self._uploads is None or method != "POST":
            return None
        path, mount = self._uploads
        if target.path in (path, path + b"/"):
            return Route(mount, b"", target.path, target.query, makes_key=True)
        if target.path.startswith(path + b"/"):
            octets = target.path[len(path) + 1 :]
            return Route(mount, octets, target.path, target.query, makes_key=octets.endswith(b"/"))
        return None


def _methods_of(mount: MountSettings) -> tuple[str, ...]:
    methods = tuple(mount.methods)
    return (*methods, "HEAD") if "GET" in methods and "HEAD" not in methods else methods


def _allowed(method: str, route: Route) -> Route:
    methods = _methods_of(route.mount)
    if method not in methods:
        raise MethodNotAllowed(
            (*methods, "OPTIONS"), f"this mount does not take {method if method in _KNOWN else 'this method'}"
        )
    if method != "POST":
        return route
    if route.octets and not route.octets.endswith(b"/"):
        others = (*(name for name in methods if name != "POST"), "OPTIONS")
        raise MethodNotAllowed(others, "POST goes to a folder, a path that ends in '/'; PUT goes to a key")
    return replace(route, makes_key=True)
