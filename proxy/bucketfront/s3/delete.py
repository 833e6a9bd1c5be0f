"""Deletion of many objects by one call (S3 API, "DeleteObjects")."""

import re
from collections.abc import Sequence
from functools import partial

from bucketfront.errors import OriginUnavailable
from bucketfront.http.delete_objects import DeleteFailure
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.repetition import ATTEMPTS, PAUSE_S, pause, repeated

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
# S3 API, "Error responses": the codes of a failure that does not last.
_MOMENTARY = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted"})
_UNKNOWN = DeleteFailure("InternalError", "The origin did not say what became of it.")


async def delete_objects(origin: S3Origin, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteFailure | None]:
    """Delete `keys`. Return for each one why it was refused, or None if it is deleted.

    The keys that S3 could not delete at the moment are sent again. `keys` are distinct, of one bucket, 1000 at most.
    Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable. After the last two the outcome of every key is
    unknown (docs/invariants.md#unknown-outcome).
    """
    outcomes: dict[ObjectKey, DeleteFailure | None] = {}
    left = list(keys)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = await repeated(origin, partial(_delete, origin, left))
        except OriginUnavailable:
            if not outcomes:
                raise
            break  # the results of the attempt before count
        outcomes |= found
        left = [key for key, failure in found.items() if failure is not None and failure.code in _MOMENTARY]
        if not left or attempt == ATTEMPTS or not origin.retries.spend():
            break
        await pause(PAUSE_S, attempt)
    return outcomes


async def _delete(origin: S3Origin, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteFailure | None]:
    bucket = keys[0].bucket
    assert all(key.bucket == bucket and key.version is None for key in keys), "one bucket, and no past version"
    params = {"Bucket": bucket, "Delete": {"Objects": [{"Key": key.key} for key in keys]}}
    async with origin.connection(bucket):
        result = await origin.calls.make(f"DELETE {len(keys)} keys of {bucket}", origin.client.delete_objects, params)
    deleted = {item.get("Key") for item in result.get("Deleted", ())}
    refused = {item.get("Key"): _refusal(str(item.get("Code", ""))) for item in result.get("Errors", ())}
    # A key that the response does not name at all has an unknown outcome.
    return {key: refused.get(key.key, None if key.key in deleted else _UNKNOWN) for key in keys}


def _refusal(code: str) -> DeleteFailure:
    # The origin's message is free text, and may name what the client must not see (docs/invariants.md#secrets-stay-in).
    return DeleteFailure(code, "The origin refused it.") if _CODE.fullmatch(code) else _UNKNOWN
