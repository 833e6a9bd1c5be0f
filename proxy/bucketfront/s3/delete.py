"""Many objects deleted with one call (S3 API, "DeleteObjects")."""

import re
from collections.abc import Sequence

from bucketfront.http.delete_objects import Refusal
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_UNTOLD = Refusal("InternalError", "The origin did not say what became of it.")


async def delete_objects(origin: S3Origin, keys: Sequence[ObjectKey]) -> dict[ObjectKey, Refusal | None]:
    """What became of each; None where it is gone. `keys` are distinct, of one bucket, 1000 at most.

    Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable; after the last two nothing is known of any
    (I9).
    """
    bucket = keys[0].bucket
    assert all(key.bucket == bucket and key.version is None for key in keys), "one bucket, no version of the past"
    params = {"Bucket": bucket, "Delete": {"Objects": [{"Key": key.key} for key in keys]}}
    await origin.take_slot()
    try:
        answer = await origin.call(f"DELETE {len(keys)} keys of {bucket}", origin.client.delete_objects, params)
    finally:
        origin.return_slot()
    gone = {told.get("Key") for told in answer.get("Deleted", ())}
    refused = {told.get("Key"): _refusal(str(told.get("Code", ""))) for told in answer.get("Errors", ())}
    # Only what is said to be gone is gone.
    return {key: refused.get(key.key, None if key.key in gone else _UNTOLD) for key in keys}


def _refusal(code: str) -> Refusal:
    # Its message is the origin's own text, which may name what is none of the client's business (I28).
    return Refusal(code, "The origin refused it.") if _CODE.fullmatch(code) else _UNTOLD
