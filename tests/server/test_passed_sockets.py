"""Sockets that systemd passes to the process: sd_listen_fds(3)."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy_under_test import S3, settings_of
from relay import Relay
from rows import each_row
from stopwatch import HANG_S
from test_binding import needs_ipv6
from wire import connected, message

from bucketfront.app import App
from bucketfront.config.listener_settings import ServerSettings
from bucketfront.errors import CannotListen
from bucketfront.server.client_listener import client_sites
from bucketfront.server.http1 import passed_sockets
from bucketfront.server.http1.passed_sockets import PassedPlace, PassedSockets, sockets_of
from bucketfront.server.http1.proxy_headers import ProxyHeaders

# Moves the sockets to the descriptors 3 and 4, and becomes the command, as systemd does.
_ACTIVATE = """
import fcntl, os, sys
copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture
def two() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two listening sockets, as the manager of services keeps them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        yield first, second


@pytest.fixture
def first_descriptor(two: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> int:
    """The first of two descriptors in a row, which are copies of the sockets."""
    low = max(int(number.name) for number in Path("/proc/self/fd").iterdir()) + 20
    for number, one in enumerate(two):
        os.dup2(one.fileno(), low + number)
    monkeypatch.setattr(passed_sockets, "FIRST_DESCRIPTOR", low)
    return low


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("a:b", {"a": [0], "b": [1]}),
        ("a:a", {"a": [0, 1]}),
        ("a", {"a": [0], "unknown": [1]}),
        ("", {"unknown": [0, 1]}),
        (None, {"unknown": [0, 1]}),
        ("a:b:c", {"a": [0], "b": [1]}),
    ],
)
def test_names(first_descriptor: int, names: str | None, found: dict[str, list[int]]) -> None:
    """Each socket has its name. Several may have the same, and one without is `unknown`. No child gets any."""
    environment = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "PATH": "/bin"}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    passed = PassedSockets.take(environment, 7)
    assert passed.by_name == {name: tuple(first_descriptor + at for at in all_of) for name, all_of in found.items()}
    assert environment == {"PATH": "/bin"}
    assert not os.get_inheritable(first_descriptor)
    for number in range(2):
        os.close(first_descriptor + number)


@each_row("count", ["2", "", "-1", "two", "0"])
@each_row("process", ["8", "", "seven"])
def test_variables_of_another_process(process: str, count: str) -> None:
    """Variables that are meant for another process, or that are malformed, pass nothing, and are removed."""
    environment = {"LISTEN_PID": process, "LISTEN_FDS": count, "LISTEN_FDNAMES": "a:b"}
    assert not PassedSockets.take(environment, 7).by_name
    assert not environment


@each_row(
    ("kind", "listens", "text"),
    [
        ((socket.AF_INET, socket.SOCK_DGRAM), False, "ListenStream="),
        ((socket.AF_UNIX, socket.SOCK_SEQPACKET), False, "ListenStream="),
        ((socket.AF_INET, socket.SOCK_STREAM), False, "Accept=no"),
        (None, False, "no socket"),
        ((socket.AF_INET, socket.SOCK_STREAM), True, ""),
    ],
)
def test_the_type_is_checked(kind: tuple[int, int] | None, *, listens: bool, text: str) -> None:
    """What is no listening stream is an error that names the setting of the unit."""
    own = socket.socket(*kind) if kind is not None else open("/dev/null")  # noqa: PTH123, SIM115 - any file
    with own:
        if listens and isinstance(own, socket.socket):
            own.listen()
        place = PassedPlace("a", PassedSockets({"a": (own.fileno(),)}), 1)
        if not text:
            (found,) = sockets_of(place)
            found.close()
            return
        with pytest.raises(CannotListen, match=text) as caught:
            sockets_of(place)
        assert caught.value.at == ("server", "listeners", 1, "systemd")


@pytest.mark.parametrize(("passed", "text"), [({}, "no sockets"), ({"other": (3,)}, "has passed other")])
def test_a_name_that_was_not_passed(passed: dict[str, tuple[int, ...]], text: str) -> None:
    """A name without a socket is an error that has the names there are."""
    with pytest.raises(CannotListen, match=text):
        sockets_of(PassedPlace("a", PassedSockets(passed), 0))


def test_a_socket_that_no_listener_names(caplog: pytest.LogCaptureFixture) -> None:
    """A socket that nothing takes is a warning with its name, because its clients would wait for ever."""
    settings = ServerSettings.model_validate({"listeners": [{"systemd": "web"}]})
    client_sites(settings, PassedSockets({"web": (3,), "old": (4,)}), ProxyHeaders(()))
    assert "has passed old, which no listener" in caplog.text


def write_config(folder: Path, endpoint: str, bucket: str) -> Path:
    file = folder / "proxy.yaml"
    file.write_text(
        f"""\
server: {{port: null, listeners: [{{systemd: web}}, {{systemd: fronts, proxy_protocol: true}}],
          trusted_proxies: [127.0.0.0/8]}}
admin: {{port: 0}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: any, secret_access_key: any}}
mounts: [{{path: /, bucket: {bucket}}}]
cache: {{dir: {folder}/cache, max_size: 64MiB, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""
    )
    return file


@asynccontextmanager
async def activated(
    config: Path, two: tuple[socket.socket, socket.socket]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """Run the process as systemd does. It is ended with SIGTERM. Yields the lines that it prints at the start."""
    numbers = [one.fileno() for one in two]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ACTIVATE, *map(str, numbers)),
        *(sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)),
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:fronts"},
        pass_fds=numbers,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    try:
        lines: list[str] = []
        async with asyncio.timeout(HANG_S):
            while not any("  origin " in line for line in lines):
                line = await process.stderr.readline()
                assert line, lines
                lines.append(line.decode())
        yield process, lines
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_restart_drops_no_connection(
    s3: S3, relay: Relay, tmp_path: Path, two: tuple[socket.socket, socket.socket]
) -> None:
    """The process serves sockets that it was passed, and what connects while it is restarted waits for it."""
    s3.put("x", b"data")
    config = write_config(tmp_path, relay.url, s3.bucket)
    web, fronts = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in two)
    async with activated(config, two) as (_, lines):
        assert [line.split() for line in lines if "clients" in line] == [["clients", web], ["clients", fronts]]
        async with connected(web) as client:
            assert (await client.request("GET", "/x")).body == b"data"
    async with connected(web) as waiting, connected(fronts) as named:
        await waiting.send(message("GET", "/x"))
        await named.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n" + message("GET", "/x"))
        async with activated(config, two):
            for client in (waiting, named):
                assert (await client.response()).body == b"data"
    assert '"client":"192.0.2.7"' in (tmp_path / "access.log").read_text().replace(" ", "")


@needs_ipv6
@pytest.mark.parametrize("fast_path", [True, False])
async def test_one_socket_for_both_protocols(s3: S3, relay: Relay, tmp_path: Path, *, fast_path: bool) -> None:
    """A client that comes over IPv4 to a socket of IPv6 has its own address in the log, and its own share."""
    s3.put("x", b"data")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        server = {"port": None, "fast_path": fast_path, "listeners": [{"systemd": "web"}]}
        mounts = [{"path": "/", "bucket": s3.bucket}]
        settings = settings_of(tmp_path, relay.url, s3.bucket, server=server, mounts=mounts, uploads=None)
        passed = PassedSockets({"web": (both.fileno(),)})
        async with App(settings, passed=passed) as app, connected(app.address) as client:
            for target in ("/x", "/x", "/none"):
                await client.request("GET", target)
            assert app.connection_limit.most_connections() == ("127.0.0.1", 1)
            assert app.listener.descriptions == (f"{app.address} and all other addresses",)
        log = (tmp_path / "access.log").read_text().replace(" ", "")
    assert (log.count('"client":"127.0.0.1"'), log.count('"client"')) == (3, 3)
