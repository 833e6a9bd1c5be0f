"""A bucket as the handlers of mounts see it: all of it, as S3 has it."""

from collections.abc import Callable
from functools import lru_cache

from bucketfront.config.mount_settings import MountSettings
from bucketfront.keys import ObjectKey
from bucketfront.server.router import Route
from bucketfront.server.s3_endpoint.s3_resource import S3Resource


def route_to(
    resource: S3Resource, query: str, admit: Callable[[ObjectKey], None], *, deletes_many: bool = False
) -> Route:
    """Return the route to a bucket or an object. `query` is raw, without what belongs to a signature.

    `admit` raises a ProxyError for a key that is not permitted.
    """
    assert resource.bucket is not None
    octets = resource.octets
    return Route(_view(resource.bucket), octets, b"/" + octets, query, deletes_many=deletes_many, admit=admit)


@lru_cache(maxsize=1024)
def _view(bucket: str) -> MountSettings:
    return MountSettings(
        bucket=bucket,
        methods=("GET", "HEAD", "PUT", "POST", "DELETE"),
        write=("public",),
        versions=True,
        response_overrides=True,
        guess_types=False,
    )
