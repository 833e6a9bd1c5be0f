"""The stages that each request passes before any lookup, declared once for the ordinary path and the fast path.

A stage declares the request fields that it reads. The fast path's recogniser is built from the union of these fields:
it either keeps prepared responses apart by a field's value, or leaves a request with that field to the ordinary path.
A verdict depends only on the method, the mount, the key and the declared fields, so that it can be prepared.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.server.router import Route


@dataclass(frozen=True, slots=True)
class Admission:
    """The request as a stage sees it. `key` is the S3 key; `field` returns a declared field's value, or None."""

    method: str
    mount: MountSettings
    key: bytes
    field: Callable[[str], str | None]


def _admit(_: Admission) -> None:
    """Let every request pass."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`reads` are names of request fields in lower case. `check` raises a ProxyError to refuse the request."""

    name: str
    reads: frozenset[str] = frozenset()
    check: Callable[[Admission], None] = _admit

    def declared(self, field: Callable[[str], str | None]) -> Callable[[str], str | None]:
        """Return `field` for the declared fields alone. The two request paths would disagree about any other."""

        def read(name: str) -> str | None:
            if name not in self.reads:
                raise LookupError(f"the stage {self.name} reads {name} and does not declare it")
            return field(name)

        return read


@dataclass(frozen=True, slots=True)
class Pipeline:
    stages: tuple[Stage, ...]

    @property
    def reads(self) -> frozenset[str]:
        """Return the request fields that any stage reads."""
        return frozenset().union(*(stage.reads for stage in self.stages))

    def check(self, method: str, route: Route, field: Callable[[str], str | None]) -> None:
        """Raises the ProxyError of the first stage that refuses the request."""
        key = route.mount.prefix.encode() + route.octets
        for stage in self.stages:
            stage.check(Admission(method, route.mount, key, stage.declared(field)))


def build_pipeline(settings: Settings) -> Pipeline:
    """Return the stages that these settings need, in order."""
    negotiates = any(mount.precompressed for mount in settings.mounts)
    return Pipeline(
        (
            Stage("tus", frozenset({"tus-resumable"} if settings.uploads is not None else ())),
            Stage("access"),
            Stage("selection", frozenset({"accept-encoding"} if negotiates else ())),
            Stage(
                "revalidation",
                frozenset({"cache-control", "pragma"} if settings.freshness.honor_client_no_cache else ()),
            ),
        )
    )
