"""Whether a request to the S3 endpoint is permitted: by the grant of its key, and by the mounts within that.

A grant is a door of its own to the keys below its prefix. A mount with a longer prefix decides on its keys as well
(docs/invariants.md#one-door-to-a-key), as a client without the credentials of its rules would find it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bucketfront.config.access_settings import PUBLIC
from bucketfront.config.mount_settings import MountSettings
from bucketfront.http.s3_operations import Operation
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.keys import ObjectKey
from bucketfront.server.inner_mounts import InnerMounts
from bucketfront.server.pipeline import Action
from bucketfront.server.s3_endpoint.grant import Grant

_READS = frozenset({Operation.GET_OBJECT, Operation.HEAD_OBJECT, Operation.GET_OBJECT_ATTRIBUTES})
_DELETES = frozenset({Operation.DELETE_OBJECT, Operation.DELETE_OBJECTS})


def action_of(operation: Operation) -> Action:
    """Return what an operation on objects does. Those of uploads in parts write."""
    if operation in _READS:
        return Action.READ
    return Action.DELETE if operation in _DELETES else Action.WRITE


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """The limits that a mount sets to a write: it creates objects only, and has at most `max_size` bytes."""

    write_once: bool = False
    max_size: int | None = None


NO_LIMITS = WriteLimits()


@dataclass(frozen=True, slots=True)
class Permissions:
    """The buckets that are served, None for all, and the mounts, which decide on their keys."""

    buckets: frozenset[str] | None
    inner_mounts: InnerMounts

    def check_bucket(self, grant: Grant, bucket: str) -> None:
        """Raise S3Refused unless the bucket is served, and the client may know that."""
        if not grant.permits_bucket(bucket):
            raise denied()
        if self.buckets is not None and bucket not in self.buckets:
            raise S3Refused(Refusal.NO_SUCH_BUCKET, "The specified bucket does not exist")

    def check_list(self, grant: Grant, bucket: str, prefix: str, *, has_metadata: bool = False) -> None:
        """Raise S3Refused unless the client may list the keys with a prefix.

        With `has_metadata` the list has what a HEAD of each object has, so the client must be permitted to read all.
        """
        octets = prefix.encode("utf-8", "surrogateescape")
        if not grant.permits(bucket, octets, writes=False):
            raise denied()
        if not has_metadata:
            return
        for inner in self.inner_mounts.below(_door(grant, bucket)):
            ends = inner.prefix.encode()
            if (ends.startswith(octets) or octets.startswith(ends)) and not _takes(inner, Action.READ):
                raise denied()

    def check_all(self, grant: Grant, bucket: str | None) -> None:
        """Raise S3Refused unless the client may do everything in a bucket, or in all buckets if it is None."""
        is_whole = grant.may_write and not grant.prefix
        if not is_whole or (grant.buckets is not None if bucket is None else not grant.permits_bucket(bucket)):
            raise denied()

    def check_object(self, grant: Grant, key: ObjectKey, action: Action, *, is_put: bool = False) -> WriteLimits:
        """Raise S3Refused unless the client may do that to an object. Return the limits of a write.

        Other writes than a PutObject (`is_put`) cannot be limited, so a mount with limits takes none of them.
        """
        octets = key.key.encode()
        if not grant.permits(key.bucket, octets, writes=action is not Action.READ):
            raise denied()
        inner = self._inner(grant, key.bucket, octets)
        if inner is None:
            return NO_LIMITS
        limits = WriteLimits(inner.write_once, inner.max_size)
        if not _takes(inner, action) or (action is Action.WRITE and limits != NO_LIMITS and not is_put):
            raise S3Refused(Refusal.DENIED, f"the mount {inner.path} serves this key, and does not take this")
        return limits

    def _inner(self, grant: Grant, bucket: str, octets: bytes) -> MountSettings | None:
        """Return the mount within the grant that decides on a key as well."""
        return self.inner_mounts.of(_door(grant, bucket), octets)


def denied() -> S3Refused:
    """Return S3's refusal of what is not permitted."""
    return S3Refused(Refusal.DENIED, "Access Denied")


def _door(grant: Grant, bucket: str) -> MountSettings:
    """Return the grant as a mount of the bucket."""
    return MountSettings.model_construct(bucket=bucket, prefix=grant.prefix.decode())


def _takes(mount: MountSettings, action: Action) -> bool:
    """Return whether a mount takes an action of clients without credentials."""
    methods = frozenset[str](mount.methods)
    if action is Action.READ:
        return "GET" in methods and mount.is_public
    wanted: Iterable[str] = ("DELETE",) if action is Action.DELETE else ("PUT", "POST")
    return not methods.isdisjoint(wanted) and (mount.write is None or PUBLIC in mount.write)
