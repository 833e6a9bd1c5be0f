"""Requests for objects over plain HTTP: signed to an S3 server, or unsigned to bucketfront."""

import hashlib
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from s3_servers import Endpoint

REGION = "us-east-1"
TIMEOUT_S = 60.0
PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Response:
    """A response. Its fields have names in lower case; repeated ones are joined. `body` is None if it was cut off."""

    status: int
    fields: Mapping[str, str]
    body: bytes | None

    @property
    def etag(self) -> str:
        return self.fields.get("etag", "")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Objects:
    """The objects below one URL. `endpoint` has the keys that sign the requests, None for bucketfront."""

    def __init__(self, url: str, endpoint: Endpoint | None = None) -> None:
        self._url = url
        self._endpoint = endpoint

    def send(
        self, method: str, key: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, *,
        is_chunked: bool = False, query: str = "",
    ) -> Response:  # fmt: skip
        """Send one request on a connection of its own. `is_chunked` sends the body without its length."""
        target = f"{urlsplit(self._url).path}/{quote(key, safe='/-_.~')}{query}"
        fields = dict(headers or {})
        if self._endpoint is not None:
            fields = _signed(self._endpoint, method, target, fields, body)
        connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=TIMEOUT_S)
        try:
            content = _pieces(body) if is_chunked and body is not None else body
            connection.request(method, target, content, fields, encode_chunked=is_chunked)
            response = connection.getresponse()
            try:
                data: bytes | None = response.read()
            except http.client.IncompleteRead:
                data = None
            return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        finally:
            connection.close()

    def get(self, key: str, **headers: str) -> Response:
        return self.send("GET", key, _names(headers))

    def head(self, key: str, **headers: str) -> Response:
        return self.send("HEAD", key, _names(headers))

    def put(self, key: str, body: bytes, **headers: str) -> Response:
        return self.send("PUT", key, _names(headers), body)

    def delete(self, key: str) -> Response:
        return self.send("DELETE", key)


def _names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def _signed(
    endpoint: Endpoint, method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> dict[str, str]:
    request = AWSRequest(method, f"{endpoint.url}{target}", dict(headers), body)
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body or b"").hexdigest()
    S3SigV4Auth(Credentials(endpoint.access_key, endpoint.secret_key), "s3", REGION).add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}
