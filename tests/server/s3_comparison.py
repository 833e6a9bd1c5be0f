"""The responses of two endpoints of S3 to the same requests, without what may differ."""

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from s3_signer import Signer, target_of
from s3_steps import Step
from wire import Response, fetch

# The fields that differ between any two servers, or between any two responses of one, and why.
IGNORED = {
    "date": "the time of the response",
    "server": "the name of the program",
    "x-amz-request-id": "each request has its own",
    "x-amzn-requestid": "each request has its own",
    "x-amz-id-2": "each request has its own",
    "connection": "of the connection alone",
    "keep-alive": "of the connection alone",
    "transfer-encoding": "of the connection alone",
    "via": "what a proxy adds (RFC 9110 section 7.6.3)",
    "cache-status": "what a cache adds (RFC 9211)",
    "age": "what a cache adds (RFC 9111)",
    "x-content-type-options": "bucketfront's own, of all responses",
    "x-request-id": "bucketfront's own, of all responses",
    "x-amz-tagging-count": "tags change without a new version, so the cache has no count of them",
    "x-amz-storage-class": "lifecycle rules change it without a new version",
    "x-amz-website-redirect-location": "of S3's websites alone",
    "content-md5": "moto repeats that of the PUT",
    "vary": "bucketfront's own of errors, and SeaweedFS's own of all responses",
    "accept-ranges": "SeaweedFS sends it with responses of all kinds, but not with those of folders",
    "x-amz-checksum-type": "SeaweedFS does not send it",
    "x-amz-content-sha256": "moto repeats that of the PUT",
    "access-control-allow-origin": "moto sends it without a CORS configuration",
    "access-control-allow-methods": "moto sends it without a CORS configuration",
    "access-control-expose-headers": "moto sends it without a CORS configuration",
}
OWN_PREFIXES = ("seaweed-", "x-amz-tagging-")  # of SeaweedFS
# The fields and elements of whose values only the presence is compared: each server makes its own.
OF_THEIR_OWN = {"last-modified", "x-amz-version-id", "x-amz-copy-source-version-id"}
ELEMENTS_OF_THEIR_OWN = {
    "RequestId", "HostId", "LastModified", "Initiated", "UploadId", "VersionId", "Location", "NextContinuationToken",
    "ContinuationToken", "DeleteMarkerVersionId", "Message", "CreationDate", "Resource", "NextVersionIdMarker",
    "NextUploadIdMarker",
}  # fmt: skip


@dataclass(slots=True)
class Side:
    """One of the two endpoints, and what its responses have had so far. `bucket` is as long as that of the other."""

    url: str
    bucket: str
    signer: Signer
    kept: dict[str, str] = field(default_factory=dict)

    async def send(self, folder: str, step: Step) -> Response:
        values = {**self.kept, "bucket": self.bucket, "folder": folder}
        body = None if step.body is None else _filled_bytes(step.body, values)
        values["md5"] = base64.b64encode(hashlib.md5(body or b"").digest()).decode()
        key = None if step.key is None else f"{folder}/{step.key}"
        query = [(name, value and _filled(value, values)) for name, value in step.query]
        target = target_of(step.bucket or self.bucket, key, query)
        given = {name: _filled(value, values) for name, value in step.fields.items()}
        fields = self.signer.fields(step.method, f"{self.url}{target}", given, body)
        response = await fetch(self.url, target, method=step.method, headers=fields, body=body)
        for name, where in step.keeps.items():
            self.kept[name] = response.headers.get(where) or _text_of(response, where)
        return response

    def view(self, response: Response) -> dict[str, object]:
        """Return what has to be the same on both sides.

        Of an error that is status and code: each server has its own details in its documents. A HEAD has no code.
        """
        if response.status >= 400:
            return {"status": response.status, "fields": {}, "body": _text_of(response, "Code")}
        fields: dict[str, object] = {}
        for name, value in response.headers.items():
            lower = name.lower()
            is_optional = response.status == 304 and lower == "last-modified"  # RFC 9110 section 15.4.5
            if lower not in IGNORED and not lower.startswith(OWN_PREFIXES) and not is_optional:
                fields[lower] = "(any)" if lower in OF_THEIR_OWN else self._neutral(value)
        body: object = response.body
        if (document := _document(response, ELEMENTS_OF_THEIR_OWN)) is not None:
            fields.pop("content-length", None)  # the text of a document has many forms
            fields.pop("content-type", None)  # as have the types of XML
            body = [(tag, self._neutral(text)) for tag, text in document]
        return {"status": response.status, "fields": fields, "body": body}

    def _neutral(self, text: str) -> str:
        return text.replace(self.bucket, "(bucket)")


def difference(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Return what two views have not in common, by the names of fields."""
    found = {name: (first[name], second[name]) for name in ("status", "body") if first[name] != second[name]}
    one, other = first["fields"], second["fields"]
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            found[name] = (one.get(name), other.get(name))
    return found


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _filled_bytes(body: bytes, values: Mapping[str, str]) -> bytes:
    return _filled(body.decode(), values).encode() if body.startswith(b"<") else body


def _document(response: Response, hidden: Collection[str]) -> list[tuple[str, str]] | None:
    """Return the elements of an XML document in order with their texts, None if it is none.

    Those that are `hidden` have no text.
    """
    if "xml" not in response.headers.get("Content-Type", "") or not response.body:
        return None
    return list(_elements(ET.fromstring(response.body), "", hidden))


def _elements(element: ET.Element, path: str, hidden: Collection[str]) -> Iterator[tuple[str, str]]:
    name = element.tag.rpartition("}")[2]
    text = "(any)" if name in hidden else (element.text or "").strip()
    yield f"{path}/{name}", text
    for child in element:
        yield from _elements(child, f"{path}/{name}", hidden)


def _text_of(response: Response, tag: str) -> str:
    """Return the text of an element, or nothing if the request has failed."""
    found = [text for path, text in _document(response, {}) or () if path.endswith(f"/{tag}")]
    return found[0] if found else ""
