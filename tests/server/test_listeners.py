"""Several listeners: Unix sockets, further addresses, and sockets that systemd passes."""

import os
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import localhost_certificate
from proxy_under_test import S3, StartProxy, settings_of, until
from wire import connected, fetch

from bucketfront.checks.machine import check_machine
from bucketfront.errors import CannotListen, UnusableSetting

HEADER = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough for a Unix socket, wherever the tests run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "http.sock"


def only(**listener: Any) -> dict[str, Any]:
    """Return `server` with this one listener."""
    return {"port": None, "listeners": [listener]}


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(
    ("trusted", "field", "client"),
    [
        ([], "192.0.2.7", "unix:"),
        (["unix"], "192.0.2.7", "192.0.2.7"),
        (["unix"], "?", "unix:"),
        (["unix"], "", "unix:"),
    ],
)
async def test_a_unix_socket(
    start: StartProxy, s3: S3, path: Path, *, fast_path: bool, trusted: list[str], field: str, client: str
) -> None:
    """Clients of a Unix socket are served as all others, on both paths.

    Their address is `unix:`, or that of a field if the peers of Unix sockets are trusted.
    """
    s3.put("x", b"data")
    server = {"fast_path": fast_path, "trusted_proxies": trusted, "listeners": [{"unix": str(path)}]}
    proxy = await start(server=server)
    assert proxy.app.listener.descriptions == (proxy.address, f"unix:{path}")
    fields = {"X-Forwarded-For": field} if field else {}
    async with connected(f"unix:{path}") as one:
        for target, status in (("/x", 200), ("/none", 404), ("/x", 200)):
            assert (await one.request("GET", target, fields)).status == status
        assert (await one.request("PUT", "/y", fields, b"new")).status in (200, 201, 204)
    assert (await proxy.get("/y")).body == b"new"
    assert [line["client"] for line in proxy.log] == [*[client] * 4, "127.0.0.1"]


@pytest.mark.parametrize("mode", ["0600", "660", "0666"])
async def test_the_mode_of_the_socket(start: StartProxy, path: Path, mode: str) -> None:
    """The socket has its mode, whatever the umask, and a clean stop removes it."""
    before = os.umask(0o027)
    try:
        proxy = await start(server=only(unix=str(path), mode=mode))
        assert mode_of(path) == int(mode, 8)
        assert proxy.address == f"unix:{path}"
        assert (await fetch(proxy.address, "/none")).status == 404
        await proxy.stop()
        assert not there(path)
    finally:
        os.umask(before)


async def test_a_socket_left_by_a_kill(start: StartProxy, path: Path) -> None:
    """A socket that no process serves is replaced."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(os.fspath(path))
        killed.listen()
    assert there(path)
    proxy = await start(server=only(unix=str(path)))
    assert (await fetch(proxy.address, "/none")).status == 404


async def test_a_header_on_a_unix_socket(start: StartProxy, s3: S3, path: Path) -> None:
    """All peers of a Unix socket may name their client by a PROXY header, and must if it is set."""
    s3.put("x", b"data")
    proxy = await start(server={**only(unix=str(path), proxy_protocol=True), "trusted_proxies": ["unix"]})
    async with connected(proxy.address) as client:
        await client.send(HEADER)
        for target in ("/x", "/none"):
            await client.request("GET", target)
    async with connected(proxy.address) as client:
        await client.send(b"PROXY UNKNOWN\r\n")
        await client.request("GET", "/x", {"X-Forwarded-For": "192.0.2.9"})
    async with connected(proxy.address) as client:
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await client.rest() == b""
    assert [line["client"] for line in proxy.log] == ["192.0.2.7", "192.0.2.7", "-"]


async def test_tls_of_each_listener(start: StartProxy, path: Path, tmp_path: Path) -> None:
    """`server.tls` holds for listeners of TCP, unless they are plain. A Unix socket needs its own `tls`."""
    chain, key = localhost_certificate(tmp_path)
    files = {"certificate": str(chain), "key": str(key)}
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False
    safe = path.with_name("safe.sock")
    listeners = [
        {"host": "127.0.0.1", "port": 0},
        {"host": "127.0.0.1", "port": 0, "plain": True},
        {"unix": str(path)},
        {"unix": str(safe), "tls": files},
    ]
    proxy = await start(server={"tls": files, "listeners": listeners})
    first, second, plain, local, secured = proxy.app.listener.descriptions
    assert (local, secured) == (f"unix:{path}", f"unix:{safe} with TLS")
    for address, context in ((first, tls), (second, tls), (plain, None), (local, None), (f"unix:{safe}", tls)):
        assert address.startswith("https:" if context is tls and "unix" not in address else ("http:", "unix:"))
        assert (await fetch(address, "/none", tls=context)).status == 404
    own = {"Origin": plain, "Host": plain.removeprefix("http://")}
    assert (await fetch(plain, "/new", method="PUT", headers=own, body=b"by a page of it")).status in (200, 201, 204)


async def test_a_failed_start_leaves_nothing(start: StartProxy, path: Path) -> None:
    """If one of the listeners cannot be had, the others are closed without having accepted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            await start(server={"listeners": [{"unix": str(path)}, {"host": "127.0.0.1", "port": port}]})
    assert caught.value.at == ("server", "listeners", 1, "port")
    assert not there(path)


async def test_a_share_is_for_addresses(start: StartProxy, path: Path) -> None:
    """Peers of a Unix socket have no share, because a front there stands for many clients."""
    proxy = await start(server=only(unix=str(path)))
    limit = proxy.app.connection_limit
    limit.limit, limit.share_of_one = 4, 0.25
    async with connected(proxy.address) as one, connected(proxy.address) as two, connected(proxy.address) as three:
        for client in (one, two, three):
            assert (await client.request("GET", "/none")).status == 404
        assert limit.open == 3
    await until(lambda: not limit.open)


@pytest.mark.parametrize(
    ("listener", "verdict", "text"),
    [
        ({"mode": "0660"}, True, "free"),
        ({"mode": "0666"}, False, "all users of this machine"),
        ({"group": "no-such-group"}, False, "no group of this name"),
    ],
)
async def test_check_of_a_unix_socket(path: Path, listener: dict[str, str], verdict: bool, text: str) -> None:
    """`check` tries a Unix socket as the start does, and leaves nothing behind."""
    settings = settings_of(path.parent, "http://127.0.0.1:9", "demo", server=only(unix=str(path), **listener))
    (found,) = [one for one in check_machine(settings, _plainly, None) if one.name == f"unix:{path}"]
    assert (found.is_fine and found.verdict.value == "fine", text in found.message) == (verdict, True)
    assert not there(path)


def there(path: Path) -> bool:
    return path.exists()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _plainly(error: UnusableSetting) -> str:
    return str(error)
