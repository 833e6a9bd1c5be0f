"""A client of S3 for the benchmark, in a process of its own: boto3, or requests that it signs itself.

A job is a line of JSON on standard input, and its result is a line on standard output. The process ends with its input.
A job: `{"client": "boto3", "url": "http://127.0.0.1:8333", "bucket": "bench", "keys": ["a"], "length": 16384,
"access_key": "x", "secret_key": "y", "seconds": 3.0}`. The result: `{"requests", "seconds", "p50", "p99", "error"}`,
times in seconds.
"""

import hashlib
import hmac
import itertools
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"
BUFFER_BYTES = 1 << 20
OF_NOTHING = hashlib.sha256(b"").hexdigest()


def reader_of(job: dict[str, Any]) -> Callable[[str], int]:
    """Return a function that reads an object, and returns its length."""
    return _boto3_reader(job) if job["client"] == "boto3" else RawReader(job).read


def _boto3_reader(job: dict[str, Any]) -> Callable[[str], int]:
    client = boto3.client(
        "s3",
        endpoint_url=job["url"],
        region_name=REGION,
        aws_access_key_id=job["access_key"],
        aws_secret_access_key=job["secret_key"],
        config=Config(s3={"addressing_style": "path"}),
    )

    def read(key: str) -> int:
        return len(client.get_object(Bucket=job["bucket"], Key=key)["Body"].read())

    return read


class RawReader:
    """One connection, whose requests are signed anew each second."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._host = job["url"].removeprefix("http://")
        self._bucket = job["bucket"]
        self._access_key = job["access_key"]
        self._secret_key = job["secret_key"]
        host, _, port = self._host.partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._heads: dict[tuple[str, str], bytes] = {}

    def read(self, key: str) -> int:
        self._socket.sendall(self._head(key))
        count = self._socket.recv_into(self._buffer)
        while (end := bytes(self._buffer[:count]).find(b"\r\n\r\n")) < 0:
            count += self._socket.recv_into(self._buffer[count:])
        head = bytes(self._buffer[:end])
        if b" 200 " not in head[:16]:
            raise RuntimeError(head[:200].decode("latin-1"))
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        left = length - (count - end - 4)
        while left:
            received = self._socket.recv_into(self._buffer)
            if not received:
                raise RuntimeError("the connection was closed")
            left -= received
        return int(length)

    def _head(self, key: str) -> bytes:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        if (found := self._heads.get((key, moment))) is None:
            found = self._heads[key, moment] = self._signed(key, moment)
        return found

    def _signed(self, key: str, moment: str) -> bytes:
        scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
        names = "host;x-amz-content-sha256;x-amz-date"
        fields = f"host:{self._host}\nx-amz-content-sha256:{OF_NOTHING}\nx-amz-date:{moment}\n"
        target = f"/{self._bucket}/{key}"
        canonical = f"GET\n{target}\n\n{fields}\n{names}\n{OF_NOTHING}"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signing_key = f"AWS4{self._secret_key}".encode()
        for part in scope.split("/"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
        credential = f"Credential={self._access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        lines = [
            f"GET {target} HTTP/1.1", f"Host: {self._host}", f"x-amz-content-sha256: {OF_NOTHING}",
            f"x-amz-date: {moment}", f"Authorization: AWS4-HMAC-SHA256 {credential}", "", "",
        ]  # fmt: skip
        return "\r\n".join(lines).encode()


def run(job: dict[str, Any]) -> dict[str, Any]:
    read = reader_of(job)
    times: list[float] = []
    error = ""
    began = time.perf_counter()
    for key in itertools.cycle(job["keys"]):
        sent = time.perf_counter()
        if sent - began > job["seconds"]:
            break
        if read(key) != job["length"]:
            error = f"{key} has another length"
        times.append(time.perf_counter() - sent)
    took = time.perf_counter() - began
    times.sort()
    return {
        "requests": len(times),
        "seconds": took,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "error": error,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
