"""The addresses of a listener: which sockets a host means, and what an operator reads if one cannot be bound."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from proxy_under_test import S3, StartProxy
from wire import fetch

from bucketfront.errors import CannotListen
from bucketfront.server.http1 import binding
from bucketfront.server.http1.binding import TcpPlace, bind, owner_of

Bound = Callable[..., list[socket.socket]]

V4, V6 = ("127.0.0.1",), ("::1",)
MISSING = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def bound() -> Iterator[Bound]:
    with ExitStack() as stack:

        def run(host: str, port: int = 0, **options: Any) -> list[socket.socket]:
            return [stack.enter_context(one) for one in bind(TcpPlace(host, port, "server", **options))]

        yield run


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("*", ["0.0.0.0", "::"]),
        ("::", ["0.0.0.0", "::"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
    ],
)
def test_a_host_is_its_addresses(bound: Bound, host: str, addresses: list[str]) -> None:
    """`*` and `::` listen in both protocols and `localhost` on both loopback addresses, all with one port."""
    sockets = bound(host)
    assert [one.getsockname()[0] for one in sockets] == addresses
    assert len({one.getsockname()[1] for one in sockets}) == 1


@pytest.mark.parametrize("host", ["*", "::", "localhost"])
@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
def test_one_protocol_suffices(bound: Bound, monkeypatch: pytest.MonkeyPatch, host: str, missing: int) -> None:
    """A machine without IPv6, or without IPv4, listens in the other protocol."""
    real = binding._bound

    def without(family: socket.AddressFamily, address: tuple[Any, ...], port: int) -> socket.socket:
        if family == missing:
            raise MISSING
        return real(family, address, port)

    monkeypatch.setattr(binding, "_bound", without)
    if missing == socket.AF_INET and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    (one,) = bound(host)
    assert one.family != missing


def test_a_port_that_only_one_protocol_has(bound: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    """With port 0, a port that is in use in the other protocol is not taken."""
    real = binding._bound
    refused: list[int] = []

    def busy(family: socket.AddressFamily, address: tuple[Any, ...], port: int) -> socket.socket:
        if port and not refused:
            refused.append(port)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(family, address, port)

    monkeypatch.setattr(binding, "_bound", busy)
    found = bound("localhost")
    assert refused
    assert len({one.getsockname()[1] for one in found}) == 1


def test_a_port_in_use(bound: Bound) -> None:
    """The message names address, port, the process that has it, and how to see it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            bound("127.0.0.1", port)
        assert owner_of(port) is not None
    assert caught.value.at == ("server", "port")
    assert f"cannot listen on 127.0.0.1:{port}: in use by process {os.getpid()} (" in str(caught.value)
    assert f"ss -ltnp sport = :{port}" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "key", "words"),
    [
        ("192.0.2.1", "host", "no such address"),  # RFC 5737: an address for documentation
        ("no-such-host.invalid", "host", "the name does not resolve"),  # RFC 2606
    ],
)
def test_an_address_that_the_machine_does_not_have(bound: Bound, host: str, key: str, words: str) -> None:
    """The message says what is wrong with the host, and what to write."""
    with pytest.raises(CannotListen) as caught:
        bound(host)
    assert caught.value.at == ("server", key)
    assert words in str(caught.value)
    assert "*" in str(caught.value)


def test_a_port_of_an_outgoing_connection(bound: Bound) -> None:
    """A port on which none listens may belong to a connection; the message says which ports are free of them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as far,
        socket.create_connection(far.getsockname()) as near,
        pytest.raises(CannotListen) as caught,
    ):
        bound("127.0.0.1", near.getsockname()[1])
    assert "outgoing connections" in str(caught.value)
    assert "Set a port below" in str(caught.value)


def test_a_privileged_port(bound: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the capability that a port below 1024 needs."""

    def refuse(*_: Any) -> socket.socket:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(binding, "_bound", refuse)
    with pytest.raises(CannotListen, match="CAP_NET_BIND_SERVICE"):
        bound("127.0.0.1", 80)


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "127.0.0.1.example"])
def test_no_address_beyond_loopback_without_a_token(bound: Bound, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """I27: without a token nothing is bound beyond loopback, whatever the name resolves to."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(CannotListen) as caught:
        bound(host, has_token=False)
    assert caught.value.at == ("server", "token")


@needs_ipv6
@pytest.mark.parametrize("host", ["*", "::", "localhost"])
async def test_both_protocols_are_served(start: StartProxy, s3: S3, host: str) -> None:
    """Clients and operators get their responses over IPv4 and IPv6, and the printed address works."""
    s3.put("x", b"data")
    mounts = [{"path": "/", "bucket": s3.bucket, "write": ["public"]}]
    proxy = await start(server={"host": host}, admin={"host": host, "token": "0123456789abcdef"}, mounts=mounts)
    assert proxy.address.startswith("http://127.0.0.1:")
    (description,) = proxy.app.listener.descriptions
    assert description.endswith("all other addresses") == (host != "localhost")
    for address, path, body in (
        (proxy.app.address, "/x", b"data"),
        (proxy.app.admin_address, "/healthz", b"ok\n"),
    ):
        port = address.rpartition(":")[2]
        for own in ("127.0.0.1", "[::1]"):
            assert (await fetch(f"http://{own}:{port}", path)).body == body
