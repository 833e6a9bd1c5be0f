"""The rule of client certificates: who gets in, on each request, also of a resumed session (I31, I32)."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from certificates import DAY, Pair, issue, issue_with_extension
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from proxy_under_test import S3, Proxy, StartProxy, WallClock
from pydantic import ValidationError
from rows import each_row
from stopwatch import HANG_S
from test_tls_names import client_context, connection_for
from wire import fetch, message

from bucketfront.config.access_settings import ClientCertificateSettings
from bucketfront.config.settings import Settings
from bucketfront.server.access.certificate import CertificateRule
from bucketfront.server.access.client_certificate import ClientCertificate, facts_of
from bucketfront.server.access.rule import AccessRequest, Grant
from bucketfront.server.http1.handshake_failure import HandshakeFailure

FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

StartMutual = Callable[..., Awaitable[Proxy]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def devices() -> trustme.CA:
    """The authority of the clients."""
    return trustme.CA()


def device(folder: Path, name: str, devices: trustme.CA, *names: str, **options: Any) -> Pair:
    return issue(folder, name, devices, *(names or ("device.example",)), common_name=name, **options)


@pytest.fixture
def start_mutual(start: StartProxy, authority: trustme.CA, devices: trustme.CA, tmp_path: Path, s3: S3) -> StartMutual:
    """Start a proxy whose mount may be read with the certificate of a device, and written by all."""

    async def begin(rule: dict[str, Any] | None = None, mode: str = "optional", *, fast_path: bool = True) -> Proxy:
        s3.put("x", b"data")
        trusted = tmp_path / "devices-ca.pem"
        devices.cert_pem.write_to_path(trusted)
        served = issue(tmp_path, "served", authority, "localhost")
        tls = {**served.settings, "client_ca": str(trusted), "client_certificates": mode}
        mounts = [
            {
                "path": "/",
                "bucket": s3.bucket,
                "read": ["devices"],
                "write": ["devices"],
                "methods": ["GET", "HEAD", "PUT"],
            },
            {"path": "/public/", "bucket": s3.bucket},
        ]
        access = {"devices": {"client_certificate": rule or {}}}
        return await start(server={"tls": tls, "fast_path": fast_path}, access=access, mounts=mounts, uploads=None)

    return begin


def context_with(authority: trustme.CA, pair: Pair | None) -> ssl.SSLContext:
    context = client_context(authority)
    if pair is not None:
        context.load_cert_chain(pair.chain, pair.key)
    return context


async def status_of(proxy: Proxy, context: ssl.SSLContext, *targets: str) -> list[int]:
    """Return the statuses of reads on one connection."""
    connection, _ = await connection_for(proxy.address, context)
    try:
        return [(await connection.request("GET", target)).status for target in targets]
    finally:
        await connection.close()


@pytest.mark.parametrize("fast_path", [True, False])
async def test_optional(
    start_mutual: StartMutual, authority: trustme.CA, devices: trustme.CA, tmp_path: Path, *, fast_path: bool
) -> None:
    """A certificate of the authority permits each request of its connection, and the log has its name. Without one a
    request is a 403, cached or not, and public mounts are served.
    """
    proxy = await start_mutual(fast_path=fast_path)
    mine = context_with(authority, device(tmp_path, "device-7", devices))
    assert await status_of(proxy, mine, "/x", "/x", "/none", "/x") == [200, 200, 404, 200]
    await proxy.settled()
    assert {line.get("user") for line in proxy.log} == {"devices:device-7"}
    targets = ("/x", "/none", "/public/x", "/x", "/public/x")
    assert await status_of(proxy, context_with(authority, None), *targets) == [403, 403, 200, 403, 200]
    assert [line.get("user") for line in proxy.log[4:]] == [None] * 5
    connection, _ = await connection_for(proxy.address, mine)
    response = await connection.request("GET", "/x")
    assert response.headers["Cache-Control"] == "private"
    assert (await connection.request("PUT", "/x", body=b"new")).status == 201
    await connection.close()
    connection, _ = await connection_for(proxy.address, context_with(authority, None))
    assert (await connection.request("PUT", "/x", body=b"bad")).status == 403
    await connection.close()


async def refused_in_handshake(proxy: Proxy, context: ssl.SSLContext) -> None:
    """Assert that a client with this context gets no response."""
    (tls,) = proxy.app.listener.tls
    before = tls.failures[HandshakeFailure.CLIENT_CERTIFICATE]
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await status_of(proxy, context, "/public/x")  # in TLS 1.3 the client sees the alert behind its handshake
    await proxy.until(lambda: tls.failures[HandshakeFailure.CLIENT_CERTIFICATE] == before + 1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_required(
    start_mutual: StartMutual,
    authority: trustme.CA,
    devices: trustme.CA,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: ssl.TLSVersion,
) -> None:
    """Where a certificate is required, the handshake fails without one, with one of another authority, one that has
    expired or is not valid yet, and one for servers only. It is counted, and leaves no warning.
    """
    proxy = await start_mutual(mode="required")
    now = datetime.now(UTC)
    mine = context_with(authority, device(tmp_path, "device-1", devices))
    mine.minimum_version = mine.maximum_version = version
    assert await status_of(proxy, mine, "/x", "/public/x") == [200, 200]
    for pair in (
        None,
        device(tmp_path, "stranger", trustme.CA()),
        device(tmp_path, "expired", devices, not_before=now - 9 * DAY, not_after=now - DAY),
        device(tmp_path, "future", devices, not_before=now + DAY, not_after=now + 9 * DAY),
        issue_with_extension(tmp_path, "server-only", devices, FOR_SERVERS, is_critical=True),
    ):
        context = context_with(authority, pair)
        context.minimum_version = context.maximum_version = version
        await refused_in_handshake(proxy, context)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_bad_certificate_where_none_is_needed(
    start_mutual: StartMutual, authority: trustme.CA, tmp_path: Path
) -> None:
    """With `optional`, a certificate of another authority fails as well: a client must not seem to be known."""
    proxy = await start_mutual()
    await refused_in_handshake(proxy, context_with(authority, device(tmp_path, "stranger", trustme.CA())))


async def test_the_certificate_expires_on_its_connection(
    start_mutual: StartMutual, authority: trustme.CA, devices: trustme.CA, tmp_path: Path, clock: WallClock
) -> None:
    """A connection that lasts longer than its certificate gets 403 from then on."""
    proxy = await start_mutual()
    mine = context_with(authority, device(tmp_path, "device", devices, not_after=datetime.now(UTC) + 2 * DAY))
    connection, _ = await connection_for(proxy.address, mine)
    assert (await connection.request("GET", "/x")).status == 200
    clock.advance(2 * DAY.total_seconds())
    refused = await connection.request("GET", "/x")
    assert (refused.status, "expired" in refused.body.decode()) == (403, True)
    await connection.close()


@pytest.mark.one_process("a session is resumed by the process that has made it")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_resumed_sessions(
    start_mutual: StartMutual,
    authority: trustme.CA,
    devices: trustme.CA,
    tmp_path: Path,
    clock: WallClock,
    version: ssl.TLSVersion,
) -> None:
    """A resumed session has the rights of its own certificate only: those of another, of none, and of one that has
    expired meanwhile are refused, as without resumption.
    """
    proxy = await start_mutual({"common_names": ["good"]})
    pairs = {
        "good": device(tmp_path, "good", devices, not_after=datetime.now(UTC) + 2 * DAY),
        "other": device(tmp_path, "other", devices),
        "none": None,
    }
    where = urlsplit(proxy.address)

    def request(context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[int, bool, ssl.SSLSession]:
        connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=HANG_S)
        with context.wrap_socket(connection, session=session) as tls:
            tls.sendall(message("GET", "/x"))
            received = b""
            while b"\r\n\r\n" not in received:
                received += tls.recv(1 << 16)
            assert tls.session is not None
            return int(received.split()[1]), bool(tls.session_reused), tls.session

    for name, pair in pairs.items():
        context = context_with(authority, pair)
        context.minimum_version = context.maximum_version = version
        expected = 200 if name == "good" else 403
        status, was_reused, session = await asyncio.to_thread(request, context, None)
        assert (status, was_reused) == (expected, False)
        status, was_reused, session = await asyncio.to_thread(request, context, session)
        assert (status, was_reused) == (expected, True), name
        if name == "good":
            passed, good, good_session = clock.now, context, session
    clock.advance(2 * DAY.total_seconds())
    assert clock.now > passed
    status, _, _ = await asyncio.to_thread(request, good, good_session)
    assert status == 403


async def test_each_listener_has_its_own(
    start: StartProxy, authority: trustme.CA, devices: trustme.CA, tmp_path: Path, s3: S3
) -> None:
    """Listeners have their own authorities and HSTS. A certificate counts only where its authority is trusted, and a
    plain listener has neither. Metrics name each listener.
    """
    s3.put("x", b"data")
    served = issue(tmp_path, "served", authority, "localhost")
    trusted = tmp_path / "devices-ca.pem"
    devices.cert_pem.write_to_path(trusted)
    mutual = {**served.settings, "client_ca": str(trusted), "client_certificates": "optional"}
    listeners = [
        {"host": "127.0.0.1", "port": 0, "tls": mutual},
        {"host": "127.0.0.1", "port": 0, "plain": True},
    ]
    proxy = await start(
        server={"tls": {**served.settings, "hsts": {}}, "listeners": listeners},
        access={"devices": {"client_certificate": {}}},
        mounts=[
            {"path": "/", "bucket": s3.bucket, "read": ["devices"]},
            {"path": "/public/", "bucket": s3.bucket},
        ],
        uploads=None,
    )
    mine = context_with(authority, device(tmp_path, "device", devices))
    first, second, plain = proxy.app.listener.descriptions
    for address, context, status, has_hsts in (
        (first, mine, 403, True),
        (second, mine, 200, False),
        (second, context_with(authority, None), 403, False),
        (plain, None, 403, False),
    ):
        for target, expected in (("/x", status), ("/public/x", 200), ("/public/x", 200)):
            response = await fetch(address, target, tls=context)
            assert (response.status, "Strict-Transport-Security" in response.headers) == (expected, has_hsts)
            await proxy.settled()
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    for listener in ("server.tls", "server.listeners.0.tls"):
        assert f'listener="{listener}",reason="left"' in metrics


FACTS = ClientCertificate("ab" * 32, "device-1", ("a.devices.example",), ("spiffe://example/media/cam/1",), 0.0, 9.0)


@each_row(
    ("rule", "holds"),
    [
        ({}, True),
        ({"common_names": ["device-*"]}, True),
        ({"common_names": ["other", "device-?"]}, True),
        ({"common_names": ["device"]}, False),
        ({"common_names": ["DEVICE-1"]}, False),
        ({"dns_names": ["*.devices.example"]}, True),
        ({"dns_names": ["A.Devices.Example"]}, True),
        ({"dns_names": ["devices.example"]}, False),
        ({"uris": ["spiffe://example/media/**"]}, True),
        ({"uris": ["spiffe://example/media/*"]}, False),
        ({"uris": ["spiffe://*/media/cam/1"]}, True),
        ({"uris": ["**/1"]}, True),
        ({"uris": ["1"]}, False),  # no part of a name counts for all of it
        ({"fingerprints": ["AB:" * 31 + "AB"]}, True),
        ({"fingerprints": ["cd" * 32]}, False),
        ({"common_names": ["device-*"], "dns_names": ["*.devices.example"]}, True),
        ({"common_names": ["device-*"], "dns_names": ["*.others.example"]}, False),
        ({"common_names": ["device-*"], "fingerprints": ["cd" * 32]}, False),
    ],
    ids=str,
)
async def test_names(rule: dict[str, Any], *, holds: bool) -> None:
    """A certificate must fit each key of the rule, with the whole of one of its names."""
    found = CertificateRule(ClientCertificateSettings.model_validate(rule))
    request = AccessRequest("GET", "/", "", lambda _: None, None, 5.0, FACTS)
    assert isinstance(await found.examine(request), Grant) is holds


def test_a_name_behind_a_slash() -> None:
    """A pattern without a slash fits no name that only ends like it."""
    rule = CertificateRule(ClientCertificateSettings(common_names=("device-*",)))
    facts = ClientCertificate("ab" * 32, "guest/device-1", (), (), 0.0, 9.0)
    request = AccessRequest("GET", "/", "", lambda _: None, None, 5.0, facts)
    assert not isinstance(asyncio.run(rule.examine(request)), Grant)


@each_row("der", [b"", b"0", b"\x30\x82\x01\x00" + bytes(256)])
def test_a_certificate_that_cannot_be_read(der: bytes) -> None:
    """What is no certificate has no names and is valid at no time."""
    facts = facts_of(der)
    assert (facts.common_name, facts.dns_names, facts.uris) == (None, (), ())
    assert not facts.not_before <= 5.0 <= facts.not_after
    assert facts.name == f"sha256:{facts.fingerprint}"


@each_row(
    ("tls", "words"),
    [
        (None, "server.tls"),
        ({"certificate": "a", "key": "b"}, "client_ca"),
        ({"certificate": "a", "key": "b", "client_ca": "c"}, "must be optional or required"),
        ({"certificate": "a", "key": "b", "client_certificates": "required"}, "needs client_ca"),
    ],
)
def test_settings_that_do_not_fit(tls: dict[str, str] | None, words: str) -> None:
    """The rule, the mode and the authorities need each other (I30)."""
    tree = {
        "server": {"tls": tls},
        "access": {"devices": {"client_certificate": {}}},
        "mounts": [{"path": "/", "bucket": "b", "read": ["devices"]}],
    }
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(tree)
