"""Whether a bucket's S3 keeps the conditions of writes. Some compatible servers ignore them, and report a success.

A write on a condition is sent only to a bucket that has refused a write of ours whose condition was false. That write
names a key of its own beside the client's. A server that ignores the condition stores it, and it is deleted at once.
AWS documents both conditions ("Conditional requests"), so its buckets are not probed.

- `If-Match` with an impossible ETag needs no object. A server that keeps it stores nothing.
- `If-None-Match: *` is true on a free key, and false after that. The server must accept the first write and refuse the
  second. The object is deleted afterwards.
- CompleteMultipartUpload has a probe of its own, because some servers keep conditions of PutObject alone.

A probe errs on the safe side, because a wrong verdict overwrites objects for as long as it lasts. Only S3's own code
for a false condition proves it (`_outcome_of`). A conflict, a page and each other error leave the bucket unknown.
"""

import base64
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from typing import Any

from bucketfront.errors import (
    InvalidOriginResponse,
    NoSuchUpload,
    ObjectNotFound,
    OriginError,
    PreconditionFailed,
    WriteRefused,
)
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import responses
from bucketfront.s3.client import S3Origin

PROBE_NAME = ".bucketfront-probe-"  # of the objects that are made here, before a random number
_MAX_FOLDER_BYTES = 900  # of S3's 1024 for a key

_BODY = b""
_PART = b"x"  # some servers refuse an empty part
_MD5 = base64.b64encode(hashlib.md5(_BODY, usedforsecurity=False).digest()).decode()
_IMPOSSIBLE = '"bucketfront-no-such-etag"'

# The statuses with which servers refuse a parameter that they do not implement.
_NOT_OFFERED = frozenset({400, 501})

log = logging.getLogger(__name__)


class WriteStep(Enum):
    """The call that makes the object of a write."""

    PUT = "PutObject"
    COMPLETE = "CompleteMultipartUpload"


class Condition(Enum):
    """A condition of a write. The value is the field's name."""

    IF_MATCH = "If-Match"
    IF_NONE_MATCH = "If-None-Match"


class _Outcome(Enum):
    """What a probe's write shows."""

    ACCEPTED = auto()
    FALSE = auto()  # refused, because its condition is false
    NOT_OFFERED = auto()  # refused, because it has a condition


_PARAMS = {Condition.IF_MATCH: {"IfMatch": _IMPOSSIBLE}, Condition.IF_NONE_MATCH: {"IfNoneMatch": "*"}}


async def require(origin: S3Origin, key: ObjectKey, head: WriteHead, step: WriteStep) -> None:
    """Return if `head` has no condition, or if the bucket of `key` keeps it.

    Raises NoSuchWrite if the bucket ignores or refuses such conditions. If that is not known at the moment, raises
    AccessDenied, OriginUnavailable, WriteConflict.
    """
    condition = Condition.IF_NONE_MATCH if head.only_if_absent else Condition.IF_MATCH
    if not head.only_if_absent and head.if_match is None:
        return
    if not await _keeps(origin, key, step, condition):
        raise NoSuchWrite(f"the origin does not keep {condition.value} of a write ({step.value})")


async def keeps_conditions(origin: S3Origin, bucket: str, prefix: str) -> bool:
    """Return whether a bucket keeps both conditions, for a body of any size.

    `prefix` is that of the keys which are written. Raises OriginErrors.
    """
    key = ObjectKey(bucket, prefix)
    for step in WriteStep:
        for condition in Condition:
            if not await _keeps(origin, key, step, condition):
                return False
    return True


async def keeps_if_match(origin: S3Origin, key: ObjectKey) -> bool:
    """Return whether the bucket of `key` keeps If-Match of PutObject. Raises OriginErrors."""
    return await _keeps(origin, key, WriteStep.PUT, Condition.IF_MATCH)


async def _keeps(origin: S3Origin, key: ObjectKey, step: WriteStep, condition: Condition) -> bool:
    if not origin.endpoint.is_custom:
        return True
    if step is WriteStep.COMPLETE and not await _keeps(origin, key, WriteStep.PUT, condition):
        return False
    probe = _Probe(origin, _probe_key(key), step)
    subject = key.bucket, step.value, condition.value
    return await origin.verdicts.of(subject, partial(probe.keeps, condition))


def _probe_key(key: ObjectKey) -> ObjectKey:
    """Return a key beside `key`, because the permissions of our credentials may end at its folder."""
    folder = key.key[: key.key.rfind("/") + 1]
    while len(folder.encode("utf-8", "surrogateescape")) > _MAX_FOLDER_BYTES:
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    return ObjectKey(key.bucket, f"{folder}{PROBE_NAME}{secrets.token_hex(8)}")


def _outcome_of(condition: Condition, error: OriginError) -> _Outcome:
    """Return what the error of a write on a condition shows. Raises it if it shows nothing of the condition."""
    code = "" if error.response is None else error.response.code
    match error:
        case PreconditionFailed() if code == "PreconditionFailed":
            return _Outcome.FALSE
        case ObjectNotFound() if code == "NoSuchKey" and condition is Condition.IF_MATCH:
            return _Outcome.FALSE
        case WriteRefused() if error.status in _NOT_OFFERED:
            return _Outcome.NOT_OFFERED
    raise error


class _Probe:
    """Writes of ours, the last of which is to fail. `key` is free."""

    def __init__(self, origin: S3Origin, key: ObjectKey, step: WriteStep) -> None:
        self._origin = origin
        self._key = key
        self._step = step
        self._versions: list[str | None] = []  # that were stored

    async def keeps(self, condition: Condition) -> bool:
        """Return whether the step fails because its condition is false. Raises OriginErrors if that is not known."""
        try:
            is_kept = await self._keeps(condition)
        except (PreconditionFailed, ObjectNotFound, NoSuchUpload) as error:
            # These are facts about the probe. The client of the write would take them for facts about its object.
            raise InvalidOriginResponse(f"{error}, so its conditions are not known") from error
        finally:
            await self._clear()
        if not is_kept:
            log.warning(
                "bucket %s does not keep %s of %s, so such writes get 501",
                self._key.bucket, condition.value, self._step.value,
            )  # fmt: skip
        return is_kept

    async def _keeps(self, condition: Condition) -> bool:
        write = self._put if self._step is WriteStep.PUT else self._complete
        if condition is Condition.IF_NONE_MATCH and await write(condition) is not _Outcome.ACCEPTED:
            # The key is free, so the server refuses each write with a condition.
            return False
        return await write(condition) is _Outcome.FALSE

    async def _put(self, condition: Condition) -> _Outcome:
        params = {**self._named, "Body": _BODY, "ContentMD5": _MD5}
        return await self._write(condition, self._origin.client.put_object, params)

    async def _complete(self, condition: Condition) -> _Outcome:
        client = self._origin.client
        created = await self._call(client.create_multipart_upload, self._named)
        upload = {**self._named, "UploadId": created.get("UploadId", "")}
        outcome: _Outcome | None = None
        try:
            part = await self._call(client.upload_part, {**upload, "PartNumber": 1, "Body": _PART})
            parts = {"Parts": [{"PartNumber": 1, "ETag": part.get("ETag", "")}]}
            outcome = await self._write(
                condition, client.complete_multipart_upload, {**upload, "MultipartUpload": parts}
            )
        finally:
            if outcome is not _Outcome.ACCEPTED:
                await self._tidy(client.abort_multipart_upload, upload)
        return outcome

    async def _write(
        self, condition: Condition, operation: Callable[..., Awaitable[Any]], params: dict[str, Any]
    ) -> _Outcome:
        try:
            stored = await self._call(operation, {**params, **_PARAMS[condition]})
        except OriginError as error:
            outcome = _outcome_of(condition, error)
            log.info("a write on %s is refused: %s", condition.value, error)
            return outcome
        self._note_stored(stored)
        return _Outcome.ACCEPTED

    def _note_stored(self, response: dict[str, Any]) -> None:
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        if responses.is_page(headers):
            raise InvalidOriginResponse(f"PROBE {self._key}: the origin sent a page")
        self._versions.append(responses.version_id(headers))

    async def _clear(self) -> None:
        """Delete what was stored. With versions, a deletion by id leaves no delete marker behind."""
        delete = self._origin.client.delete_object
        for version in dict.fromkeys(self._versions):
            named = self._named if version is None else {**self._named, "VersionId": version}
            if not await self._tidy(delete, named) and version is not None:
                await self._tidy(delete, self._named)

    async def _tidy(self, operation: Callable[..., Awaitable[Any]], params: dict[str, Any]) -> bool:
        try:
            await self._call(operation, params)
        except OriginError as error:
            log.warning("%s is left behind, so delete it: %s", self._key, error)
            return False
        return True

    async def _call(self, operation: Callable[..., Awaitable[Any]], params: dict[str, Any]) -> Any:
        async with self._origin.connection(self._key.bucket):
            return await self._origin.calls.make(f"PROBE {self._key}", operation, params)

    @property
    def _named(self) -> dict[str, Any]:
        return {"Bucket": self._key.bucket, "Key": self._key.key}
