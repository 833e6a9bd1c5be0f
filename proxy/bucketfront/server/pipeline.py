"""The stages that each request passes before any lookup, declared once for the ordinary path and the fast path.

A stage declares the request fields that it reads. The fast path's recogniser is built from the union of these fields:
it either keeps prepared responses apart by a field's value, or leaves a request with that field to the ordinary path.
A verdict depends only on the method, the mount, the key and the declared fields, so that it can be prepared.

The stages see the request once with the key that its path names. After that they see each other key that a handler
takes from its route: of a form, a tus upload or DeleteObjects, an index page, a precompressed sibling. A route that the
pipeline has not admitted gives no key, so a handler cannot bypass a stage.

The stages of `build_pipeline` only declare fields, so every request passes them. A stage with a `check` can refuse.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.keys import ObjectKey
from bucketfront.server.router import Route

ReadField = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Admission:
    """The request as a stage sees it.

    `method` is what the request does: DELETE for S3's DeleteObjects, and for tus the method that overrides POST.
    `mount` is None for `OPTIONS *`. `key` is the S3 key in bytes. It is None if the path names no object; the stages
    see the keys of such a request later, one by one. `field` returns a declared field's value, or None.
    """

    method: str
    mount: MountSettings | None
    key: bytes | None
    field: ReadField


@dataclass(frozen=True, slots=True)
class Stage:
    """`reads` are names of request fields in lower case. `check` raises a ProxyError to refuse the request.

    A CORS preflight carries no credentials, so a stage sees it only if `checks_preflights` is true.
    """

    name: str
    reads: frozenset[str] = frozenset()
    check: Callable[[Admission], None] | None = None
    checks_preflights: bool = False

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
    """All stages, in their order. `reads` are the request fields that any stage declares."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = tuple(stages)
        self.reads = frozenset[str]().union(*(stage.reads for stage in self.stages))
        self._checks = tuple((stage, stage.check) for stage in self.stages if stage.check is not None)

    def admit(self, method: str, route: Route, field: ReadField) -> Route:
        """Return the route, from which a handler can now take keys.

        Raises the ProxyError of the first stage that refuses the request, and later that of a refused key.
        """
        if not self._checks:
            return route.with_admission(_admit_any)
        admitted = route.named_key
        self.check(method, route.mount, admitted, field)

        def admit_key(key: ObjectKey) -> None:
            if (octets := key.key.encode()) != admitted:
                self.check(method, route.mount, octets, field)

        return route.with_admission(admit_key)

    def check(
        self,
        method: str,
        mount: MountSettings | None,
        key: bytes | None,
        field: ReadField,
        *,
        is_preflight: bool = False,
    ) -> None:
        """Run the stages on one key. Raises the ProxyError of the first stage that refuses it."""
        for stage, check in self._checks:
            if stage.checks_preflights or not is_preflight:
                check(Admission(method, mount, key, stage.declared(field)))


def _admit_any(_: ObjectKey) -> None:
    """Admit a key, because no stage checks keys."""


def build_pipeline(settings: Settings) -> Pipeline:
    """Return the stages that these settings need, in order."""
    negotiates = any(mount.precompressed for mount in settings.mounts)
    return Pipeline(
        (
            Stage("tus", frozenset({"tus-resumable"} if settings.uploads is not None else ())),
            Stage("selection", frozenset({"accept-encoding"} if negotiates else ())),
            Stage(
                "revalidation",
                frozenset({"cache-control", "pragma"} if settings.freshness.honor_client_no_cache else ()),
            ),
        )
    )
