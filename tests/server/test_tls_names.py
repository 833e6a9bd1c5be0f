"""Which certificate, version and cipher of TLS a client gets, and what responses over TLS carry (I26)."""

import asyncio
import json
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from certificates import Pair, issue
from click.testing import CliRunner
from cryptography import x509
from proxy_under_test import S3, Proxy, StartProxy, until
from pydantic import ValidationError
from rows import each_row
from wire import Connection, fetch, message

from bucketfront.cli import main
from bucketfront.config.tls_settings import ClientTlsSettings
from bucketfront.errors import UnusableSetting
from bucketfront.server.http1 import server_tls
from bucketfront.server.http1.handshake_failure import HandshakeFailure

HSTS = "Strict-Transport-Security"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> Pair:
    return issue(tmp_path, "first", authority, "first.example", "localhost")


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    authority.configure_trust(context)
    return context


async def connection_for(
    address: str, context: ssl.SSLContext, name: str | None = None
) -> tuple[Connection, ssl.SSLObject]:
    """Connect and ask for a name. The caller closes the connection."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, server_hostname=name or "")
    return Connection(reader, writer), writer.get_extra_info("ssl_object")


async def name_served(address: str, context: ssl.SSLContext, name: str | None) -> str:
    """Return the first DNS name of the certificate that a client gets which asks for a name."""
    connection, tls = await connection_for(address, context, name)
    der = tls.getpeercert(binary_form=True)
    await connection.close()
    assert der is not None
    extension = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)[0]


async def test_the_certificate_of_the_name(
    start: StartProxy, authority: trustme.CA, pair: Pair, tmp_path: Path
) -> None:
    """A client gets the certificate with its name, by a wildcard for one label if none has it, else the first one."""
    wild = issue(tmp_path, "wild", authority, "*.wild.example")
    exact = issue(tmp_path, "exact", authority, "a.wild.example", "other.example")
    proxy = await start(server={"tls": {**pair.settings, "certificates": [wild.settings, exact.settings]}})
    context = client_context(authority)
    for name, expected in {
        "first.example": "first.example",
        "other.example": "a.wild.example",
        "OTHER.example": "a.wild.example",
        "a.wild.example": "a.wild.example",  # an exact name precedes a wildcard that comes earlier
        "b.wild.example": "*.wild.example",
        "B.Wild.Example": "*.wild.example",
        "a.b.wild.example": "first.example",  # a wildcard stands for one label
        "wild.example": "first.example",
        "unknown.example": "first.example",
        None: "first.example",
    }.items():
        assert await name_served(proxy.address, context, name) == expected, name


@contextmanager
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def hello_with_name(name: bytes) -> bytes:
    """Return the ClientHello of this OpenSSL with another name of the same length in it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, outgoing, server_hostname="n" * len(name))
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read().replace(b"n" * len(name), name)


@pytest.mark.parametrize(
    "name", [b"caf\xc3\xa9.example", b"\xff" * 20, b"a\x00b" + b"x" * 17, b"." * 20, b"%n%s" * 5, b"\r\n" * 10]
)
async def test_a_name_that_is_none(
    start: StartProxy,
    authority: trustme.CA,
    pair: Pair,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: bytes,
) -> None:
    """A name that no host can have leaves neither a traceback nor a warning, and others are served."""
    other = issue(tmp_path, "other", authority, "other.example")
    proxy = await start(server={"tls": {**pair.settings, "certificates": [other.settings]}})
    where = urlsplit(proxy.address)
    with no_warning(caplog):
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        client = Connection(reader, writer)
        await client.send(hello_with_name(name))
        await client.reader.read(1)
        await client.close()
        await until(lambda: not proxy.app.connection_limit.open)
    assert await name_served(proxy.address, client_context(authority), "other.example") == "other.example"
    assert "Traceback" not in capfd.readouterr().err


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize(("least", "spoken"), [("1.2", ["1.2", "1.3"]), ("1.3", ["1.3"])])
async def test_the_least_version(
    start: StartProxy,
    authority: trustme.CA,
    pair: Pair,
    caplog: pytest.LogCaptureFixture,
    least: str,
    spoken: list[str],
) -> None:
    """Versions below the setting are refused, and the failure is counted by its reason."""
    proxy = await start(server={"tls": {**pair.settings, "min_version": least}})
    refused = 0
    for version, constant in VERSIONS.items():
        context = client_context(authority)
        context.minimum_version = context.maximum_version = constant
        if version in spoken:
            connection, tls = await connection_for(proxy.address, context)
            assert tls.version() == f"TLSv{version}"
            await connection.close()
        else:
            with pytest.raises(ssl.SSLError):
                await connection_for(proxy.address, context)
            refused += 1
    with no_warning(caplog):
        for legacy in (b"\x03\x01", b"\x03\x02"):  # TLS 1.0 and 1.1, RFC 5246 appendix E.1
            where = urlsplit(proxy.address)
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            client = Connection(reader, writer)
            await client.send(legacy_hello(legacy))
            assert (await client.reader.readexactly(7))[:1] == b"\x15"  # an alert
            await client.close()
            refused += 1
        (tls_of_proxy,) = proxy.app.listener.tls
        await until(lambda: tls_of_proxy.failures[HandshakeFailure.OLD_VERSION] == refused)
    line = f'bucketfront_tls_handshakes_failed_total{{listener="server.tls",reason="old-version"}} {refused}.0'
    assert line in (await proxy.admin("GET", "/metrics")).body.decode()


def legacy_hello(version: bytes) -> bytes:
    """Return a ClientHello for an old version of TLS, with one cipher and without extensions."""
    body = version + bytes(32) + b"\x00" + b"\x00\x02\xc0\x13" + b"\x01\x00"
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake


async def test_ciphers(start: StartProxy, authority: trustme.CA, pair: Pair) -> None:
    """TLS 1.2 has the ciphers of the setting only."""
    name = "ECDHE-ECDSA-AES128-GCM-SHA256"
    proxy = await start(server={"tls": {**pair.settings, "ciphers": name}})
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection, tls = await connection_for(proxy.address, context)
    cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0] == name
    await connection.close()
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connection_for(proxy.address, context)
    (tls_of_proxy,) = proxy.app.listener.tls
    await until(lambda: tls_of_proxy.failures[HandshakeFailure.NO_COMMON_CIPHER] == 1)


@pytest.mark.parametrize("ciphers", ["NONSENSE", "ALL:aNULL:@SECLEVEL=0", "eNULL:@SECLEVEL=0", "aNULL:@SECLEVEL=0"])
async def test_ciphers_that_protect_nothing(start: StartProxy, pair: Pair, ciphers: str) -> None:
    """Ciphers without encryption or without a certificate, and unknown ones, do not start (I30)."""
    with pytest.raises(UnusableSetting, match=r"cipher|protects nothing") as raised:
        await start(server={"tls": {**pair.settings, "ciphers": ciphers}})
    assert raised.value.at == ("server", "tls", "ciphers")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)],
)
async def test_alpn(
    start: StartProxy, authority: trustme.CA, pair: Pair, s3: S3, offered: list[str], chosen: str | None
) -> None:
    """Of the protocols that a client offers, HTTP/1.1 is chosen. A client that offers others only gets none."""
    s3.put("x", b"data")
    proxy = await start(server={"tls": pair.settings})
    context = client_context(authority)
    if offered:
        context.set_alpn_protocols(offered)
    connection, tls = await connection_for(proxy.address, context)
    assert tls.selected_alpn_protocol() == chosen
    assert (await connection.request("GET", "/x")).body == b"data"
    await connection.close()


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        ({}, "max-age=31536000"),
        ({"max_age": "1h"}, "max-age=3600"),
        (
            {"max_age": "730d", "include_subdomains": True, "preload": True},
            "max-age=63072000; includeSubDomains; preload",
        ),
        (None, None),
    ],
)
async def test_hsts(
    start: StartProxy, authority: trustme.CA, pair: Pair, s3: S3, hsts: dict[str, Any] | None, value: str | None
) -> None:
    """By setting, every response over TLS has Strict-Transport-Security once: hits of both paths, ranges, HEAD, 304,
    404, 4xx, redirects, writes, and requests that the parser refuses.
    """
    etag = s3.put("x", b"data")
    proxy = await start(server={"tls": {**pair.settings, "hsts": hsts}})
    context = client_context(authority)
    requests: list[tuple[str, str, dict[str, str], bytes | None, int]] = [
        ("GET", "/x", {}, None, 200),
        ("GET", "/x", {}, None, 200),
        ("GET", "/x", {"Range": "bytes=1-2"}, None, 206),
        ("GET", "/x", {"Range": "bytes=9-"}, None, 416),
        ("GET", "/x", {"If-None-Match": etag}, None, 304),
        ("HEAD", "/x", {}, None, 200),
        ("GET", "/none", {}, None, 404),
        ("PATCH", "/x", {}, None, 405),
        ("PUT", "/y", {}, b"new", 201),
        ("OPTIONS", "/x", {}, None, 204),
    ]
    connection, _ = await connection_for(proxy.address, context)
    for method, target, fields, body, status in requests:
        response = await connection.request(method, target, fields, body)
        assert (response.status, response.headers.getall(HSTS, [])) == (status, [value] if value else []), method
        await proxy.settled()
        if response.headers.get("Connection") == "close":
            await connection.close()
            connection, _ = await connection_for(proxy.address, context)
    await connection.send(b"GET  / HTTP/1.1\r\n\r\n")
    refused = await connection.response()
    assert (refused.status, refused.headers.get(HSTS)) == (400, value)
    await connection.close()
    assert proxy.app.fast_path is not None
    assert proxy.app.fast_path.served > 0
    assert HSTS not in (await proxy.admin("GET", "/healthz")).headers


async def test_no_hsts_without_tls(proxy: Proxy, s3: S3) -> None:
    """Plain HTTP has no such field (RFC 6797 section 7.2)."""
    s3.put("x", b"data")
    for _ in range(2):
        assert HSTS not in (await proxy.get("/x")).headers


async def test_admin_over_tls(start: StartProxy, authority: trustme.CA, pair: Pair) -> None:
    """The admin port speaks TLS by setting: probes, metrics, a purge, and plain HTTP fails."""
    proxy = await start(admin={"tls": pair.settings})
    address, context = proxy.app.admin_address, client_context(authority)
    assert address.startswith("https://")
    assert (await fetch(address, "/readyz", tls=context)).status == 200
    metrics = (await fetch(address, "/metrics", tls=context)).body.decode()
    assert (
        f'bucketfront_tls_certificate_not_after_seconds{{certificate="{pair.chain}",listener="admin.tls"}}' in metrics
    )
    fields = {"Content-Type": "application/json", "Origin": address, "Host": urlsplit(address).netloc}
    purge = await fetch(address, "/api/v1/purge", method="POST", headers=fields, body=b'{"paths": ["/x"]}', tls=context)
    assert purge.json() == {"purged": 0}
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    plain = Connection(reader, writer)
    await plain.send(message("GET", "/healthz"))
    assert not (await plain.rest()).startswith(b"HTTP")
    await plain.close()


async def test_commands_over_tls(start: StartProxy, authority: trustme.CA, pair: Pair, tmp_path: Path) -> None:
    """`bucketfront stats` trusts the configured certificate of the admin port, whatever its names, and no other."""
    other = issue(tmp_path, "other", authority, "localhost", "127.0.0.1")
    proxy = await start(admin={"tls": pair.settings})
    port = urlsplit(proxy.app.admin_address).port
    for configured, status in ((pair, 0), (other, 1)):
        config = tmp_path / "proxy.yaml"
        admin = json.dumps({"port": port, "tls": configured.settings})
        config.write_text(f"admin: {admin}\nmounts: [{{path: /, bucket: b}}]\n")
        result = await asyncio.to_thread(CliRunner().invoke, main, ["stats", "--json", "-c", str(config)])
        assert result.exit_code == status, result.output
        assert ("CERTIFICATE_VERIFY_FAILED" in result.output) is bool(status)


@each_row(
    ("hsts", "tls", "words"),
    [
        ({"preload": True}, {}, "needs include_subdomains"),
        ({"preload": True, "include_subdomains": True, "max_age": "364d"}, {}, "at least 365d"),
        ({}, {"min_version": "1.1"}, "1.2"),
        ({}, {"min_version": "1.3", "ciphers": "ECDHE+AESGCM"}, "no effect"),
        ({}, {"ciphers": "a b"}, "openssl-ciphers"),
    ],
)
def test_settings_that_do_not_fit(hsts: dict[str, Any], tls: dict[str, Any], words: str) -> None:
    """Settings of TLS that contradict each other, and versions below the floor, are refused (I30)."""
    with pytest.raises(ValidationError, match=words):
        ClientTlsSettings.model_validate({"certificate": "a", "key": "b", "hsts": hsts, **tls})


@pytest.mark.parametrize("given", ["1.3", 1.3])
def test_a_version_needs_no_quotes(given: object) -> None:
    """YAML takes a version without quotes for a number, and it means the same."""
    settings = ClientTlsSettings.model_validate({"certificate": "a", "key": "b", "min_version": given})
    assert settings.min_version == "1.3"


def test_a_further_certificate_needs_a_name(tmp_path: Path, authority: trustme.CA, pair: Pair) -> None:
    """A further certificate without a DNS name could be chosen by no client, so it does not start (I30)."""
    nameless = issue(tmp_path, "nameless", authority, "192.0.2.1")
    settings = ClientTlsSettings.model_validate({**pair.settings, "certificates": [nameless.settings]})
    with pytest.raises(UnusableSetting, match="no DNS name") as raised:
        server_tls.ServerTls(settings, ("server", "tls"))
    assert raised.value.at == ("server", "tls", "certificates", 0, "certificate")
