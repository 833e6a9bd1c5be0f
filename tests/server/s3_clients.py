"""A client of the S3 endpoint of a proxy that runs in the test's own loop, so each call is made in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from proxy_under_test import Proxy, WallClock
from s3_signer import UNSIGNED, Signer
from wire import Response, fetch

from bucketfront.s3.forwarded_request import canonical_query

SECRET = "0123456789abcdef"
BUCKETS = ["*"]


def endpoint(**settings: Any) -> dict[str, Any]:
    """Return the section `s3` with a key that may do everything, and further settings."""
    keys = [{"id": "app", "secret": SECRET, "buckets": BUCKETS, "write": True}]
    return {"s3": {"port": 0, "keys": keys, **settings}}


class Client:
    """boto3 with the key `key_id`, which calls each operation once."""

    def __init__(self, proxy: Proxy, bucket: str, key_id: str = "app", **options: Any) -> None:
        assert proxy.app.s3 is not None
        self.bucket = bucket
        self.address = proxy.app.s3.listener.address
        style = options.pop("addressing_style", "path")
        self._client = boto3.client(
            "s3",
            endpoint_url=options.pop("url", self.address),
            region_name="us-east-1",
            aws_access_key_id=key_id,
            aws_secret_access_key=options.pop("secret", SECRET),
            config=Config(
                signature_version=options.pop("signature_version", "s3v4"),
                s3={"addressing_style": style},
                retries={"max_attempts": 0},
                **options,
            ),
        )

    async def call(self, operation: str, key: str | None = None, **parameters: Any) -> Any:
        """Return the response of an operation on the bucket, or on an object of it."""
        place = {"Bucket": self.bucket} if key is None else {"Bucket": self.bucket, "Key": key}
        return await self.run(lambda client: getattr(client, operation)(**{**place, **parameters}))

    async def run(self, work: Callable[[Any], Any]) -> Any:
        """Return what `work` does with boto3's client."""
        return await asyncio.to_thread(work, self._client)

    async def read(self, key: str, **parameters: Any) -> bytes:
        """Return the bytes of an object."""
        bucket = parameters.pop("Bucket", self.bucket)
        return bytes(
            await self.run(lambda client: client.get_object(Bucket=bucket, Key=key, **parameters)["Body"].read())
        )

    async def refusal(self, operation: str, key: str | None = None, **parameters: Any) -> tuple[int, str]:
        """Return status and code of an operation that is refused."""
        try:
            await self.call(operation, key, **parameters)
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"]), str(error.response["Error"]["Code"])
        raise AssertionError(f"{operation} of {key} is not refused")


def signed_fields(method: str, url: str, key_id: str = "app", **headers: str) -> dict[str, str]:
    """Return the fields of a request without a body that a client signs, for a test that sends it itself."""
    request = AWSRequest(method, url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    request.context["client_config"] = None
    S3SigV4Auth(Credentials(key_id, SECRET), "s3", "us-east-1").add_auth(request)
    return {"Host": urlsplit(url).netloc, **dict(request.prepare().headers.items())}


class RawClient:
    """A client with a good key that sends any bytes to the endpoint."""

    def __init__(self, proxy: Proxy, clock: WallClock, key_id: str = "app") -> None:
        assert proxy.app.s3 is not None
        self.address = proxy.app.s3.listener.address
        self.signer = Signer(key_id, SECRET, clock)

    async def send(
        self,
        method: str,
        target: str,
        fields: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        payload: str | None = UNSIGNED,
    ) -> Response:
        """Send a request with a signature."""
        path, _, query = target.partition("?")
        named = f"{path}?{canonical_query(query)}" if query else path
        signed = self.signer.fields(method, self.address + named, fields, body, payload=payload)
        return await fetch(self.address, target, method=method, headers=signed, body=body)

    async def presigned(
        self, method: str, target: str, fields: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send a request with a signature in its URL."""
        signed = self.signer.presigned(method, self.address + target)
        host = {"Host": self.address.removeprefix("http://")}
        return await fetch(self.address, signed, method=method, headers=host | (fields or {}), body=body)
