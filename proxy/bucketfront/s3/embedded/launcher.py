"""The embedded origin: an in-memory S3 in a child process, for trying things out (`endpoint_url: embedded`).

The child runs moto's server with its S3 part only (`moto_server.py`). It stores nothing on disk beyond moto's own
anonymous temporary files, checks no signature, and accepts any credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from bucketfront.errors import OriginTimeout, OriginUnavailable
from bucketfront.http import media_types

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from types import TracebackType

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0  # until the child listens and is seeded; half a second suffices on an idle core
STOP_STEP_S = 1.5  # for each of: end of stdin, SIGTERM, SIGKILL

EXAMPLES = Path(__file__).with_name("media")
"""A seed for people: a page with a video as MP4 and as HLS, and a page that uploads."""

_SERVER = Path(__file__).with_name("moto_server.py")
_STDERR_BYTES = 4096  # of the child's stderr, kept for the error message
CURE = "the embedded S3 needs moto's server: pip install 'bucketfront[demo]'"


def is_installed() -> bool:
    """Return whether the packages of the embedded S3 are installed. It imports none of them."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "werkzeug", "flask"))


class EmbeddedS3:
    """A child process that serves S3 on a free loopback port, with `buckets`, each filled from the folder `seed`.

    An async context manager. The child ends with this process, however that ends.
    """

    def __init__(self, buckets: Sequence[str] = (), seed: Path | None = None) -> None:
        self._buckets = buckets
        self._seed_folder = seed
        self._process: Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._stderr = b""
        self._port: int | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._port is None else f"port {self._port}"
        return f"<EmbeddedS3 {state}>"

    @property
    def endpoint_url(self) -> str:
        """Return the URL at which the child listens. It exists between `start` and `stop`."""
        if self._port is None:
            raise RuntimeError("the embedded S3 is not running: await start() first")
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Return the child's process id. It exists between `start` and `stop`."""
        if self._process is None:
            raise RuntimeError("the embedded S3 is not running: await start() first")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the child, and wait until it listens and is seeded.

        Raises OriginUnavailable with the cure or the end of the child's stderr, OriginTimeout after START_TIMEOUT_S.
        """
        if self._process is not None:
            raise RuntimeError("the embedded S3 is running already")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self._port = await self._spawn()
                await self._seed()
        except TimeoutError as error:
            await self.stop()
            raise OriginTimeout(f"the embedded S3 did not listen within {START_TIMEOUT_S:g} s") from error
        except BaseException:
            await self.stop()
            raise

    async def _spawn(self) -> int:
        self._stderr = b""
        # -P keeps the script's own folder off sys.path, where its modules would pass for top-level ones.
        command = [sys.executable, "-P", str(_SERVER)]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise OriginUnavailable(f"the embedded S3 could not be started: {error}") from error
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._drain = asyncio.create_task(self._keep_tail(process.stderr))
        line = await process.stdout.readline()
        if not line.strip().isdigit():
            raise OriginUnavailable(await self._failure())
        return int(line)

    async def _seed(self) -> None:
        """Create the buckets and fill them, through the S3 API. moto's other interfaces may change at any time."""
        if not self._buckets:
            return
        files = [] if self._seed_folder is None else await asyncio.to_thread(read_seed, self._seed_folder)
        # moto treats a request without Authorization as one of an anonymous user.
        async with aiohttp.ClientSession(headers={"Authorization": "embedded"}, raise_for_status=True) as http:
            for bucket in self._buckets:
                await self._put(http, bucket, b"")
                for key, body in files:
                    await self._put(http, f"{bucket}/{key}", body, media_types.of(key))

    async def _put(self, http: aiohttp.ClientSession, path: str, body: bytes, media_type: str | None = None) -> None:
        url = URL(f"{self.endpoint_url}/{quote(path)}", encoded=True)
        headers = {"Content-Type": media_type or "application/octet-stream"}
        try:
            async with http.put(url, data=body, headers=headers):
                pass
        except aiohttp.ClientError as error:
            raise OriginUnavailable(f"the embedded S3 refused PUT /{path}: {error}") from error

    async def stop(self) -> None:
        """End the child and reap it, within three times STOP_STEP_S. Does nothing if no child runs."""
        process, drain = self._process, self._drain
        self._process = self._drain = self._port = None
        if process is None:
            return
        assert process.stdin is not None
        for end in (process.stdin.close, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_STEP_S):
                    await process.wait()
                    break
        with contextlib.suppress(ConnectionError):
            await process.stdin.wait_closed()
        if drain is not None:
            await drain

    async def _keep_tail(self, stderr: asyncio.StreamReader) -> None:
        """Read the child's stderr to its end, so that the child never blocks on it."""
        while chunk := await stderr.read(_STDERR_BYTES):
            log.debug("embedded S3: %s", chunk.decode("utf-8", "replace").rstrip())
            self._stderr = (self._stderr + chunk)[-_STDERR_BYTES:]

    async def _failure(self) -> str:
        """Return why the child ended before it listened."""
        process = self._process
        await self.stop()
        status = process.returncode if process is not None else None
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines() or ["it wrote nothing to stderr"]
        if lines[-1].startswith(("ModuleNotFoundError", "ImportError")):
            return f"{CURE} ({lines[-1]})"
        return f"the embedded S3 ended with status {status} before it listened: {' | '.join(lines[-3:])}"


def read_seed(folder: Path) -> list[tuple[str, bytes]]:
    """Return the keys and bytes of the files below `folder`, in key order, without hidden files and folders.

    Raises OriginUnavailable if there is no such folder, which `rglob` would treat as an empty one.
    """
    if not folder.is_dir():
        raise OriginUnavailable(f"{folder} is no folder to seed from")
    found = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    visible = [(name, path) for name, path in found if not any(part.startswith(".") for part in name.parts)]
    return sorted((name.as_posix(), path.read_bytes()) for name, path in visible)
