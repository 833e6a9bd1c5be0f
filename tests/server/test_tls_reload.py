"""Certificates are read again when their files change or at SIGHUP, without a lost connection (I12, I16)."""

import asyncio
import logging
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from certificates import Pair, issue, write_pair
from cryptography import x509
from proxy_under_test import S3, Proxy, StartProxy, WallClock, pattern
from stopwatch import HANG_S
from test_tls_names import client_context, connection_for
from wire import message

from bucketfront.admin.reloader import ReloadVerdict
from bucketfront.server.http1 import certificate_watch
from bucketfront.server.http1.certificate_watch import CertificateWatch
from bucketfront.troubles import SETTLE_S, Reason


@pytest.fixture(autouse=True)
def _looks_of_the_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_watch, "INTERVAL_S", 10 * HANG_S)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> Pair:
    return issue(tmp_path, "served", authority, "one.example")


@pytest.fixture
async def tls_proxy(start: StartProxy, pair: Pair) -> Proxy:
    return await start(server={"tls": pair.settings})


def watch_of(proxy: Proxy) -> CertificateWatch:
    assert proxy.app.certificate_watch is not None
    return proxy.app.certificate_watch


async def looks(proxy: Proxy, count: int = 2) -> None:
    for _ in range(count):
        await watch_of(proxy).look()


async def serial_served(proxy: Proxy, authority: trustme.CA) -> int:
    connection, tls = await connection_for(proxy.address, client_context(authority))
    der = tls.getpeercert(binary_form=True)
    await connection.close()
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.chain.read_bytes()).serial_number


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_new_files_are_served(
    tls_proxy: Proxy, authority: trustme.CA, pair: Pair, tmp_path: Path, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get the new certificate after two looks. Open ones, also within a response and a request, go on.
    The metric has the new end.
    """
    body = pattern(4 << 20)
    s3.put("x", body)
    context, before = client_context(authority), serial_of(pair)
    idle, _ = await connection_for(tls_proxy.address, context)
    reading, _ = await connection_for(tls_proxy.address, context)
    sending, _ = await connection_for(tls_proxy.address, context)
    await reading.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reading.head()
    await sending.send(b"PUT /y HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nda")
    end = datetime(2037, 1, 2, tzinfo=UTC)
    issue(tmp_path, "served", authority, "one.example", not_after=end)
    await looks(tls_proxy, 1)
    assert await serial_served(tls_proxy, authority) == before  # the tool may be about to write the key
    await looks(tls_proxy, 1)
    assert await serial_served(tls_proxy, authority) == serial_of(pair) != before
    assert await reading.reader.readexactly(int(head.headers["Content-Length"])) == body
    await sending.send(b"ta")
    assert (await sending.response("PUT")).status == 201
    assert (await idle.request("GET", "/y")).body == b"data"
    for connection in (idle, reading, sending):
        await connection.close()
    metrics = (await tls_proxy.admin("GET", "/metrics")).body.decode()
    line = f'not_after_seconds{{certificate="{pair.chain}",listener="server.tls"}} {end.timestamp()}'
    (value,) = [float(one.split()[-1]) for one in metrics.splitlines() if line.rpartition(" ")[0] in one]
    assert value == end.timestamp()
    assert warnings(caplog) == []


async def test_reload_at_once(tls_proxy: Proxy, authority: trustme.CA, pair: Pair, tmp_path: Path) -> None:
    """A reload that the operator asks for needs no second look, and reads files also if nothing shows a change."""
    (first,) = tls_proxy.app.listener.tls
    for _ in range(2):
        loaded = first.loaded
        issue(tmp_path, "served", authority, "one.example")
        assert (await tls_proxy.app.reload("test")).verdict is ReloadVerdict.RELOADED
        assert first.loaded is not loaded
        assert await serial_served(tls_proxy, authority) == serial_of(pair)


def _mismatch(pair: Pair, authority: trustme.CA) -> None:
    authority.issue_cert("other.example").private_key_pem.write_to_path(pair.key)


def _half_written(pair: Pair, authority: trustme.CA) -> None:
    del authority
    pair.key.write_bytes(pair.key.read_bytes()[:100])


def _empty(pair: Pair, authority: trustme.CA) -> None:
    del authority
    pair.chain.write_bytes(b"")


def _half_chain(pair: Pair, authority: trustme.CA) -> None:
    new = authority.issue_cert("one.example")
    new.private_key_pem.write_to_path(pair.key)
    pair.chain.write_bytes(new.cert_chain_pems[0].bytes()[:200])


def _missing(pair: Pair, authority: trustme.CA) -> None:
    del authority
    pair.key.unlink()


def _folder(pair: Pair, authority: trustme.CA) -> None:
    del authority
    pair.chain.unlink()
    pair.chain.mkdir()


def _pipe(pair: Pair, authority: trustme.CA) -> None:
    del authority
    pair.chain.unlink()
    os.mkfifo(pair.chain)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_mismatch, "another certificate"),
        (_half_written, "served.key"),
        (_empty, "holds no certificate"),
        (_half_chain, "served.pem"),
        (_missing, "cannot be read: No such file"),
        (_folder, "cannot be read: Is a directory"),
        (_pipe, "is no regular file"),
    ],
)
async def test_files_of_no_use(
    tls_proxy: Proxy,
    authority: trustme.CA,
    pair: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: object,
    named: str,
) -> None:
    """Files of no use leave the old certificate, one warning with file and cure however often the watch looks, and a
    reason in /readyz. Once they are right again, they are served without a restart, and the reason goes.
    """
    assert callable(damage)
    before = serial_of(pair)
    damage(pair, authority)
    await looks(tls_proxy, 6)
    assert await serial_served(tls_proxy, authority) == before
    (line,) = warnings(caplog)
    assert named in line
    assert "server.tls" in line
    assert [trouble.count for trouble in tls_proxy.app.troubles.failing] == [1]  # they were read once
    ready = await tls_proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    assert (ready.status, [one["reason"] for one in ready.json()["reasons"]]) == (200, [Reason.TLS_UNUSABLE.value])
    if pair.chain.is_dir():
        pair.chain.rmdir()
    if pair.chain.is_fifo():
        pair.chain.unlink()
    issue(tmp_path, "served", authority, "one.example")
    await looks(tls_proxy)
    assert await serial_served(tls_proxy, authority) == serial_of(pair) != before
    assert tls_proxy.app.troubles.failing == []
    ahead = asyncio.get_running_loop().time() + 2 * SETTLE_S
    monkeypatch.setattr(tls_proxy.app.troubles, "_clock", lambda: ahead)
    tls_proxy.app.troubles.tick()
    assert "can be used" in warnings(caplog)[1]


async def test_the_old_files_come_back(tls_proxy: Proxy, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A file that was moved away and back is a trouble only meanwhile."""
    away = pair.key.with_suffix(".away")
    pair.key.rename(away)
    await looks(tls_proxy, 3)
    assert [one.kind.reason for one in tls_proxy.app.troubles.failing] == [Reason.TLS_UNUSABLE]
    away.rename(pair.key)
    await looks(tls_proxy, 1)
    assert tls_proxy.app.troubles.failing == []
    assert len(warnings(caplog)) == 1


async def test_links_are_followed(start: StartProxy, authority: trustme.CA, tmp_path: Path) -> None:
    """A change behind links counts: Kubernetes swaps the link of the folder, certbot that of each file."""
    pairs = []
    for number in range(3):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        pairs.append(write_pair(folder, "tls", authority.issue_cert("one.example")))
    data = tmp_path / "..data"
    data.symlink_to(pairs[0].chain.parent.name)
    for name in ("tls.pem", "tls.key"):
        (tmp_path / name).symlink_to(data / name)
    mounted = Pair(tmp_path / "tls.pem", tmp_path / "tls.key")
    proxy = await start(server={"tls": mounted.settings})
    assert await serial_served(proxy, authority) == serial_of(pairs[0])
    new = tmp_path / "..data_tmp"
    new.symlink_to(pairs[1].chain.parent.name)
    new.rename(data)
    await looks(proxy)
    assert await serial_served(proxy, authority) == serial_of(pairs[1])
    for link, target in ((mounted.chain, pairs[2].chain), (mounted.key, pairs[2].key)):
        link.unlink()
        link.symlink_to(target)
    await looks(proxy)
    assert await serial_served(proxy, authority) == serial_of(pairs[2])


async def test_the_end_of_a_certificate(
    tls_proxy: Proxy,
    authority: trustme.CA,
    tmp_path: Path,
    clock: WallClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """14 days before its end a certificate is warned of once a day. Past its end /readyz has the reason, until a new
    one is there. A certificate for few days has less time for its renewal.
    """
    day = timedelta(days=1)
    now = datetime.fromtimestamp(clock.now, UTC)
    issue(tmp_path, "served", authority, "one.example", not_before=now - 90 * day, not_after=now + 14.5 * day)
    await looks(tls_proxy, 3)
    assert warnings(caplog) == []
    clock.advance(day.total_seconds())
    await looks(tls_proxy, 3)
    (line,) = warnings(caplog)
    assert "ends in 13.5 days: renew it" in line
    clock.advance(day.total_seconds())
    await looks(tls_proxy, 3)
    assert len(warnings(caplog)) == 2
    clock.advance(13 * day.total_seconds())
    await looks(tls_proxy, 3)
    assert [one.kind.reason for one in tls_proxy.app.troubles.failing] == [Reason.TLS_INVALID]
    assert len(warnings(caplog)) == 3
    assert "has expired" in warnings(caplog)[2]
    now = datetime.fromtimestamp(clock.now, UTC)
    issue(tmp_path, "served", authority, "one.example", not_before=now - day, not_after=now + 5 * day)
    await looks(tls_proxy, 3)
    assert tls_proxy.app.troubles.failing == []
    assert len(warnings(caplog)) == 3


async def test_new_authorities_of_clients(start: StartProxy, authority: trustme.CA, pair: Pair, tmp_path: Path) -> None:
    """A new `client_ca` counts for new connections, also for those that resume a session of the old one."""
    trusted = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(trusted)
    tls = {**pair.settings, "client_ca": str(trusted), "client_certificates": "required"}
    proxy = await start(server={"tls": tls})
    mine = issue(tmp_path, "mine", authority, "device")
    context = client_context(authority)
    context.load_cert_chain(mine.chain, mine.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is known after the handshake
    connection, first = await connection_for(proxy.address, context)
    session = first.session
    await connection.close()
    trustme.CA().cert_pem.write_to_path(trusted)
    await looks(proxy)
    where = urlsplit(proxy.address)

    def resumed() -> None:
        connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=HANG_S)
        with context.wrap_socket(connection, session=session) as tls:
            tls.sendall(message("GET", "/"))
            if not tls.recv(1):
                raise ConnectionResetError

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(resumed)
