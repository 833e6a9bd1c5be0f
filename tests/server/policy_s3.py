"""An S3 on a loopback port that allows a set of actions, and answers as S3 does (S3 User Guide, "Access denied")."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote, urlsplit

from fakes import Head, RawConnection, RawServer, response

BODY = b"data of the object"
ETAG = '"0123456789abcdef0123456789abcdef-1"'
MAX_SKEW_S = 900
NO_SUCH_KEY = ("404 Not Found", "NoSuchKey")
DENIED = ("403 Forbidden", "AccessDenied")

ALL = frozenset(
    {
        "GetObject",
        "ListBucket",
        "PutObject",
        "DeleteObject",
        "AbortMultipartUpload",
        "GetBucketVersioning",
        "CreateBucket",
    }
)


class PolicyS3:
    """`allowed` are the actions. `objects` are the keys that exist. `trouble` answers every request, if it is given.

    With `explains` a denial names the action, as S3 does for principals of the bucket's own account. A bucket with
    `versioning` has that status. A server that is not `conditional` ignores If-Match and If-None-Match. `ahead_s` is by
    how many seconds its clock is ahead; it refuses signatures of another time.
    """

    def __init__(
        self,
        allowed: Iterable[str] = ALL,
        *,
        buckets: Iterable[str] = ("bucket",),
        objects: Iterable[str] = ("x",),
        trouble: bytes | None = None,
        explains: bool = False,
        versioning: str = "",
        conditional: bool = True,
        ahead_s: float = 0.0,
    ) -> None:
        self.allowed = frozenset(allowed)
        self.buckets = set(buckets)
        self.objects = set(objects)
        self._sizes: dict[str, int] = {}  # of objects that were written
        self.uploads: set[str] = set()
        self.trouble = trouble
        self._explains = explains
        self._versioning = versioning
        self._is_conditional = conditional
        self._ahead_s = ahead_s
        self.server = RawServer(self._respond)

    async def _respond(self, connection: RawConnection, head: Head) -> None:
        await _read_body(connection, head)
        sent = self.trouble or self._answer(head)
        await connection.send(sent[: sent.index(b"\r\n\r\n") + 4] if head.method == "HEAD" else sent)

    def _answer(self, head: Head) -> bytes:
        now = time.time() + self._ahead_s
        signed = datetime.strptime(head.headers["x-amz-date"], "%Y%m%dT%H%M%S%z").timestamp()
        if abs(signed - now) > MAX_SKEW_S:
            return failure("403 Forbidden", "RequestTimeTooSkewed", date=formatdate(now, usegmt=True))
        parts = urlsplit(head.target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if head.method == "PUT" and not key:
            if "CreateBucket" in self.allowed:
                self.buckets.add(bucket)
            return self._if("CreateBucket", response("200 OK"))
        if bucket not in self.buckets:
            return failure("404 Not Found", "NoSuchBucket")
        if key:
            return self._of_object(head, key, query)
        if "versioning" in query:
            status = f"<Status>{self._versioning}</Status>" if self._versioning else ""
            return self._if("GetBucketVersioning", xml(f"<VersioningConfiguration>{status}</VersioningConfiguration>"))
        return self._if("ListBucket", xml("<ListBucketResult></ListBucketResult>"))

    def _of_object(self, head: Head, key: str, query: Mapping[str, str]) -> bytes:
        if "uploads" in query or "uploadId" in query:
            return self._of_upload(head, key, query)
        if head.method in ("GET", "HEAD"):
            return self._read(key, head)
        if head.method == "DELETE":
            if "DeleteObject" in self.allowed:
                self.objects.discard(key)
            return self._if("DeleteObject", response("204 No Content"))
        return self._write(key, head.headers)

    def _of_upload(self, head: Head, key: str, query: Mapping[str, str]) -> bytes:
        if head.method == "DELETE":
            if "AbortMultipartUpload" in self.allowed:
                self.uploads.discard(query["uploadId"])
            return self._if("AbortMultipartUpload", response("204 No Content"))
        if head.method == "PUT":
            return self._if("PutObject", response("200 OK", ETag=ETAG))
        if "uploadId" in query:
            return self._complete(key, query["uploadId"], head.headers)
        if "PutObject" in self.allowed:
            self.uploads.add("u1")
        return self._if("PutObject", xml(f"<{_CREATED}><UploadId>u1</UploadId></{_CREATED}>"))

    def _read(self, key: str, head: Head) -> bytes:
        if "GetObject" not in self.allowed:
            return self._denied("GetObject")
        if key not in self.objects:
            return failure(*NO_SUCH_KEY) if "ListBucket" in self.allowed else self._denied("ListBucket")
        if head.method == "HEAD":
            return response("200 OK", length=self._sizes.get(key, len(BODY)), ETag=ETAG)
        start, _, stop = head.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = BODY[int(start) : int(stop) + 1 if stop else None]
        last = int(start) + len(part) - 1
        return response(
            "206 Partial Content",
            part,
            Content_Range=f"bytes {start}-{last}/{len(BODY)}",
            ETag=ETAG,
            Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT",
            Content_Type="text/plain",
        )

    def _write(self, key: str, headers: Mapping[str, str]) -> bytes:
        if "PutObject" not in self.allowed:
            return self._denied("PutObject")
        if self._is_conditional and "if-match" in headers and key not in self.objects:
            return failure(*NO_SUCH_KEY)
        if self._is_conditional and (
            headers.get("if-match", ETAG) != ETAG or ("if-none-match" in headers and key in self.objects)
        ):
            return failure("412 Precondition Failed", "PreconditionFailed")
        self.objects.add(key)
        self._sizes[key] = int(headers.get("content-length", 0))
        return response("200 OK", ETag=ETAG)

    def _complete(self, key: str, upload: str, headers: Mapping[str, str]) -> bytes:
        written = self._write(key, headers)
        if not written.startswith(b"HTTP/1.1 200"):
            return written
        self.uploads.discard(upload)
        return xml(f"<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>")

    def _if(self, action: str, answer: bytes) -> bytes:
        return answer if action in self.allowed else self._denied(action)

    def _denied(self, action: str) -> bytes:
        user = "User: arn:aws:iam::123456789012:user/web is not authorized to perform:"
        return failure(*DENIED, f"{user} s3:{action} on resource: it" if self._explains else "Access Denied")


_CREATED = "InitiateMultipartUploadResult"


def xml(text: str) -> bytes:
    return response("200 OK", text.encode(), Content_Type="application/xml")


def failure(
    status: str, code: str, message: str = "…", *, extra: str = "", region: str | None = None, date: str | None = None
) -> bytes:
    """Return an error response in S3's form, with `extra` elements."""
    text = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>'
    return response(
        status,
        text.encode(),
        Content_Type="application/xml",
        x_amz_request_id="4442587FB7D0A2F9",
        x_amz_bucket_region=region,
        Date=date,
    )


def dated(offset_s: float, now: float) -> str:
    return formatdate(now + offset_s, usegmt=True)


async def _read_body(connection: RawConnection, head: Head) -> None:
    await connection.reader.readexactly(int(head.headers.get("content-length", "0")))
