"""Take-overs of whole processes, under clients that send requests without a pause, and with kills in each step."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from held_port import held_port
from proxy_under_test import S3, WORKERS, pattern, until
from relay import Relay, Seen
from wire import Connection, connected, fetch, message

from bucketfront.takeover.messages import SOCKET_NAME

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CLIENTS = 8
IN_A_ROW = 3  # test_takeover.py has ten
ANSWERED_BETWEEN = 60  # responses of each process, at least
KIB = 1 << 10

# Runs the command, and stops at the point that is named, so that the test can kill it there.
_STOPPING = """
import asyncio, os, signal, sys
from bucketfront.takeover import incumbent, successor, tenure
from bucketfront import app
from bucketfront.cli import main

def stop_before(owner, name):
    found = getattr(owner, name)
    def stopped(*args, **kwargs):
        print("HERE", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return found(*args, **kwargs)
    setattr(owner, name, stopped)

points = {
    "greeted": (successor.Successor, "request_release"),
    "released": (app.App, "_start_cache"),
    "opened": (app.App, "_start_admin"),
    "serving": (successor.Successor, "report_serving"),
    "paused": (tenure.Tenure, "release"),
    "settled": (tenure.UploadManager, "hand_over"),
    "given away": (tenure.Tenure, "give_away"),
}
point = os.environ.get("STOP_BEFORE")
if point:
    stop_before(*points[point])
main(sys.argv[1:])
"""


def write_config(folder: Path, endpoint: str, bucket: str, port: int, admin: int, workers: int) -> Path:
    file = folder / "proxy.yaml"
    file.write_text(
        f"""\
server: {{port: {port}, workers: {workers}, listeners: [{{unix: {folder}/clients.sock}}]}}
admin: {{port: {admin}}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  read_timeout: 10m
  credentials: {{access_key_id: any, secret_access_key: any}}
mounts: [{{path: /, bucket: {bucket}, methods: [GET, HEAD, PUT, DELETE]}}]
cache: {{dir: {folder}/cache, max_size: 256MiB, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""
    )
    return file


class Process:
    """A `bucketfront serve --take-over` of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, config: Path, stop_before: str = "") -> "Process":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _STOPPING, "serve", "-c", str(config), "--take-over"),
            cwd=ROOT,
            env={**os.environ, "STOP_BEFORE": stop_before},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(line.decode())

    def has_printed(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    async def serves(self) -> None:
        await until(lambda: self.has_printed("  origin ") or self.process.returncode is not None, within=120)
        assert self.process.returncode is None, self.lines

    async def reaches(self) -> None:
        await until(lambda: self.has_printed("HERE"), within=120)

    async def ends(self) -> int:
        async with asyncio.timeout(120):
            status = await self.process.wait()
            await self._reading
        return status

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.ends()


@dataclass
class Load:
    """Clients of one address. `answered` counts whole responses, and `lost` has what went wrong for the others."""

    address: str
    bodies: dict[str, bytes]
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    is_over: bool = False
    has_taken_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, targets: list[str], *, keeps_alive: bool) -> None:
        """Send GETs one after another, each on a connection of its own, or as many on one as the proxy takes."""
        at = 0
        while not self.is_over:
            try:
                async with connected(self.address) as connection:
                    while not self.is_over:
                        target = targets[at % len(targets)]
                        response = await connection.request("GET", target)
                        assert response.status == 200, response.status
                        assert response.is_complete
                        assert response.body == self.bodies[target.partition("?")[0]], "wrong bytes"
                        self.answered += 1
                        at += 1
                        if not keeps_alive or response.headers.get("Connection") == "close":
                            break
            except (OSError, EOFError, AssertionError) as error:
                self.lost.append(f"{target}: {error!r}")

    async def upload(self, connection: Connection, target: str, body: bytes) -> int:
        """Send a PUT whose body goes on slowly until `has_taken_over` is set. Return the status."""
        await connection.send(message("PUT", target, {"Content-Length": str(len(body))}))
        at = 0
        while at < len(body):
            is_over = self.has_taken_over.is_set()
            count = len(body) if is_over else min(4 * KIB, max(1, (len(body) - at) // 8))
            await connection.send(body[at : at + count])
            at += count
            enough = self.answered + 1
            await until(lambda enough=enough: self.answered >= enough or self.is_over)  # type: ignore[misc]
        return (await connection.response("PUT")).status

    async def answers_more(self) -> None:
        enough = self.answered + ANSWERED_BETWEEN
        await until(lambda: self.answered >= enough, within=120)


@pytest.fixture
def workers() -> int:
    return WORKERS


@pytest.fixture
def config(s3: S3, relay: Relay, tmp_path: Path, workers: int) -> Iterator[Path]:
    with ExitStack() as held:
        port, admin = (held.enter_context(held_port()) for _ in range(2))
        yield write_config(tmp_path, relay.url, s3.bucket, port, admin, workers)


def address_of(config: Path) -> str:
    port = int(config.read_text().partition("port: ")[2].partition(",")[0])
    return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def loaded(config: Path, s3: S3) -> AsyncIterator[Load]:
    """Run clients in the block. After it all their requests must have had whole, right responses."""
    bodies = {f"/{size}": pattern(size) for size in (100, 20_000, 1_000_000)}
    bodies |= {f"/cold{number}": pattern(3000 + number, number) for number in range(400)}
    for target, body in bodies.items():
        s3.put(target[1:], body)
    load = Load(address_of(config), bodies)
    hits = [target for target in bodies if not target.startswith("/cold")]
    colds = [target for target in bodies if target.startswith("/cold")]
    clients = [
        asyncio.create_task(load.run(hits if number % 4 else colds, keeps_alive=number % 2 == 0))
        for number in range(CLIENTS)
    ]
    try:
        yield load
    finally:
        load.is_over = True
        await asyncio.gather(*clients)
    assert load.lost == []


@contextmanager
def slow(relay: Relay, key: str) -> Iterator[asyncio.Event]:
    """Hold the bodies of `key` after their first 256 KiB until the event is set."""
    goes_on = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if key in seen.target and seen.sent >= 256 * KIB:
            await goes_on.wait()

    relay.on_body = hold
    yield goes_on
    goes_on.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_take_overs_under_load_lose_no_request(s3: S3, relay: Relay, config: Path) -> None:
    """Each request gets its whole response while processes take over one after another.

    A download that waits for S3, one whose client is slow, and an upload begin before the first take-over and end after
    the last one.
    """
    film, upload = pattern(6 << 20, 7), pattern(40 << 20, 9)
    s3.put("film", film)
    s3.put("cold-film", film)
    address = address_of(config)
    processes = [await Process.start(config)]
    try:
        await processes[0].serves()
        assert (await fetch(address, "/film")).body == film
        with slow(relay, "cold-film") as goes_on:
            async with (
                loaded(config, s3) as load,
                connected(address) as cold,
                connected(address) as reader,
                connected(address) as writer,
            ):
                for connection, target in ((cold, "/cold-film"), (reader, "/film")):
                    await connection.send(message("GET", target))
                    await connection.head()
                uploading = asyncio.create_task(load.upload(writer, "/new", upload))
                for _ in range(IN_A_ROW):
                    await load.answers_more()
                    processes.append(await Process.start(config))
                    await processes[-1].serves()
                await load.answers_more()
                goes_on.set()
                for connection in (cold, reader):
                    assert await connection.reader.readexactly(len(film)) == film
                load.has_taken_over.set()
                assert await uploading in (200, 201)
                assert (await fetch(address, "/new")).body == upload
        for process in processes[:-1]:
            assert await process.ends() == 0
        response = await fetch(address, "/film")
        assert (response.body == film, response.cache_status[:3]) == (True, "hit")
        assert load.answered >= ANSWERED_BETWEEN * (IN_A_ROW + 1)
        processes[-1].process.send_signal(signal.SIGTERM)
        assert await processes[-1].ends() == 0
        left = {path.name for path in (config.parent / "cache").iterdir()}
        assert left - {"uploads.json"} == {"index.db", "lock", "objects", "uploads"}
        assert not (config.parent / "clients.sock").exists()
    finally:
        for process in processes:
            await process.kill()


@pytest.mark.parametrize("point", ["greeted", "released", "opened", "serving"])
async def test_the_new_process_is_killed(s3: S3, config: Path, point: str) -> None:
    """Wherever the new process is killed, the running one goes on, and no request is lost."""
    running = await Process.start(config)
    new = None
    try:
        await running.serves()
        async with loaded(config, s3) as load:
            await load.answers_more()
            new = await Process.start(config, point)
            await new.reaches()
            new.process.send_signal(signal.SIGKILL)
            await load.answers_more()
            await new.ends()
            await load.answers_more()
        assert (await fetch(load.address, "/100")).cache_status.startswith("hit")
        assert (await fetch(f"unix:{config.parent}/clients.sock", "/100")).status == 200
        running.process.send_signal(signal.SIGTERM)
        assert await running.ends() == 0
    finally:
        for process in (running, new):
            if process is not None:
                await process.kill()


@pytest.mark.parametrize("point", ["paused", "settled", "given away"])
async def test_the_running_process_is_killed(s3: S3, config: Path, point: str) -> None:
    """Wherever the running process is killed, the new one serves on the same sockets, with what the cache has."""
    s3.put("x", b"data")
    running = await Process.start(config, point)
    address = address_of(config)
    new = None
    try:
        await running.serves()
        assert (await fetch(address, "/x")).body == b"data"
        new = await Process.start(config)
        await running.reaches()
        waiting = asyncio.create_task(fetch(address, "/x"))
        await asyncio.sleep(0)
        running.process.send_signal(signal.SIGKILL)
        await running.ends()
        await new.serves()
        assert (await waiting).body == b"data"
        assert (await fetch(address, "/x")).body == b"data"
        assert (await fetch(f"unix:{config.parent}/clients.sock", "/x")).body == b"data"
        assert (config.parent / "cache" / SOCKET_NAME).exists()
        new.process.send_signal(signal.SIGTERM)
        assert await new.ends() == 0
    finally:
        for process in (running, new):
            if process is not None:
                await process.kill()


@pytest.fixture
def wrong(config: Path) -> Path:
    """The same configuration with a key that does not exist."""
    file = config.with_name("wrong.yaml")
    file.write_text(config.read_text() + "nonsense: 1\n")
    return file


async def test_a_wrong_configuration(s3: S3, config: Path, wrong: Path) -> None:
    """A new process with a wrong configuration ends with status 2, and the running one does not notice."""
    running = await Process.start(config)
    try:
        await running.serves()
        new = await Process.start(wrong)
        assert await new.ends() == 2
        s3.put("x", b"data")
        assert (await fetch(address_of(config), "/x")).body == b"data"
    finally:
        await running.kill()


async def test_a_stop_of_the_new_process_while_it_waits(s3: S3, config: Path) -> None:
    """SIGTERM ends a new process that waits for the running one, which goes on."""
    running = await Process.start(config, "paused")
    new = None
    try:
        await running.serves()
        new = await Process.start(config)
        await running.reaches()
        new.process.send_signal(signal.SIGTERM)
        assert await new.ends() == 0
        running.process.send_signal(signal.SIGCONT)
        s3.put("x", b"data")
        assert (await fetch(address_of(config), "/x")).body == b"data"
    finally:
        for process in (running, new):
            if process is not None:
                await process.kill()
