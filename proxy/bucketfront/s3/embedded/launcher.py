"""The embedded origin: an in-memory S3 in a child process, for trying things out (`endpoint_url: embedded`).

It is moto's server, S3 only. It keeps nothing on disk beyond moto's own anonymous temporary files, checks no
signatures, and answers any credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bucketfront.errors import OriginTimeout, OriginUnavailable
from bucketfront.s3.embedded.moto_server import content_type, seed

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["EmbeddedS3", "content_type", "seed"]

log = logging.getLogger(__name__)

START_DEADLINE = 20.0  # seconds until the child listens; it needs half a second on an idle core
STOP_STEP = 1.5  # seconds for each of: end of stdin, SIGTERM, SIGKILL

_SERVER = Path(__file__).with_name("moto_server.py")
_TAIL = 4096  # bytes of stderr kept for the message
_CURE = "the embedded S3 needs moto's server: pip install 'bucketfront[demo]'"


class EmbeddedS3:
    """A child process that serves S3 on a free loopback port, with `buckets` each filled from `seed`.

    An async context manager. The child ends with this process, however that ends.
    """

    def __init__(self, buckets: Sequence[str] = (), seed: Path | None = None) -> None:
        self._arguments = [f"--bucket={bucket}" for bucket in buckets]
        if seed is not None:
            self._arguments.append(f"--seed={seed}")
        self._process: Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._stderr = b""
        self._port: int | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._port is None else f"port {self._port}"
        return f"<EmbeddedS3 {state}>"

    @property
    def endpoint_url(self) -> str:
        """Where it listens. Known between `start` and `stop`."""
        if self._port is None:
            raise RuntimeError("the embedded S3 is not running: await start() first")
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The child's process id. Known between `start` and `stop`."""
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
        """Start the child and wait until it listens and is seeded.

        Raises OriginUnavailable with the cure or the child's last words, OriginTimeout after START_DEADLINE.
        """
        if self._process is not None:
            raise RuntimeError("the embedded S3 is running already")
        try:
            self._port = await self._spawn()
        except BaseException:
            await self.stop()
            raise

    async def _spawn(self) -> int:
        self._stderr = b""
        # -P: the script's own folder stays off sys.path, where its modules would pass for top-level ones.
        command = [sys.executable, "-P", str(_SERVER), *self._arguments]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise OriginUnavailable(f"the embedded S3 could not be started: {error}") from error
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._drain = asyncio.create_task(self._keep_tail(process.stderr))
        try:
            async with asyncio.timeout(START_DEADLINE):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise OriginTimeout(f"the embedded S3 did not listen within {START_DEADLINE:g} s") from error
        if not line.strip().isdigit():
            raise OriginUnavailable(await self._last_words())
        return int(line)

    async def stop(self) -> None:
        """End the child and reap it; at most three times STOP_STEP. Harmless when it is not running."""
        process, drain = self._process, self._drain
        self._process = self._drain = self._port = None
        if process is None:
            return
        assert process.stdin is not None
        for end in (process.stdin.close, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_STEP):
                    await process.wait()
                    break
        with contextlib.suppress(ConnectionError):
            await process.stdin.wait_closed()
        if drain is not None:
            await drain

    async def _keep_tail(self, stderr: asyncio.StreamReader) -> None:
        """Read the child's stderr to its end, so that the child never blocks on it."""
        while chunk := await stderr.read(_TAIL):
            log.debug("embedded S3: %s", chunk.decode("utf-8", "replace").rstrip())
            self._stderr = (self._stderr + chunk)[-_TAIL:]

    async def _last_words(self) -> str:
        """Why the child ended before it listened."""
        process = self._process
        await self.stop()
        status = process.returncode if process is not None else None
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines() or ["it wrote nothing to stderr"]
        if lines[-1].startswith(("ModuleNotFoundError", "ImportError")):
            return f"{_CURE} ({lines[-1]})"
        return f"the embedded S3 ended with status {status} before it listened: {' | '.join(lines[-3:])}"
