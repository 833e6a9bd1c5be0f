"""The programs that a benchmark run starts, each ended by its own process id, and the measurements from outside."""

import asyncio
import contextlib
import getpass
import json
import os
import re
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_TIMEOUT_S = 60.0  # seconds that a program has for its start
STOP_TIMEOUT_S = 15.0  # seconds that it has for its end after SIGTERM
SAMPLE_INTERVAL_S = 0.05  # seconds between two samples of a process's memory
QUIET_S = 0.6  # seconds without a byte from the origin and without a running transfer
MAX_ERROR_LINES = 24  # lines of a proxy's standard error that are shown
BUCKET = "bench"


@dataclass(frozen=True, slots=True)
class Subject:
    """A caching proxy under test. `pid` is its first process; its children are measured with it.

    `admin` is the port for operators, 0 if it has none.
    """

    name: str
    port: int
    prefix: str
    pid: int
    scheme: str = "http"
    admin: int = 0

    def path(self, key: str) -> str:
        return f"{self.prefix}{key}"

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The PEM files of a certificate and its key."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Build:
    """bucketfront's source tree, and the interpreter that runs it."""

    python: str = sys.executable
    tree: Path = HERE.parent
    name: str = "bucketfront"


@contextlib.asynccontextmanager
async def program(
    *arguments: str | Path, cwd: Path, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """Run a process that has ended after the block: its input ends, then it gets SIGTERM, then SIGKILL.

    `variables` go into its environment.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUCKETFRONT_")}
    with contextlib.ExitStack() as stack:
        stderr = None if log is None else stack.enter_context(log.open("wb"))
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=cwd,
            env={**environment, **(variables or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=1 << 24,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    # Not process.terminate(), which may reap an ended child before asyncio does.
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
                return


# --- the origin ------------------------------------------------------------------------------------------------


class Origin:
    def __init__(self, port: int) -> None:
        self.port = port

    async def set(self, *, rate: float = 0.0, delay: float = 0.0) -> None:
        """Set `rate`, bytes a second of each connection, and `delay`, seconds before a first byte."""
        await self._get(f"/_control?rate={rate}&delay={delay}")

    async def count(self, key: str) -> dict[str, Any]:
        return await self._get(f"/_counters?key={key}")

    async def reset(self) -> None:
        await self._get("/_counters?reset=1")

    async def settled(self, key: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Return the counts once this key has no more traffic, or after a timeout."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        count, since = await self.count(key), loop.time()
        while loop.time() < until and loop.time() - since < QUIET_S:
            await asyncio.sleep(0.1)
            before, count = count, await self.count(key)
            if count["running"] or count["sent"] != before["sent"]:
                since = loop.time()
        return count

    async def _get(self, path: str) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found = re.search(r"Content-Length: (\d+)", head)
            assert found is not None
            reply: dict[str, Any] = json.loads(await reader.readexactly(int(found[1])))
            return reply
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def origin() -> AsyncGenerator[Origin, None]:
    async with program(sys.executable, HERE / "origin.py", cwd=HERE) as process:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            port = int(await process.stdout.readline())
        yield Origin(port)


# --- clients ---------------------------------------------------------------------------------------------------


class Client:
    """A client process that runs one job at a time, see `client.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def get(
        self,
        subject: Subject,
        key: str,
        *,
        connections: int = 1,
        start: int | None = None,
        stop: int | None = None,
        limit: int | None = None,
        buffer: int | None = None,
        check: bool = True,
    ) -> list[dict[str, Any]]:
        job = {
            "port": subject.port,
            "path": subject.path(key),
            "key": key,
            "connections": connections,
            "start": start,
            "stop": stop,
            "limit": limit,
            "buffer": buffer,
            "check": check,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        line = await self._process.stdout.readline()
        outcomes: list[dict[str, Any]] = json.loads(line)
        return outcomes


@contextlib.asynccontextmanager
async def clients(count: int) -> AsyncGenerator[list[Client], None]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            Client(await stack.enter_async_context(program(sys.executable, HERE / "client.py", cwd=HERE)))
            for _ in range(count)
        ]


# --- the proxies -----------------------------------------------------------------------------------------------

BUCKETFRONT = """\
server: {{host: 127.0.0.1, port: 0, tls: {tls}, workers: {workers}}}
admin: {{host: 127.0.0.1, port: 0}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: {keys[0]}, secret_access_key: {keys[1]}}}
mounts: [{{path: /, bucket: {bucket}, methods: [{methods}]}}]
cache: {{dir: {folder}/cache, max_size: 12GiB, min_free: 0}}
access_log: {{format: json, path: {log}}}
"""


@contextlib.asynccontextmanager
async def bucketfront(
    folder: Path, origin_port: int, *, keys: tuple[str, str] = ("x", "y"), methods: str = "GET, HEAD",
    certificate: Certificate | None = None, workers: int = 1, access_log: str | None = None, build: Build | None = None,
    authority: Certificate | None = None, more: str = "",
) -> AsyncGenerator[Subject, None]:  # fmt: skip
    """Run a real `bucketfront serve` with default settings and its cache in `folder`. Raises RuntimeError.

    Its access log is a file in `folder`, if `access_log` names no other. `authority` is the certificate of an
    origin with TLS. `more` are further sections of its configuration.
    """
    build = build or Build()
    config = folder / "proxy.yaml"
    config.touch(0o600)  # it has secrets
    endpoint = f"http://127.0.0.1:{origin_port}"
    if authority is not None:
        endpoint = f"https://127.0.0.1:{origin_port}\n  ca_bundle: {authority.chain}"
    tls = "null" if certificate is None else f"{{certificate: {certificate.chain}, key: {certificate.key}}}"
    config.write_text(
        BUCKETFRONT.format(
            endpoint=endpoint, folder=folder, bucket=BUCKET, keys=keys, methods=methods, tls=tls,
            log=access_log or folder / "access.log", workers=workers,
        )
        + more
    )  # fmt: skip
    log = folder / "stderr.log"
    arguments = (build.python, "-m", "bucketfront.cli", "serve", "-c", config)
    variables = {"PYTHONPATH": str(build.tree / "proxy")}
    async with program(*arguments, cwd=build.tree, log=log, variables=variables) as process:
        async with asyncio.timeout(START_TIMEOUT_S):
            while (found := re.search(r"clients\s+(https?)://[^:]+:(\d+)", log.read_text())) is None:
                if process.returncode is not None:
                    raise RuntimeError(f"bucketfront did not start: {log.read_text()}")
                await asyncio.sleep(0.02)
        admin = re.search(r"admin\s+https?://[^:]+:(\d+)", log.read_text())
        yield Subject(build.name, int(found[2]), "/", process.pid, found[1], int(admin[1]) if admin else 0)
        if process.returncode is not None:
            raise RuntimeError(f"bucketfront ended with {process.returncode}: {log.read_text()[-2000:]}")
    banner = ("bucketfront ", "  ")
    complaints = [line for line in log.read_text().splitlines() if not line.startswith(banner)]
    if complaints:
        print(f"\nbucketfront complained, {len(complaints)} lines, of which the first:", file=sys.stderr)
        print(*complaints[:MAX_ERROR_LINES], sep="\n", file=sys.stderr)


NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes {workers};
worker_rlimit_nofile {files};
{user}
events {{ worker_connections 8192; }}
http {{
  access_log {log};
  sendfile on;
  keepalive_requests 100000000;
  open_file_cache max=4096 inactive=1h;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=bench:10m max_size=12g inactive=1h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_cache bench;
  proxy_cache_valid 200 206 1h;
  proxy_cache_lock on;
  {verify}
  server {{
    listen 127.0.0.1:{port}{tls};
    location /whole/ {{
      proxy_cache_key $uri;
      proxy_pass {scheme}://origin/{bucket}/;
    }}
    location /slice/ {{
      slice 1m;
      proxy_set_header Connection "";
      proxy_set_header Range $slice_range;
      proxy_cache_key $uri$slice_range;
      proxy_pass {scheme}://origin/{bucket}/;
    }}
  }}
}}
"""


def _nginx_tls(certificate: Certificate | None) -> str:
    """Return the end of a `listen`, and what a listener with TLS has behind it."""
    if certificate is None:
        return ""
    return f" ssl; ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key}"


def nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.asynccontextmanager
async def nginx(
    folder: Path, origin_port: int, certificate: Certificate | None = None, access_log: str | None = None,
    authority: Certificate | None = None, workers: int = 1,
) -> AsyncGenerator[list[Subject], None]:  # fmt: skip
    """Run `workers` of nginx: whole objects with proxy_cache_lock, and slices of 1 MiB. Raises RuntimeError.

    Its access log is a file in `folder`, if `access_log` says no other. `authority` is the certificate of an
    origin with TLS.
    """
    executable = nginx_program()
    assert executable is not None
    port = free_port()
    user = _user()
    config = folder / "nginx.conf"
    # A request for slices keeps each slice's file open to its end; open_file_cache shares these files if it can.
    files = min(1 << 16, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    tls, scheme = _nginx_tls(certificate), "http" if certificate is None else "https"
    verify, to_origin = "", "http"
    if authority is not None:
        verify = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority.chain}; proxy_ssl_name localhost;"
        to_origin = "https"
    config.write_text(
        NGINX.format(
            folder=folder, origin=origin_port, port=port, bucket=BUCKET, user=user, files=files, tls=tls,
            log=access_log or folder / "access.log", verify=verify, scheme=to_origin,
            workers=workers,
        )
    )  # fmt: skip
    async with listening("nginx", port, executable, "-p", folder, "-c", config, folder=folder) as pid:
        yield [
            Subject("nginx, whole", port, "/whole/", pid, scheme),
            Subject("nginx, slice 1m", port, "/slice/", pid, scheme),
        ]


STATIC = """\
daemon off;
pid {folder}/origin.pid;
error_log {folder}/origin-error.log warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/origin-body;
  proxy_temp_path {folder}/origin-proxy;
  fastcgi_temp_path {folder}/origin-fastcgi;
  scgi_temp_path {folder}/origin-scgi;
  uwsgi_temp_path {folder}/origin-uwsgi;
  server {{ listen 127.0.0.1:{port}{tls}; root {root}; }}
}}
"""


@contextlib.asynccontextmanager
async def static_origin(folder: Path, root: Path, certificate: Certificate | None = None) -> AsyncGenerator[int, None]:
    """Run an nginx with the files `<root>/<bucket>/<key>` at full speed, and yield its port. Raises RuntimeError."""
    executable = nginx_program()
    assert executable is not None
    port = free_port()
    config = folder / "origin.conf"
    tls = _nginx_tls(certificate)
    config.write_text(STATIC.format(folder=folder, root=root, port=port, user=_user(), tls=tls))
    async with listening("nginx", port, executable, "-p", folder, "-c", config, folder=folder):
        yield port


# Without the first line of vcl_recv, Varnish caches no response to a request with a cookie.
VARNISH = """\
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{ unset req.http.Cookie; }}
sub vcl_backend_fetch {{ set bereq.url = "/{bucket}" + bereq.url; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"""


def varnish_program() -> str | None:
    return shutil.which("varnishd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.asynccontextmanager
async def varnish(folder: Path, origin_port: int) -> AsyncGenerator[Subject, None]:
    """Run Varnish with its cache in memory and one pool of threads. Raises RuntimeError."""
    executable = varnish_program()
    assert executable is not None
    port, config = free_port(), folder / "default.vcl"
    config.write_text(VARNISH.format(origin=origin_port, bucket=BUCKET))
    arguments = (executable, "-F", "-j", "none", "-n", folder / "state", "-f", config, "-a", f"127.0.0.1:{port}")
    storage = ("-s", "malloc,6g", "-p", "thread_pools=1")
    async with listening("varnishd", port, *arguments, *storage, folder=folder) as pid:
        yield Subject("Varnish", port, "/", pid)


def _user() -> str:
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


@contextlib.asynccontextmanager
async def listening(name: str, port: int, *arguments: str | Path, folder: Path) -> AsyncGenerator[int, None]:
    """Run a program and yield its process id once it listens. Raises RuntimeError."""
    log = folder / "stderr.log"
    async with program(*arguments, cwd=folder, log=log) as process:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await _listens(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{name} did not start: {log.read_text()}")
                await asyncio.sleep(0.05)
        yield process.pid


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


# --- memory ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """Resident memory of a process and its children, in bytes. `anonymous` leaves out pages of files."""

    base: int = 0
    peak: int = 0
    anonymous_base: int = 0
    anonymous_peak: int = 0

    @property
    def growth(self) -> int:
        return self.peak - self.base

    @property
    def anonymous_growth(self) -> int:
        return self.anonymous_peak - self.anonymous_base


@contextlib.asynccontextmanager
async def watched(subject: Subject) -> AsyncGenerator[Memory, None]:
    """Sample the memory every SAMPLE_INTERVAL_S seconds inside the block."""
    memory = Memory()
    memory.base, memory.anonymous_base = _resident(subject.pid)
    memory.peak, memory.anonymous_peak = memory.base, memory.anonymous_base

    async def sample() -> None:
        while True:
            total, anonymous = _resident(subject.pid)
            memory.peak = max(memory.peak, total)
            memory.anonymous_peak = max(memory.anonymous_peak, anonymous)
            await asyncio.sleep(SAMPLE_INTERVAL_S)

    task = asyncio.create_task(sample())
    try:
        yield memory
    finally:
        task.cancel()
        await asyncio.wait([task])


def cpu_seconds(pid: int) -> float:
    """Return user and system CPU seconds of a process and its children since their start, to the nanosecond."""
    total = 0.0
    for each in _family(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~each << 3 | 2)  # the clock of another process: clock_getcpuclockid(3)
    return total


def resident(pid: int) -> int:
    """Return the resident bytes of a process and its children, pages of files included."""
    return _resident(pid)[0]


def _resident(pid: int) -> tuple[int, int]:
    total = anonymous = 0
    for each in _family(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{each}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            total += int(fields["VmRSS"].split()[0]) << 10
            anonymous += int(fields["RssAnon"].split()[0]) << 10
    return total, anonymous


def serving(pid: int) -> list[int]:
    """Return the processes below one that have no children of their own, as the worker of nginx, or itself."""
    return [each for each in _family(pid) if len(list(_family(each))) == 1]


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))
