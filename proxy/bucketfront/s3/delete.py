"""Deletion of many objects by one call (S3 API, "DeleteObjects")."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bucketfront.errors import OriginUnavailable
from bucketfront.http.delete_objects import Deleted, DeleteFailure, DeleteOutcome
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.repetition import ATTEMPTS, PAUSE_S, pause, repeated

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
# S3 API, "Error responses": the codes of a failure that does not last.
_MOMENTARY = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted"})
_UNKNOWN = DeleteFailure("InternalError", "The origin did not say what became of it.")


async def delete_objects(origin: S3Origin, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteOutcome]:
    """Delete `keys`, each with a version or without. Return the outcome of each.

    The keys that S3 could not delete at the moment are sent again. `keys` are distinct, of one bucket, 1000 at most.
    Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable. After the last two the outcome of every key is
    unknown (docs/invariants.md#unknown-outcome).
    """
    outcomes: dict[ObjectKey, DeleteOutcome] = {}
    left = list(keys)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = await repeated(origin, partial(_delete, origin, left))
        except OriginUnavailable:
            if not outcomes:
                raise
            break  # the results of the attempt before count
        outcomes |= found
        left = [key for key, outcome in found.items() if _is_momentary(outcome)]
        if not left or attempt == ATTEMPTS or not origin.retries.spend():
            break
        await pause(PAUSE_S, attempt)
    return outcomes


async def _delete(origin: S3Origin, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteOutcome]:
    bucket = keys[0].bucket
    assert all(key.bucket == bucket for key in keys), "one bucket"
    params = {"Bucket": bucket, "Delete": {"Objects": [_identifier(key) for key in keys]}}
    async with origin.connection(bucket):
        result = await origin.calls.make(f"DELETE {len(keys)} keys of {bucket}", origin.client.delete_objects, params)
    return outcomes_of(keys, result)


def _identifier(key: ObjectKey) -> dict[str, str]:
    return {"Key": key.key} if key.version is None else {"Key": key.key, "VersionId": key.version}


def outcomes_of(keys: Sequence[ObjectKey], result: Mapping[str, Any]) -> dict[ObjectKey, DeleteOutcome]:
    """Return what the response has for each key. A key that it does not name at all has an unknown outcome."""
    named: dict[tuple[Any, Any], DeleteOutcome] = {}
    for item in result.get("Deleted", ()):
        marker = Deleted(item.get("DeleteMarker") is True, item.get("DeleteMarkerVersionId"))
        named[item.get("Key"), item.get("VersionId")] = marker
    for item in result.get("Errors", ()):
        named[item.get("Key"), item.get("VersionId")] = _refusal(str(item.get("Code", "")))
    # An S3-alike may leave the version out, or name that of a marker. A key that was sent once, and came back once, is
    # certain without it.
    sent, returned = Counter(key.key for key in keys), Counter(name for name, _ in named)
    alone = {name: outcome for (name, _), outcome in named.items() if sent[name] == returned[name] == 1}
    return {key: named.get((key.key, key.version)) or alone.get(key.key, _UNKNOWN) for key in keys}


def _is_momentary(outcome: DeleteOutcome) -> bool:
    return isinstance(outcome, DeleteFailure) and outcome.code in _MOMENTARY


def _refusal(code: str) -> DeleteFailure:
    # The origin's message is free text, and may name what the client must not see (docs/invariants.md#secrets-stay-in).
    return DeleteFailure(code, "The origin refused it.") if _CODE.fullmatch(code) else _UNKNOWN
