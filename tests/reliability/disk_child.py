"""A whole proxy in a process of its own, for tests that hurt its disk: forked from one that has imported everything.

All of its disk work is done by one thread, so that strace, which counts calls by thread, names each of them by a
number. Its origin is in its memory: nothing but the cache touches the disk, except what was written to the origin,
which has to outlive a kill. `disk_proxy.py` is the other side.
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
from bucketfront.server.http1.event_loop import new_event_loop

BUCKET = "bucket"
CONTROL = 3  # descriptor on which the parent asks for proxies, one by each message
MESSAGE = 1 << 16  # bytes of the longest message


@functools.cache
def body_of(key: str, version: int = 0) -> bytes:
    """`key` ends in `-SIZE`. No two blocks of all of these are equal, and none holds a zero byte."""
    return object_bytes(int(key.rpartition("-")[2]), seed=zlib.crc32(f"{key} {version}".encode()))


class OriginInFolder(FakeOrigin):
    """Every key that ends in `-SIZE` exists. What is written is kept in `folder`, and outlives this process."""

    breaker = SimpleNamespace(is_open=False, opened=0, refused=0)
    slow_bodies = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(chunk=1 << 16, jitter=0)
        self.retries = RetryBudget()
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
    """The one thread that does the disk's work, in place of all pools of the cache."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "disk")
        self.thread_id = self._thread.submit(threading.get_native_id).result()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What it is given meanwhile waits."""
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
    """`halt` is awaited before the cache folder is touched, and after it was opened; the disk does nothing then."""

    halt: Any
    disk: Disk

    async def _start_cache(self) -> None:
        await self.halt("opening")
        await super()._start_cache()
        with self.disk.held():
            await self.halt("opened")


class Child:
    """One proxy. `spec`: `settings`, `origin` (folder), `halts` (whether the start waits for a word before and after
    it opens the cache), `retry_after` (seconds that a failed disk is left alone), `upkeep` (seconds between two rounds
    of it), `short_write` (which of the writes of objects takes half of its bytes first; 0: none).
    """

    def __init__(self, spec: dict[str, Any], channel: socket.socket) -> None:
        self._spec = spec
        self._channel = channel
        self._ahead = 0.0  # seconds that have passed besides
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
                    await self._tell(ready=time.monotonic() - began, address=proxy.address, admin=proxy.admin_address)
                    await self._obey(proxy)
            except StoreError as error:
                await self._tell(refused=str(error))
        await self._tell(stopped=True)

    async def _obey(self, proxy: app.App) -> None:
        while True:
            word = (await self._hear())["do"]
            match word:
                case "stop":
                    return
                case "flush":
                    with contextlib.suppress(StoreError):  # the next one tries again
                        await proxy.cache_assembly.flusher.flush()
                case "age":
                    self._ahead += 2 * proxy.settings.cache.idle_timeout
                case "step":
                    with contextlib.suppress(StoreError):  # the housekeeper's own loop logs it and tries again
                        await proxy.cache_assembly.housekeeper.step()
                case "rest":
                    await self._rest(proxy)
            await self._tell(done=word, asked=len(self._origin.asked) + self._origin.heads)

    async def _rest(self, proxy: app.App) -> None:
        """Until nothing is going on."""
        sweep = next((task for task in asyncio.all_tasks() if task.get_name() == "sweep"), None)
        if sweep is not None:
            await asyncio.wait([sweep])
        while proxy.cache.statistics().flights_running:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.002)
        await proxy.cache_assembly.disposal.finish()

    async def _halt(self, where: str) -> None:
        if self._spec["halts"]:
            await self._tell(at=where)
            await self._hear()

    async def _tell(self, **what: Any) -> None:
        threads = {"main": os.getpid(), "disk": self._disk.thread_id}
        await asyncio.get_running_loop().sock_sendall(self._channel, json.dumps({**threads, **what}).encode())

    async def _hear(self) -> dict[str, Any]:
        said = await asyncio.get_running_loop().sock_recv(self._channel, MESSAGE)
        if not said:
            os._exit(1)  # the test is gone
        return dict(json.loads(said))


def _short(nth: int) -> Any:
    """`os.pwrite`, of which the `nth` call takes half of the bytes, as a disk may that fills up or is interrupted."""
    left, whole = nth, os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal left
        left -= 1
        return whole(fd, data[: len(data) // 2] if not left else data, offset)

    return pwrite


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the test
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    control = socket.socket(fileno=CONTROL)
    while True:
        spec, channels, _, _ = socket.recv_fds(control, MESSAGE, 1)
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
