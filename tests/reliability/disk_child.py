"""A whole proxy in a process of its own, for tests that damage its disk. It is forked from a process with all imports.

One thread does all disk work. strace counts calls by thread, so each call has a fixed number. The origin is in memory,
so only the cache touches the disk. Objects written to the origin are the exception: they must survive a kill, so they
are files. `disk_proxy.py` is the tests' side.
"""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

from fake_origin import FakeOrigin, FakeUploader, Stored
from fakes import object_bytes

from bucketfront import app
from bucketfront.cache import housekeeper
from bucketfront.cache.clock import boottime
from bucketfront.cache.storage import file_storage
from bucketfront.config.settings import Settings
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3.billing import Billing
from bucketfront.s3.endpoint import S3Endpoint
from bucketfront.server.http1.event_loop import new_event_loop

BUCKET = "bucket"
CONTROL = 3  # the descriptor on which the parent requests proxies, one with each message
MAX_MESSAGE_BYTES = 1 << 16  # bytes of the longest message


@functools.cache
def body_of(key: str, version: int = 0) -> bytes:
    """Return the body of a key that ends in `-SIZE`. No two blocks of all bodies are equal, and no byte is zero."""
    return object_bytes(int(key.rpartition("-")[2]), seed=zlib.crc32(f"{key} {version}".encode()))


class OriginInFolder(FakeOrigin):
    """An origin in which every key that ends in `-SIZE` exists. Written objects are kept in `folder` and survive the
    process.
    """

    breaker = SimpleNamespace(is_open=False, opened=0, refused=0)
    slow_bodies = 0
    endpoint = S3Endpoint("http://origin", "us-east-1", "origin", is_custom=True)

    def __init__(self, folder: Path) -> None:
        super().__init__(chunk=1 << 16, jitter=0)
        self.retries = RetryBudget()
        self.billing = Billing(lambda _: "/")  # nothing is charged here
        self._folder = folder

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def keep(self, key: ObjectKey) -> None:
        """Write the current version of `key` to the folder."""
        new = self._folder / f".{key.key}"
        new.write_bytes(self.objects[key].content)
        new.rename(self._folder / key.key)

    def find(self, key: ObjectKey) -> Stored:
        if key not in self.objects:
            kept = self._folder / key.key
            self.store(key, kept.read_bytes() if kept.exists() else body_of(key.key))
        return super().find(key)


class UploaderToFolder(FakeUploader):
    def __init__(self, origin: OriginInFolder) -> None:
        super().__init__(origin)
        self._folder = origin

    async def put(self, key: ObjectKey, *args: Any, **named: Any) -> Any:
        written = await super().put(key, *args, **named)
        self._folder.keep(key)
        return written


class Disk:
    """The one thread that does all disk work, in place of the thread pools of the cache."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "disk")
        self.thread_id = self._thread.submit(threading.get_native_id).result()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold all new work until the block ends."""
        let_go = threading.Event()
        self._thread.submit(let_go.wait)
        try:
            yield
        finally:
            let_go.set()

    def take_over(self) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("bucketfront.cache.") and hasattr(module, "ThreadPoolExecutor"):
                setattr(module, "ThreadPoolExecutor", lambda *_, **__: self._thread)  # noqa: B010 - of any module


class App(app.App):
    """The application of the proxy. It awaits `halt` before it opens the cache folder and again after that. The disk is
    idle during both.
    """

    halt: Any
    disk: Disk

    async def _start_cache(self) -> None:
        await self.halt("opening")
        await super()._start_cache()
        with self.disk.held():
            await self.halt("opened")


class Child:
    """One proxy.

    `spec` has `settings`, `origin` (a folder), `upkeep` (seconds between two rounds of upkeep) and `retry_after`
    (seconds without disk access after a disk error). With `halts` the start waits for an order before and after it
    opens the cache. `short_write` is the number of the object write that writes half of its bytes first; 0 means no
    such write.
    """

    def __init__(self, spec: dict[str, Any], channel: socket.socket) -> None:
        self._spec = spec
        self._channel = channel
        self._ahead = 0.0  # seconds by which the test advanced the clock
        self._disk = Disk()
        self._origin = OriginInFolder(Path(spec["origin"]))

    async def run(self) -> None:
        self._disk.take_over()
        if nth := self._spec["short_write"]:
            mock.patch.object(os, "pwrite", _short(nth)).start()
        began = time.monotonic()
        settings = Settings.model_validate(self._spec["settings"])
        with (
            mock.patch.object(file_storage, "FAILURE_PAUSE_S", self._spec["retry_after"]),
            mock.patch.object(housekeeper, "INTERVAL_S", self._spec["upkeep"]),
            mock.patch.object(housekeeper, "SWEEP_RETRY_S", self._spec["retry_after"]),
            mock.patch.object(app, "S3Origin", return_value=self._origin),
            mock.patch.object(app, "S3Uploader", return_value=UploaderToFolder(self._origin)),
        ):
            proxy = App(settings, lambda: time.time() + self._ahead, lambda: boottime() + self._ahead)
            proxy.halt, proxy.disk = self._halt, self._disk
            try:
                async with proxy:
                    await self._send(ready=time.monotonic() - began, address=proxy.address, admin=proxy.admin_address)
                    await self._obey(proxy)
            except StoreError as error:
                await self._send(refused=str(error))
        await self._send(stopped=True)

    async def _obey(self, proxy: app.App) -> None:
        while True:
            word = (await self._receive())["do"]
            match word:
                case "stop":
                    return
                case "flush":
                    with contextlib.suppress(StoreError):  # the next flush tries again
                        await proxy.cache_assembly.flusher.flush()
                case "age":
                    self._ahead += 2 * proxy.settings.cache.idle_timeout
                case "step":
                    with contextlib.suppress(StoreError):  # the housekeeper's own loop logs it and tries again
                        await proxy.cache_assembly.housekeeper.step()
                case "rest":
                    await self._rest(proxy)
            await self._send(done=word, requests=len(self._origin.requested) + self._origin.heads)

    async def _rest(self, proxy: app.App) -> None:
        """Wait until no work is running."""
        sweep = next((task for task in asyncio.all_tasks() if task.get_name() == "sweep"), None)
        if sweep is not None:
            await asyncio.wait([sweep])
        while proxy.cache.statistics().flights_running:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.002)
        await proxy.cache_assembly.disposal.finish()

    async def _halt(self, where: str) -> None:
        if self._spec["halts"]:
            await self._send(at=where)
            await self._receive()

    async def _send(self, **what: Any) -> None:
        threads = {"main": os.getpid(), "disk": self._disk.thread_id}
        await asyncio.get_running_loop().sock_sendall(self._channel, json.dumps({**threads, **what}).encode())

    async def _receive(self) -> dict[str, Any]:
        received = await asyncio.get_running_loop().sock_recv(self._channel, MAX_MESSAGE_BYTES)
        if not received:
            os._exit(1)  # the test process has ended
        return dict(json.loads(received))


def _short(nth: int) -> Any:
    """Return an `os.pwrite` whose `nth` call writes half of the bytes, as a disk does that fills up or is
    interrupted.
    """
    left, whole = nth, os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal left
        left -= 1
        return whole(fd, data[: len(data) // 2] if not left else data, offset)

    return pwrite


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the test
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    control = socket.socket(fileno=CONTROL)
    while True:
        spec, channels, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        if not spec:
            return
        if os.fork():
            os.close(channels[0])
            continue
        control.close()
        channel = socket.socket(fileno=channels[0])
        channel.setblocking(False)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(Child(json.loads(spec), channel).run())
        return


if __name__ == "__main__":
    main()
