"""Maps a request's path to a mount and a key, and checks its method, before any lookup."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.errors import BadPath, NoSuchMount, ProxyError
from bucketfront.http import query
from bucketfront.http.query import NoSuchOperation
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import (
    ObjectKey,
    Target,
    check_writable,
    parse_target,
    percent_encode,
    spelling_behind,
    to_key,
    url_path,
)
from bucketfront.server.inner_mounts import InnerMounts

_KNOWN = ("GET", "HEAD", "PUT", "POST", "DELETE")
_READS = ("GET", "HEAD")
_OF_UPLOADS = ("HEAD", "PATCH", "DELETE")  # of the tus protocol, for an upload that exists

_NO_INNER_MOUNTS = InnerMounts(())
_OF_BUCKETS = "lists and other operations of buckets are not implemented here, only those of objects"
_OF_PARTS = "; send the object in one PUT, by a larger threshold or part size (multipart_threshold in boto3, AWS CLI)"


class MethodNotAllowed(ProxyError):
    """The path does not accept the request's method. `allowed` are the methods that it accepts."""

    def __init__(self, allowed: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class MissingSlash(NoSuchMount):
    """A path lies below no mount, but is that of `mount` without its slash. `target` is the URL with the slash."""

    key = None  # it names no object

    def __init__(self, mount: MountSettings, target: str) -> None:
        super().__init__("no mount serves this path without a slash at its end")
        self.mount = mount
        self.target = target


class MisspelledMount(BadPath):
    """A read has needless escapes in the part of its path that names the mount. `key` are the bytes of the key that
    the path names. `target` is the URL in the one spelling of the mount.
    """

    def __init__(self, route: "Route", target: str) -> None:
        super().__init__(_misspelled(route))
        self.mount = route.mount
        self.key = route.named_key
        self.target = target


def _refuse_keys(_: ObjectKey) -> None:
    raise LookupError("a route gives no key before the pipeline has admitted its request")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request's path leads.

    `octets` are the rest of the decoded `path` below the mount, and `query` is raw. `makes_key` is true if the path
    names a folder in which the proxy makes a key. `deletes_many` is true for S3's DeleteObjects, `names_upload` for the
    URL of a tus upload, `names_bucket` for S3's HeadBucket of a mount. `admit` raises a ProxyError for a key that the
    pipeline refuses. `inner_mounts` has all mounts.
    """

    mount: MountSettings
    octets: bytes
    path: bytes = b""
    query: str = ""
    makes_key: bool = False
    deletes_many: bool = False
    names_upload: bool = False
    names_bucket: bool = False
    admit: Callable[[ObjectKey], None] = _refuse_keys
    inner_mounts: InnerMounts = _NO_INNER_MOUNTS

    @property
    def place(self) -> bytes:
        """Return the begin of the path that names the mount or the upload route, decoded."""
        return self.path[: len(self.path) - len(self.octets)]

    @property
    def named_key(self) -> bytes | None:
        """Return the bytes of the key that the path names, which may be invalid as a key. None if it names none."""
        if not self.octets or self.makes_key or self.deletes_many or self.names_upload:
            return None
        return self.mount.prefix.encode() + self.octets

    def with_admission(self, admit: Callable[[ObjectKey], None]) -> "Route":
        """Return the same route with the pipeline's verdict. `dataclasses.replace` would take a microsecond longer."""
        return Route(
            self.mount,
            self.octets,
            self.path,
            self.query,
            self.makes_key,
            self.deletes_many,
            self.names_upload,
            self.names_bucket,
            admit,
            self.inner_mounts,
        )

    def admitted(self, key: ObjectKey) -> ObjectKey:
        """Return `key` if all stages of the pipeline admit it. Raises the ProxyError of a stage that refuses."""
        self.admit(key)
        return key

    def key(self, name: str = "") -> ObjectKey:
        """Return the object's key, with `name` appended to the folder.

        Raises BadPath, and the ProxyError of a stage that refuses the key.
        """
        return self.admitted(self.unadmitted_key(name))

    def key_to_write(self, name: str = "") -> ObjectKey:
        """Return the key of an object to create. Raises the same."""
        key = self.key(name)
        check_writable(key.key)
        return key

    def key_in_mount(self, name: str) -> ObjectKey:
        """Return the key of a document that the mount's settings name. Raises the ProxyError of a stage."""
        return self.admitted(ObjectKey(self.mount.bucket, self.mount.prefix + name))

    def unadmitted_key(self, name: str = "") -> ObjectKey:
        """Return the key without the pipeline, for operators. Raises BadPath."""
        if not self.octets and not name:
            raise BadPath("the path names a mount, not an object")
        return ObjectKey(self.mount.bucket, to_key(self.mount.prefix.encode() + self.octets + name.encode()))

    def mount_of_write(self, key: ObjectKey) -> MountSettings:
        """Return the mount with the limits for a write of `key`. Those of an inner mount hold as well."""
        inner = self.inner_mounts.of(self.mount, key.key.encode())
        if inner is None:
            return self.mount
        sizes = [mount.max_size for mount in (self.mount, inner) if mount.max_size is not None]
        is_once = self.mount.write_once or inner.write_once
        return self.mount.model_copy(update={"write_once": is_once, "max_size": min(sizes, default=None)})

    @property
    def has_versions(self) -> bool:
        """Return whether `?versionId=` selects a version here."""
        return all(mount.versions for mount in self._deciding())

    @property
    def has_overrides(self) -> bool:
        """Return whether `?response-content-type=` and its like count here."""
        return all(mount.response_overrides for mount in self._deciding())

    def _deciding(self) -> Iterator[MountSettings]:
        """Yield the mounts that decide on the key that the path names."""
        yield self.mount
        inner = self.inner_mounts.of(self.mount, self.mount.prefix.encode() + self.octets)
        if inner is not None:
            yield inner

    def is_private(self, key: ObjectKey) -> bool:
        """Return whether shared caches may not store the object, because only some clients may read it."""
        inner = self.inner_mounts.of(self.mount, key.key.encode())
        return any(mount.is_private for mount in (self.mount, inner) if mount is not None)

    def inline_types(self, key: ObjectKey) -> frozenset[str] | None:
        """Return the active types that browsers may show for a key, None for all."""
        return self.inner_mounts.inline_types(self.mount, key.key.encode())

    def relative(self, key: ObjectKey) -> str:
        """Return the key as clients of this mount see it."""
        return key.key[len(self.mount.prefix) :]

    def location(self, key: ObjectKey) -> str:
        """Return the path of `key` as a URL of this server."""
        return self.location_of(self.relative(key))

    def location_of(self, name: str) -> str:
        """Return the path of `name` below the mount as a URL of this server."""
        path = url_path(self.mount.path.encode()) + percent_encode(name)
        # RFC 3986 section 4.2: a reference that begins with "//" names a host (docs/invariants.md#fixed-egress).
        return f"/%2F{path[2:]}" if path.startswith("//") else path


class Router:
    """All mounts and the upload route, as pure functions of a request's method and target."""

    def __init__(self, mounts: tuple[MountSettings, ...], uploads: UploadSettings | None) -> None:
        self._mounts = sorted(((mount.path.encode(), mount) for mount in mounts), key=lambda pair: -len(pair[0]))
        self._inner_mounts = InnerMounts(mounts, uploads)
        self._uploads = None
        if uploads is not None:
            into = next(mount for mount in mounts if mount.path == uploads.mount)
            self._uploads = (uploads.path.encode(), into)

    def resolve(self, method: str, raw_target: str, dialect: Dialect = Dialect.HTTP) -> Route:
        """Return the route of a request.

        Raises BadPath, BadQuery, NoSuchOperation, NoSuchMount, MissingSlash, MethodNotAllowed, MisspelledMount.
        """
        target = parse_target(raw_target)
        if method == "POST":
            target = self._with_slash(target)
        elif method == "HEAD" and dialect is Dialect.S3 and (bucket := self._bucket(target)) is not None:
            return _allowed(method, bucket)
        route = self._resolved(method, target, dialect)
        _check_spelling(target, route, is_redirected=method in _READS and dialect is Dialect.HTTP)
        return route

    def tus(self, method: str, raw_target: str) -> Route | None:
        """Return the route of a request of the tus protocol. Raises BadPath.

        Returns None if the path is not below the upload route.
        """
        if raw_target == "*":
            return None
        target = parse_target(raw_target)
        route = self._upload("POST", target)
        if route is not None:
            _check_spelling(target, route)
        return route if route is None or method == "POST" else replace(route, names_upload=True)

    def locate(self, raw_target: str) -> Route:
        """Return the route of a path for any method, in any spelling. Raises BadPath, NoSuchMount."""
        return self._located(parse_target(raw_target))

    def paths(self, key: ObjectKey) -> tuple[str, ...]:
        """Return the paths by which clients can read an object, as URLs of this server."""
        found = []
        for path, mount in self._mounts:
            name = key.key.removeprefix(mount.prefix)
            if mount.bucket != key.bucket or not key.key.startswith(mount.prefix) or not name:
                continue
            whole = path + name.encode()
            # A mount with a longer path may serve it in place of this one.
            if self._mount_of(Target(whole, "", "")) is mount:
                version = "" if key.version is None else f"?versionId={percent_encode(key.version)}"
                found.append(Route(mount, name.encode(), whole).location_of(name) + version)
        return tuple(found)

    def methods(self, raw_target: str) -> tuple[str, ...]:
        """Return the methods of a path, for OPTIONS (RFC 9110 section 9.3.7).

        Raises BadPath, BadQuery, NoSuchMount.
        """
        if raw_target == "*":
            return (*_KNOWN, "OPTIONS")
        target = parse_target(raw_target)
        _check_spelling(self._with_slash(target), self._located(target))
        found = dict.fromkeys(method for methods in self._methods_by_use(target) for method in methods)
        return (*found, "OPTIONS")

    def _methods_by_use(self, target: Target) -> Iterator[tuple[str, ...]]:
        """Yield the methods of each use of a path. Raises BadQuery.

        | use | methods |
        |---|---|
        | an object or a folder of a mount | those of the mount |
        | a mount without its slash, and no other mount serves the path | reads, which are redirected |
        | a mount without its slash; `{mount}?delete`; the upload route or a folder of it | POST |
        | an unfinished upload | those of tus |
        """
        mount, upload, posted = self._mount_of(target), self._upload("POST", target), self._with_slash(target)
        lacks_slash = posted is not target
        if mount is not None:
            yield _methods_of(mount)
        elif (lacking := self._mount_of(posted)) is not None:
            yield tuple(method for method in _methods_of(lacking) if method in _READS)
        if upload is not None or self._takes_delete_objects(posted) or lacks_slash:
            yield ("POST",)
        if upload is not None and upload.octets:
            yield _OF_UPLOADS

    def _resolved(self, method: str, target: Target, dialect: Dialect) -> Route:
        """Return the route of a request, whose target has its slash, in any spelling. Raises as `resolve` does."""
        if method == "POST" and self._is_delete_objects(target):
            return replace(_allowed("DELETE", self._route(target)), deletes_many=True)
        if dialect is Dialect.S3 and self._names_bucket(target):
            raise NoSuchOperation(_OF_BUCKETS)
        if (upload := self._upload(method, target)) is not None:
            _refuse_operation(method, upload, dialect)
            return upload
        try:
            route = self._route(target)
        except NoSuchMount:
            if dialect is Dialect.S3 and target.path == b"/":
                raise NoSuchOperation(_OF_BUCKETS) from None
            if method in _READS:
                self._check_slash(method, target)
            raise
        if method in _methods_of(route.mount) or (method == "POST" and "PUT" in route.mount.methods):
            _refuse_operation(method, route, dialect)
        return _allowed(method, route)

    def _located(self, target: Target) -> Route:
        try:
            return self._upload("POST", target) or self._route(target)
        except NoSuchMount:
            return self._route(self._with_slash(target))

    def _is_delete_objects(self, target: Target) -> bool:
        """Return whether the target is `{mount}?delete`, to which S3 clients send DeleteObjects. Raises BadQuery."""
        return any(target.path == path for path, _ in self._mounts) and query.is_delete_objects(target.query)

    def _takes_delete_objects(self, target: Target) -> bool:
        mount = self._mount_of(target)
        return mount is not None and "DELETE" in _methods_of(mount) and self._is_delete_objects(target)

    def _with_slash(self, target: Target) -> Target:
        """Return the target of a POST, with the slash of the mount that takes it. Raises BadQuery.

        S3 clients send DeleteObjects and forms to a bucket's URL, which has no slash. No POST goes to a key, so a mount
        above takes none of them.
        """
        slashed = replace(target, path=target.path + b"/", spelling=target.spelling + "/")
        mount = next((mount for path, mount in self._mounts if path == slashed.path), None)
        if mount is None or self._upload("POST", target) is not None:
            return target
        methods = _methods_of(mount)
        is_taken = "POST" in methods or ("DELETE" in methods and query.is_delete_objects(target.query))
        return slashed if is_taken else target

    def _bucket(self, target: Target) -> Route | None:
        """Return the route of a mount by whose path a client of S3 names a bucket, with its slash or without it."""
        for path, mount in self._mounts:
            if path != b"/" and not target.query and path in (target.path, target.path + b"/"):
                return Route(mount, b"", path, names_bucket=True, inner_mounts=self._inner_mounts)
        return None

    def _names_bucket(self, target: Target) -> bool:
        """Return whether the path is that of a mount without its slash, by which S3's clients name the bucket."""
        return any(target.path == path.removesuffix(b"/") for path, _ in self._mounts)

    def _check_slash(self, method: str, target: Target) -> None:
        """Raise MissingSlash if a mount that takes the method has the path of the target and a slash."""
        for path, mount in self._mounts:
            # A Location that begins with two slashes would name another host (docs/invariants.md#fixed-egress).
            if path == target.path + b"/" and method in _methods_of(mount) and not path.startswith(b"//"):
                raise MissingSlash(mount, url_path(path) + (f"?{target.query}" if target.query else ""))

    def _mount_of(self, target: Target) -> MountSettings | None:
        return next((mount for path, mount in self._mounts if target.path.startswith(path)), None)

    def _route(self, target: Target) -> Route:
        mount = self._mount_of(target)
        if mount is None:
            raise NoSuchMount("no mount serves this path")
        octets = target.path[len(mount.path.encode()) :]
        return Route(mount, octets, target.path, target.query, inner_mounts=self._inner_mounts)

    def _upload(self, method: str, target: Target) -> Route | None:
        """Return the route of `POST {uploads.path}` or `POST {uploads.path}/{key}`.

        The mount's own methods do not matter here.
        """
        if self._uploads is None or method != "POST":
            return None
        path, mount = self._uploads
        if target.path in (path, path + b"/"):
            return Route(mount, b"", target.path, target.query, makes_key=True, inner_mounts=self._inner_mounts)
        if target.path.startswith(path + b"/"):
            octets = target.path[len(path) + 1 :]
            makes_key = octets.endswith(b"/")
            return Route(mount, octets, target.path, target.query, makes_key=makes_key, inner_mounts=self._inner_mounts)
        return None


def _check_spelling(target: Target, route: Route, *, is_redirected: bool = False) -> None:
    """Raise BadPath unless the path begins with the one spelling of the mount or the upload route.

    Without this, an escape could evade a rule for that path of a server in front, which may compare raw paths. Raises
    MisspelledMount for a request that `is_redirected`.
    """
    spelling = url_path(route.place)
    if target.spelling.startswith(spelling):
        return
    if not is_redirected:
        raise BadPath(_misspelled(route))
    rest = spelling_behind(target.spelling, len(route.place))
    raise MisspelledMount(route, spelling + rest + (f"?{target.query}" if target.query else ""))


def _misspelled(route: Route) -> str:
    return f"needless escapes in the path: a URL of this mount begins with {url_path(route.place)}"


def _methods_of(mount: MountSettings) -> tuple[str, ...]:
    methods = tuple(mount.methods)
    return (*methods, "HEAD") if "GET" in methods and "HEAD" not in methods else methods


def _refuse_operation(method: str, route: Route, dialect: Dialect) -> None:
    """Raise NoSuchOperation if the request means another operation of S3 than a read or a write of the object."""
    is_s3 = dialect is Dialect.S3
    if is_s3 and not route.octets and method != "POST":
        raise NoSuchOperation(_OF_BUCKETS)
    if method not in ("GET", "HEAD"):
        name = query.subresource(route.query)
    elif is_s3 or route.mount.query != "ignore":
        name = query.operation_of_read(route.query, is_s3=is_s3, has_versions=route.has_versions)
    else:
        name = None
    if name is not None:
        cure = _OF_PARTS if name in ("uploads", "uploadId", "partNumber") and method in ("POST", "PUT") else ""
        raise NoSuchOperation(f"{method} with ?{name} means something else to S3, and is not implemented here{cure}")


def _allowed(method: str, route: Route) -> Route:
    """Return the route of a request with that method. Raises MethodNotAllowed."""
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
