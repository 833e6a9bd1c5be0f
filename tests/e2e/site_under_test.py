"""What the programs run against: bucketfront in front of SeaweedFS, and a log of the origin's requests."""

import asyncio
import contextlib
import hashlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import boto3
from botocore.config import Config
from bucketfront_process import Running, bucketfront
from relay import Relay, Seen
from seaweed import Seaweed

BUCKET = "media"
MOUNTS = f"mounts: [{{path: /, bucket: {BUCKET}, methods: [GET, HEAD, PUT, POST, DELETE]}}]"
TIMEOUT_S = 60.0

_BASE = """\
server: {{port: 0}}
admin: {{port: 0}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: {access_key}, secret_access_key: {secret_key}}}
access_log: {{path: {folder}/access.log}}
cache: {{dir: {folder}/cache, min_free: 0}}
"""


class OriginLog:
    """A relay in front of an origin, in a thread of its own. A context manager."""

    def __init__(self, upstream: str) -> None:
        self._relay = Relay(upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="origin log")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._relay.start(), self._loop).result(TIMEOUT_S)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._relay.close(), self._loop).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self._relay.url

    def since(self, mark: int) -> list[Seen]:
        """Return the requests from the one with that number on."""
        return self._relay.seen[mark:]

    @property
    def mark(self) -> int:
        """Return the number of requests so far."""
        return len(self._relay.seen)

    @contextlib.contextmanager
    def held(self, *, bodies_only: bool = False) -> Iterator[None]:
        """Let requests wait until the end of the block, or the bodies of their responses."""
        over = asyncio.Event()

        async def wait(seen: Seen) -> None:
            await over.wait()

        self._relay.on_request, self._relay.on_body = None if bodies_only else wait, wait
        try:
            yield
        finally:
            self._relay.on_request = self._relay.on_body = None
            self._loop.call_soon_threadsafe(over.set)

    def delay(self, seconds_for: Callable[[Seen], float]) -> None:
        """Let each request wait from now on, and each chunk of its response a hundredth of that."""

        async def wait(seen: Seen) -> None:
            await asyncio.sleep(seconds_for(seen))

        async def pace(seen: Seen) -> None:
            await asyncio.sleep(seconds_for(seen) / 100)

        self._relay.on_request, self._relay.on_body = wait, pace

    def stop(self) -> None:
        """Refuse connections from now on, and close those that are open: an outage."""
        asyncio.run_coroutine_threadsafe(self._relay.stop(), self._loop).result(TIMEOUT_S)

    def start(self) -> None:
        """End the outage, at the same address."""
        asyncio.run_coroutine_threadsafe(self._relay.start(), self._loop).result(TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    fields: http.client.HTTPMessage
    body: bytes


class Origin:
    """SeaweedFS behind its log. `objects` is boto3's client of SeaweedFS itself, which leaves no trace in the log."""

    def __init__(self, server: Seaweed, log: OriginLog) -> None:
        self.server = server
        self.log = log
        self.objects: Any = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            region_name=server.region,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def configuration(self, folder: Path, more: str = MOUNTS) -> str:
        """Return the text of a `proxy.yaml`: this origin and a cache in `folder`, and the sections of `more`."""
        named = {"access_key": self.server.access_key, "secret_key": self.server.secret_key}
        return _BASE.format(endpoint=self.log.url, folder=folder, **named) + more + "\n"


@contextlib.contextmanager
def origin() -> Iterator[Origin]:
    with Seaweed(BUCKET) as server, OriginLog(server.endpoint_url) as log:
        yield Origin(server, log)


class Site:
    """One test's view of a running bucketfront. Its objects are below a folder of the bucket that no other test uses.

    Names are relative to that folder. `url` has no slash at the end.
    """

    def __init__(self, origin: Origin, running: Running, folder: str) -> None:
        self.origin = origin
        self.running = running
        self.folder = folder
        self.url = f"{running.url}/{folder}"
        self._mark = origin.log.mark

    def url_of(self, name: str) -> str:
        return f"{self.url}/{quote(name)}"

    def store(self, name: str, data: bytes, **fields: str) -> str:
        """Store an object straight at the origin, and return its URL. `fields` are those of PutObject, such as
        ContentType.
        """
        self.origin.objects.put_object(Bucket=BUCKET, Key=f"{self.folder}/{name}", Body=data, **fields)
        return self.url_of(name)

    def stored(self, name: str) -> bytes | None:
        """Return what the origin itself has, None if there is no such object."""
        try:
            found = self.origin.objects.get_object(Bucket=BUCKET, Key=f"{self.folder}/{name}")
        except self.origin.objects.exceptions.NoSuchKey:
            return None
        data: bytes = found["Body"].read()
        return data

    def names(self) -> list[str]:
        """Return the names of all objects at the origin, in order."""
        pages = self.origin.objects.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.folder}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return sorted(key.removeprefix(f"{self.folder}/") for key in keys)

    def send(self, method: str, name: str, fields: dict[str, str] | None = None, body: bytes | None = None) -> Response:
        """Send one plain request to bucketfront."""
        target = urlsplit(self.url_of(name))
        connection = http.client.HTTPConnection(target.netloc, timeout=TIMEOUT_S)
        try:
            connection.request(method, target.path, body, fields or {})
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def requests(self) -> list[Seen]:
        """Return the requests of bucketfront to the origin since the test began, or since `forget`."""
        return self.origin.log.since(self._mark)

    def forget(self) -> None:
        """Count requests from now on."""
        self._mark = self.origin.log.mark

    def origin_bytes(self) -> int:
        """Return the body bytes of objects that the origin has sent since the test began, or since `forget`."""
        return sum(seen.sent for seen in self.requests() if seen.method == "GET" and seen.status in (200, 206))


@contextlib.contextmanager
def running_site(origin: Origin, folder: Path, more: str, name: str) -> Iterator[Site]:
    """Run a bucketfront of its own with the sections of `more`, for the test with the id `name`."""
    with bucketfront(origin.configuration(folder, more), folder) as running:
        yield Site(origin, running, folder_of(name))


def folder_of(name: str) -> str:
    """Return a folder for a test that is short, and safe in every URL and file system.

    `name` is the test's id, because tests of several modules may have one name.
    """
    return f"{name.partition('[')[0].rpartition(':')[2]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
