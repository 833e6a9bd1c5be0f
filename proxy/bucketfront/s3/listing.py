"""The keys below a prefix, page by page (S3 API, "ListObjectsV2")."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from bucketfront.errors import InvalidOriginResponse
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.repetition import repeated

MAX_KEYS = 250  # of a page; the SDK parses S3's own limit of 1000 for 70 ms (docs/invariants.md#cost-of-a-request)


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a list. `size` is in bytes."""

    key: ObjectKey
    size: int


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list, in the order of the keys' bytes. `token` names the next page, None after the last one."""

    objects: tuple[Listed, ...]
    token: str | None


async def list_objects(origin: S3Origin, bucket: str, prefix: str, token: str | None = None) -> ListPage:
    """Return a page of the keys that begin with `prefix`: the first one, or the one that `token` names.

    Raises AccessDenied, NoSuchBucket, OriginTimeout, OriginUnavailable.
    """
    return await repeated(origin, partial(_list, origin, bucket, prefix, token))


async def _list(origin: S3Origin, bucket: str, prefix: str, token: str | None) -> ListPage:
    what = f"LIST {ObjectKey(bucket, prefix)}"
    params: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": MAX_KEYS}
    if token is not None:
        params["ContinuationToken"] = token
    async with origin.connection(bucket):
        result = await origin.calls.make(what, origin.client.list_objects_v2, params)
    following = result.get("NextContinuationToken") if result.get("IsTruncated") else None
    if result.get("IsTruncated") and (not following or following == token):
        raise InvalidOriginResponse(f"{what}: the list goes on, and no further page is named")
    objects = tuple(
        Listed(ObjectKey(bucket, item["Key"]), int(item.get("Size", 0)))
        for item in result.get("Contents", ())
        if item.get("Key", "").startswith(prefix)
    )
    return ListPage(objects, following)
