"""An S3 for multipart uploads and PutObject over a raw server, whose responses tests replace."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fakes import Head, RawConnection, response

NOTHING: Mapping[str, str] = {}
RESET = b"reset"  # in place of a response: the connection breaks
SILENCE = b""  # in place of a response: none comes


def error(status: str, code: str, *, before: str = "") -> bytes:
    """Return an error document of S3 with any status."""
    text = f'{before}<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>…</Message></Error>'
    return response(status, text.encode(), Content_Type="application/xml", x_amz_request_id="R1")


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def etag_of_parts(parts: list[bytes]) -> str:
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


class MultipartServer:
    """One bucket. `answers` replace the responses to the next calls of a step, and `undone` steps change nothing.

    A step is `create`, `part`, `complete`, `abort`, `put`, `head`, `get`, `delete` or `delete many`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, dict[str, str]]] = {}  # bytes, ETag, headers
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.heads: dict[str, dict[str, str]] = {}  # of uploads
        self.steps: list[str] = []
        self.answers: dict[str, deque[bytes | None]] = {}  # None: the honest response
        self.undone: dict[str, int] = {}  # by step: how many of the next calls change nothing
        self.part_etag: Callable[[bytes], str] = etag_of
        self.put_etag: Callable[[bytes], str] = etag_of
        self.object_etag: Callable[[list[bytes]], str] = etag_of_parts
        self.ignored: set[tuple[str, str]] = set()  # conditions of steps: ("put", "if-match")
        self.is_versioned = False
        self.stored_as: Callable[[bytes], bytes] = bytes  # what a faulty server makes of a body
        self.extra: Mapping[str, str] = NOTHING  # headers of its responses to PutObject and HeadObject
        self.dated: str | None = None  # the Last-Modified of what is stored from now on

    def answer(self, step: str, *answers: bytes | None, undone: int = 0) -> None:
        self.answers[step] = deque(answers)
        self.undone[step] = undone

    def store(self, key: str, data: bytes, etag: str | None = None, headers: Mapping[str, str] = NOTHING) -> None:
        dated = self.dated or formatdate(usegmt=True)
        kept = {name: value for name, value in headers.items() if name.startswith(("content-t", "x-amz-meta-"))}
        kept.setdefault("content-type", "binary/octet-stream")
        self.objects[key] = data, etag_of(data) if etag is None else etag, {**kept, "Last-Modified": dated}

    async def __call__(self, connection: RawConnection, head: Head) -> None:
        body = await connection.reader.readexactly(int(head.headers.get("content-length", "0")))
        url = urlsplit(head.target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        key = unquote(url.path.removeprefix("/bucket").removeprefix("/"))
        step = _step(head.method, query)
        self.steps.append(step)
        if self.undone.get(step, 0):
            self.undone[step] -= 1
            honest = b""
        else:
            honest = self._done(step, key, query, head.headers, body)
        left = self.answers.get(step)
        chosen = left.popleft() if left else None
        sent = honest if chosen is None else chosen
        if sent == RESET:
            connection.reset()
        elif sent == SILENCE:
            await connection.hang()
        else:
            await connection.send(sent)
            if b"Connection: close" in sent:
                connection.writer.close()

    def _done(  # noqa: C901, PLR0911 - a table
        self, step: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> bytes:
        match step:
            case "create":
                name = f"upload-{len(self.heads)}"
                self.uploads[name], self.heads[name] = {}, dict(headers)
                return _document(
                    f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
                )
            case "part" | "complete" | "abort" if query["uploadId"] not in self.uploads:
                return error("404 Not Found", "NoSuchUpload")
            case "part":
                taken = self.stored_as(body)
                self.uploads[query["uploadId"]][int(query["partNumber"])] = taken
                return response("200 OK", ETag=self.part_etag(taken), **_named(self.extra))
            case "abort":
                del self.uploads[query["uploadId"]]
                return response("204 No Content")
            case "complete":
                return self._condition(step, key, headers) or self._completed(key, query["uploadId"], body)
            case "put":
                refused = self._condition(step, key, headers)
                if refused is not None:
                    return refused
                taken = self.stored_as(body)
                etag = self.put_etag(taken)
                self.store(key, taken, etag, headers)
                return response("200 OK", ETag=etag or None, **_named(self.extra))
            case "delete":
                self.objects.pop(key, None)
                return response("204 No Content")
            case "delete many":
                keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
                for one in keys:
                    self.objects.pop(one, None)
                deleted = "".join(f"<Deleted><Key>{one}</Key></Deleted>" for one in keys)
                return _document(f"<DeleteResult>{deleted}</DeleteResult>")
        return self._read(key, headers, is_head=step == "head")

    def _completed(self, key: str, name: str, named: bytes) -> bytes:
        places = [int(place) for place in re.findall(rb"<PartNumber>(\d+)</PartNumber>", named)]
        parts = [self.uploads[name][place] for place in places]
        del self.uploads[name]
        etag = self.object_etag(parts)
        self.store(key, b"".join(parts), etag, self.heads[name])
        text = etag.replace('"', "&quot;")
        return _document(f"<CompleteMultipartUploadResult><ETag>{text}</ETag></CompleteMultipartUploadResult>")

    def _condition(self, step: str, key: str, headers: Mapping[str, str]) -> bytes | None:
        headers = {name: value for name, value in headers.items() if (step, name) not in self.ignored}
        found = self.objects.get(key)
        if headers.get("if-none-match") == "*" and found is not None:
            return error("412 Precondition Failed", "PreconditionFailed")
        if "if-match" in headers and found is None:
            return error("404 Not Found", "NoSuchKey")
        if found is not None and headers.get("if-match", found[1]) != found[1]:
            return error("412 Precondition Failed", "PreconditionFailed")
        return None

    def _read(self, key: str, headers: Mapping[str, str], *, is_head: bool) -> bytes:
        if key not in self.objects:
            refused = error("404 Not Found", "NoSuchKey")
            return refused[: refused.index(b"\r\n\r\n") + 4] if is_head else refused
        data, etag, kept = self.objects[key]
        named = _named({**kept, **self.extra})
        if is_head:
            return response("200 OK", length=len(data), ETag=etag or None, **named)
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(data)) + 1, len(data))
        if start >= stop:
            return error("416 Range Not Satisfiable", "InvalidRange")
        return response(
            "206 Partial Content",
            data[start:stop],
            ETag=etag,
            Content_Range=f"bytes {start}-{stop - 1}/{len(data)}",
            **named,
        )


def _step(method: str, query: Mapping[str, str]) -> str:
    if method == "POST":
        return "delete many" if "delete" in query else "create" if "uploads" in query else "complete"
    if method == "PUT":
        return "part" if "partNumber" in query else "put"
    if method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    return method.lower()


def _named(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in headers.items()} | {"Date": formatdate(usegmt=True)}


def _document(text: str) -> bytes:
    return response("200 OK", text.encode(), Content_Type="application/xml", Date=formatdate(usegmt=True))
