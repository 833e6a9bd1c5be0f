"""Requests of S3's clients as bytes, signed by botocore at a time that the test sets, and bodies in signed chunks."""

import datetime as dt
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock
from urllib.parse import quote, urlsplit

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "us-east-1"
OF_NOTHING = hashlib.sha256(b"").hexdigest()
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
UNSIGNED = "UNSIGNED-PAYLOAD"


def target_of(bucket: str, key: str | None = None, query: Sequence[tuple[str, str | None]] = ()) -> str:
    """Return the path and query of a request in path style, encoded as SDKs encode them."""
    path = f"/{bucket}" if key is None else f"/{bucket}/{quote(key, safe='/-_.~')}"
    pairs = [
        quote(name, safe="-_.~") + ("" if value is None else f"={quote(value, safe='-_.~')}") for name, value in query
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


@dataclass(frozen=True, slots=True)
class Signer:
    """A client's key. `now` is its clock."""

    access_key: str
    secret_key: str
    now: Callable[[], float]
    region: str = REGION

    def fields(
        self,
        method: str,
        url: str,
        fields: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        payload: str | None = None,
    ) -> dict[str, str]:
        """Return the header fields of a signed request, `Host` among them.

        `payload` is what stands for the body, by default its hash.
        """
        request = AWSRequest(method, url, {"Host": urlsplit(url).netloc, **(fields or {})}, body)
        with self._clock():
            _Auth(self, payload or hashlib.sha256(body or b"").hexdigest()).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}

    def presigned(self, method: str, url: str, expires: int = 600, fields: Mapping[str, str] | None = None) -> str:
        """Return the target of a presigned URL."""
        request = AWSRequest(method, url, {"Host": urlsplit(url).netloc, **(fields or {})})
        signer = auth.S3SigV4QueryAuth(
            Credentials(self.access_key, self.secret_key), "s3", self.region, expires=expires
        )
        with self._clock():
            signer.add_auth(request)
        signed = urlsplit(request.url)
        return f"{signed.path}?{signed.query}"

    def _clock(self) -> "mock._patch[mock.Mock]":
        moment = dt.datetime.fromtimestamp(self.now(), dt.UTC)
        return mock.patch.object(auth, "get_current_datetime", return_value=moment)


class _Auth(auth.S3SigV4Auth):  # type: ignore[misc]  # botocore ships no types
    """botocore's signer with a given text that stands for the body."""

    def __init__(self, signer: Signer, payload: str) -> None:
        super().__init__(Credentials(signer.access_key, signer.secret_key), "s3", signer.region)
        self._payload = payload

    def payload(self, request: AWSRequest) -> str:
        return self._payload


class Chunks:
    """The chunks of one body, each signed over the one before it (S3 API, "Transferring Payload in Multiple Chunks").

    `fields` are those of the signed request.
    """

    def __init__(self, signer: Signer, fields: Mapping[str, str]) -> None:
        self._moment = fields["X-Amz-Date"]
        self._scope = f"{self._moment[:8]}/{signer.region}/s3/aws4_request"
        key = f"AWS4{signer.secret_key}".encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key
        self._last = fields["Authorization"].rpartition("Signature=")[2]

    def chunk(self, data: bytes) -> bytes:
        """Return the next chunk. That of no bytes is the last one, and nothing follows its line."""
        head = b"%x;chunk-signature=%s\r\n" % (len(data), self._signature(data))
        return head + (data + b"\r\n" if data else b"")

    def trailer(self, name: str, value: str) -> bytes:
        """Return a trailer of one field with its signature, to the end of the body."""
        digest = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
        signature = self._sign("AWS4-HMAC-SHA256-TRAILER", digest)
        return f"{name}:{value}\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()

    def _signature(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).hexdigest()
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", f"{OF_NOTHING}\n{digest}").encode()

    def _sign(self, kind: str, what: str) -> str:
        text = f"{kind}\n{self._moment}\n{self._scope}\n{self._last}\n{what}"
        self._last = hmac.digest(self._key, text.encode(), "sha256").hex()
        return self._last
