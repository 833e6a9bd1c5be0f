"""The stages that each request passes before any lookup, declared once for the ordinary path and the fast path.

A stage declares the request fields that it reads. The fast path's recogniser is built from the union of these fields:
it either keeps prepared responses apart by a field's value, or leaves a request with that field to the ordinary path.
A verdict depends only on the method, the mount, the key and the declared fields, so that it can be prepared.

The stages see the request once with the key that its path names. After that they see each other key that a handler
takes from its route: of a form, a tus upload or DeleteObjects, an index page, a precompressed sibling. A route that the
pipeline has not admitted gives no key, so a handler cannot bypass a stage.

A stage with a `check` can refuse. Most stages of `build_pipeline` only declare fields, so every request passes them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import Forbidden
from bucketfront.http import s3_requests
from bucketfront.keys import ObjectKey
from bucketfront.server import foreign_pages
from bucketfront.server.access.access import Access
from bucketfront.server.access.rule import NOBODY, AccessRequest, Caller
from bucketfront.server.access.rules import build_access
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.foreign_pages import ForeignPages
from bucketfront.server.host_names import HostNames
from bucketfront.server.inner_mounts import InnerMounts
from bucketfront.server.router import Route

ReadField = Callable[[str], str | None]


class Action(Enum):
    """What a request does to an object."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Admission:
    """The request as a stage sees it.

    `action` is what it does to the object; each request of a tus upload writes one. `method` is DELETE for S3's
    DeleteObjects, and for tus the method that overrides POST. `mount` is None for `OPTIONS *`. `key` is the S3 key in
    bytes. It is None if the path names no object; the stages see the keys of such a request later, one by one. `field`
    returns a declared field's value, or None. `caller` is the client, with what its credentials showed. `is_of_path` is
    false if the keys are not those of the path: S3's DeleteObjects names them in its body.
    """

    action: Action
    method: str
    mount: MountSettings | None
    key: bytes | None
    field: ReadField
    caller: Caller = NOBODY
    is_of_path: bool = True


Check = Callable[[Admission], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """`reads` are names of request fields in lower case. `check` raises a ProxyError to refuse the request.

    A CORS preflight carries no credentials, so a stage sees it only if `checks_preflights` is true. With `of_writes` a
    stage sees no reads, except with `of_guarded_reads` those of mounts that only some clients may read. The fast path
    serves only other reads, so it does not need the fields of such a stage.

    All of `plain_hosts` get the same verdict, so that responses to reads need not be kept apart by Host. The fast path
    leaves a request with another Host to the ordinary path.
    """

    name: str
    reads: frozenset[str] = frozenset()
    check: Check | None = None
    checks_preflights: bool = False
    of_writes: bool = False
    of_guarded_reads: bool = False
    plain_hosts: tuple[str, ...] = ()

    @property
    def fields_of_reads(self) -> frozenset[str]:
        """Return the fields on which the response to a read may depend, for the fast path."""
        if self.of_writes:
            return frozenset()
        return self.reads - {"host"} if self.plain_hosts else self.reads

    def declared(self, field: ReadField) -> ReadField:
        """Return a reader of the declared fields only. It raises LookupError for another field.

        The fast path would not see that field, so the two request paths could disagree.
        """

        def read(name: str) -> str | None:
            if name not in self.reads:
                raise LookupError(f"the stage {self.name} reads {name} and does not declare it")
            return field(name)

        return read


class Pipeline:
    """All stages, in their order. `reads` are the request fields on which the response to a read may depend.

    `access` is None if every client may do everything.
    """

    def __init__(self, stages: Iterable[Stage], access: Access | None = None) -> None:
        self.stages = tuple(stages)
        self._access = access
        self.reads = frozenset[str]().union(*(stage.fields_of_reads for stage in self.stages))
        self.plain_hosts = tuple(host for stage in self.stages for host in stage.plain_hosts)
        self._checks = tuple((stage, stage.check) for stage in self.stages if stage.check is not None)
        self._checks_of_reads = tuple(pair for pair in self._checks if not pair[0].of_writes)
        self._checks_of_guarded_reads = tuple(
            pair for pair in self._checks if not pair[0].of_writes or pair[0].of_guarded_reads
        )

    async def identify(self, request: AccessRequest, mount: MountSettings, *, is_upload: bool = False) -> Caller:
        """Return the client of a request to a mount. `is_upload` is true for a request of a tus upload.

        A request of a foreign page, or to a foreign name, is refused first: no rule examines it. Raises the ProxyError
        of a stage.
        """
        if self._access is None:
            return NOBODY
        action = Action.WRITE if is_upload else _action_of(request.method)
        admission = Admission(action, request.method, mount, None, request.field)
        for stage, check in self._checks_for(admission):
            if stage.of_writes:
                check(replace(admission, field=stage.declared(admission.field)))
        return await self._access.identify(request, mount, is_read=action is Action.READ)

    async def close(self) -> None:
        if self._access is not None:
            await self._access.close()

    def admit(self, method: str, route: Route, field: ReadField, caller: Caller = NOBODY) -> Route:
        """Return the route, from which a handler can now take keys.

        Raises the ProxyError of the first stage that refuses the request, and later that of a refused key.
        """
        action = Action.WRITE if route.names_upload else _action_of(method)
        named = route.named_key
        admission = Admission(action, method, route.mount, named, field, caller, is_of_path=not route.deletes_many)
        if not self._checks_for(admission):
            return route.with_admission(_admit_any)
        self._check(admission)

        def admit_key(key: ObjectKey) -> None:
            if (octets := key.key.encode()) != named:
                self._check(replace(admission, key=octets))

        return route.with_admission(admit_key)

    def check(
        self,
        method: str,
        mount: MountSettings | None,
        key: bytes | None,
        field: ReadField,
        caller: Caller = NOBODY,
        *,
        is_preflight: bool = False,
    ) -> None:
        """Run the stages on a request that no handler gets. Raises the ProxyError of the first stage that refuses."""
        self._check(Admission(_action_of(method), method, mount, key, field, caller), is_preflight=is_preflight)

    def _check(self, admission: Admission, *, is_preflight: bool = False) -> None:
        for stage, check in self._checks_for(admission):
            if stage.checks_preflights or not is_preflight:
                check(replace(admission, field=stage.declared(admission.field)))

    def _checks_for(self, admission: Admission) -> tuple[tuple[Stage, Check], ...]:
        if admission.action is not Action.READ:
            return self._checks
        is_open = admission.mount is None or admission.mount.is_public
        return self._checks_of_reads if is_open else self._checks_of_guarded_reads


def _action_of(method: str) -> Action:
    if method in ("GET", "HEAD", "OPTIONS"):
        return Action.READ
    return Action.DELETE if method == "DELETE" else Action.WRITE


def _admit_any(_: ObjectKey) -> None:
    """Admit a key, because no stage checks keys."""


def build_pipeline(settings: Settings) -> Pipeline:
    """Return the stages that these settings need, in order. Raises UnusableSetting for a file of a rule."""
    negotiates = any(mount.precompressed for mount in settings.mounts)
    selects = negotiates or any(mount.site is not None for mount in settings.mounts)
    access = build_access(settings, InnerMounts(settings.mounts))
    return Pipeline(
        (
            _host_stage(settings),
            _foreign_pages_stage(settings),
            *_access_stage(access),
            Stage("client address", ClientAddresses(settings.server.trusted_proxies).reads),
            *inner_mounts_stage(settings),
            Stage("tus", frozenset({"tus-resumable"} if settings.uploads is not None else ())),
            Stage("selection", frozenset({"accept-encoding"} if negotiates else ())),
            # A client of S3 gets only the object that its path names.
            Stage("dialect", s3_requests.DIALECT_FIELDS if selects else frozenset()),
            Stage(
                "revalidation",
                frozenset({"cache-control", "pragma"} if settings.freshness.honor_client_no_cache else ()),
            ),
        ),
        access,
    )


def _host_stage(settings: Settings) -> Stage:
    """Return the stage that refuses names which are not configured.

    Without configured names it sees only writes, and reads that need a rule.
    """
    names = HostNames(settings.server.names)
    return Stage(
        "host",
        frozenset({"host"}),
        lambda admission: names.check(admission.field("host")),
        checks_preflights=True,
        of_writes=not settings.server.hosts,
        of_guarded_reads=True,
        plain_hosts=settings.server.hosts,
    )


def _foreign_pages_stage(settings: Settings) -> Stage:
    """Return the stage that refuses the writes of other sites' pages."""
    pages = ForeignPages(settings.cors.allow_origins, is_tls=settings.server.has_only_tls)
    return Stage("foreign pages", foreign_pages.READS, lambda admission: pages.check(admission.field), of_writes=True)


def _access_stage(access: Access | None) -> Iterator[Stage]:
    """Yield the stage that checks the access rules, if mounts list some.

    It declares no fields: it lets a client without credentials in where all are let in, whatever their fields are.
    """
    if access is None:
        return

    def check(admission: Admission) -> None:
        if admission.mount is not None:
            access.check(
                admission.caller, admission.method, admission.mount, admission.key,
                is_of_path=admission.is_of_path, is_read=admission.action is Action.READ,
            )  # fmt: skip

    yield Stage("access", check=check)


def inner_mounts_stage(settings: Settings) -> Iterator[Stage]:
    """Yield the stage in which mounts with longer prefixes decide, if there are some."""
    inner_mounts = InnerMounts(settings.mounts)
    if inner_mounts.has_any:
        yield Stage("inner mounts", check=partial(_check_inner, inner_mounts))


def _check_inner(inner_mounts: InnerMounts, admission: Admission) -> None:
    """Raise Forbidden if another mount serves the key, and does not take what the request does to it."""
    if admission.mount is None or admission.key is None:
        return
    inner = inner_mounts.of(admission.mount, admission.key)
    if inner is not None and not _takes(inner, admission):
        raise Forbidden(f"the mount {inner.path} serves this key, and does not take this method")


def _takes(mount: MountSettings, admission: Admission) -> bool:
    match admission.action:
        case Action.READ:
            return admission.method == "OPTIONS" or admission.method in mount.methods
        case Action.DELETE:
            return "DELETE" in mount.methods
        case Action.WRITE:
            return "PUT" in mount.methods or "POST" in mount.methods
