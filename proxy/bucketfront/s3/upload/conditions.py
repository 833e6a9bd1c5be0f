"""Whether a bucket's S3 keeps the conditions of writes. Some compatible servers ignore them, and report a success.

A write on a condition is sent only to a bucket that has refused a write of ours whose condition was false. That write
names a key of its own beside the client's. A server that ignores the condition stores it, and it is deleted at once.
AWS documents both conditions ("Conditional requests"), so its buckets are not probed.

- `If-Match` with an impossible ETag needs no object. A server that keeps it stores nothing.
- `If-None-Match: *` is false only for an object that exists, so that one is made, and deleted afterwards.
- CompleteMultipartUpload has a probe of its own, because some servers keep conditions of PutObject alone.
"""

import base64
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any

from bucketfront.errors import (
    InvalidOriginResponse,
    ObjectNotFound,
    OriginError,
    PreconditionFailed,
    WriteConflict,
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

# How S3 refuses a write whose condition is false: the last one is for If-Match without an object.
_FALSE = (PreconditionFailed, WriteConflict, ObjectNotFound)

log = logging.getLogger(__name__)


class WriteStep(Enum):
    """The call that makes the object of a write."""

    PUT = "PutObject"
    COMPLETE = "CompleteMultipartUpload"


class Condition(Enum):
    """A condition of a write. The value is the field's name."""

    IF_MATCH = "If-Match"
    IF_NONE_MATCH = "If-None-Match"


async def require(origin: S3Origin, key: ObjectKey, head: WriteHead, step: WriteStep) -> None:
    """Return if `head` has no condition, or if the bucket of `key` keeps it.

    Raises NoSuchWrite if the bucket ignores or refuses such conditions. If that is not known at the moment, raises
    AccessDenied, OriginUnavailable.
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


class _Probe:
    """One write of ours, which is to fail. `key` is free."""

    def __init__(self, origin: S3Origin, key: ObjectKey, step: WriteStep) -> None:
        self._origin = origin
        self._key = key
        self._step = step
        self._versions: list[str | None] = []  # that were stored

    async def keeps(self, condition: Condition) -> bool:
        """Return whether the step fails because its condition is false. Raises OriginErrors if that is not known."""
        try:
            try:
                is_kept = await self._is_refused(condition)
            except WriteRefused as error:
                # The server knows the condition, and does not offer it.
                log.info("a write on %s is refused as such: %s", condition.value, error)
                is_kept = False
        finally:
            await self._clear()
        if not is_kept:
            log.warning(
                "bucket %s does not keep %s of %s, so such writes get 501",
                self._key.bucket, condition.value, self._step.value,
            )  # fmt: skip
        return is_kept

    async def _is_refused(self, condition: Condition) -> bool:
        if condition is Condition.IF_MATCH:
            return await self._fails(IfMatch=_IMPOSSIBLE)
        if self._step is WriteStep.PUT:
            return await self._fails(IfNoneMatch="*") or await self._fails(IfNoneMatch="*")
        await self._put({})
        return await self._fails(IfNoneMatch="*")

    async def _fails(self, **conditions: str) -> bool:
        write = self._put if self._step is WriteStep.PUT else self._complete
        try:
            await write(conditions)
        except _FALSE:
            return True
        return False

    async def _put(self, conditions: dict[str, str]) -> None:
        params = {**self._named, "Body": _BODY, "ContentMD5": _MD5, **conditions}
        stored = await self._call(self._origin.client.put_object, params)
        self._note_stored(stored)

    async def _complete(self, conditions: dict[str, str]) -> None:
        client = self._origin.client
        created = await self._call(client.create_multipart_upload, self._named)
        upload = {**self._named, "UploadId": created.get("UploadId", "")}
        try:
            part = await self._call(client.upload_part, {**upload, "PartNumber": 1, "Body": _PART})
            parts = {"Parts": [{"PartNumber": 1, "ETag": part.get("ETag", "")}]}
            stored = await self._call(
                client.complete_multipart_upload, {**upload, "MultipartUpload": parts, **conditions}
            )
        except BaseException:
            await self._tidy(client.abort_multipart_upload, upload)
            raise
        self._note_stored(stored)

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
