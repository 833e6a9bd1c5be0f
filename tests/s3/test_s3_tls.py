"""TLS to the origin: which authorities count, and what the error says if a connection fails."""

import asyncio
import datetime as dt
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from botocore.exceptions import ConnectTimeoutError, HTTPClientError, SSLError
from fakes import Head, RawConnection, RawServer, answering, object_bytes, response
from held_port import held_port
from rows import each_row
from stopwatch import HANG_S

from bucketfront.cache.origin import OriginResponse
from bucketfront.config.loader import load
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import ConfigError, OriginError, OriginTimeout, OriginUnavailable
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.connection_causes import Cause, cause

KEY = ObjectKey("bucket", "o")
CONTENT = object_bytes(10)
FULL = response("206 Partial", CONTENT, ETag='"d41d8cd98f00b204e9800998ecf8427e"', Content_Range="bytes 0-9/10")
UNTRUSTED = {Cause.UNKNOWN_AUTHORITY, Cause.SELF_SIGNED}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def _no_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def server_of(authority: trustme.CA, *names: str, **options: Any) -> RawServer:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names or ("127.0.0.1",), **options).configure_cert(context)
    return RawServer(answering(FULL), context)


@asynccontextmanager
async def origin_at(endpoint_url: str, **more: object) -> AsyncIterator[S3Origin]:
    static = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}
    given = {"endpoint_url": endpoint_url, "credentials": static} | more
    async with asyncio.timeout(HANG_S), S3Origin(OriginSettings.model_validate(given)) as origin:
        yield origin


async def fetch(origin: S3Origin) -> bytes:
    answer = await origin.get(KEY, FromTo(0, 10))
    assert isinstance(answer, OriginResponse)
    data = await answer.body.read()
    answer.body.close()
    return bytes(data)


async def cause_at(endpoint_url: str, **more: object) -> Cause | None:
    """Return the cause of a failed request. Its text is in the message."""
    async with origin_at(endpoint_url, **more) as origin:
        with pytest.raises(OriginUnavailable) as raised:
            await origin.calls.make("GET o", origin.client.get_object, {"Bucket": "bucket", "Key": "o"})
    found = cause(raised.value)
    assert found is not None
    assert str(raised.value) == f"GET o: {found.value}"
    return found


# --- authorities ---------------------------------------------------------------------------------------------


async def test_a_private_authority(authority: trustme.CA, bundle: Path) -> None:
    """`origin.ca_bundle` names authorities that are trusted besides those of the system."""
    async with server_of(authority) as server, origin_at(server.endpoint_url, ca_bundle=bundle) as origin:
        assert await fetch(origin) == CONTENT


@pytest.mark.parametrize("turns", [0, 5], ids=["unread", "read"])
async def test_bytes_on_an_idle_connection(authority: trustme.CA, bundle: Path, turns: int) -> None:
    """I12: a TLS connection is used again, but not after bytes came on it while it was idle."""
    kept = {"ca_bundle": bundle, "keep_alive_timeout": "1h"}
    async with server_of(authority) as server, origin_at(server.endpoint_url, **kept) as origin:
        assert [await fetch(origin) for _ in range(3)] == [CONTENT] * 3
        assert len(server.connections) == 1
        server.connections[0].writer.write(FULL.replace(CONTENT, CONTENT[::-1]))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await fetch(origin) == CONTENT
        assert len(server.connections) == 2


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
async def test_authorities_of_the_environment(
    authority: trustme.CA, bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of OpenSSL and of the SDK name authorities as well."""
    monkeypatch.setenv(name, str(bundle))
    async with server_of(authority) as server, origin_at(server.endpoint_url) as origin:
        assert await fetch(origin) == CONTENT


async def test_a_bundle_beside_the_environment(
    authority: trustme.CA, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`origin.ca_bundle` comes before a bundle of the environment, and the system's store counts with it."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    for system, given in ((bundle, other), (other, bundle)):
        monkeypatch.setenv("SSL_CERT_FILE", str(system))
        async with server_of(authority) as server, origin_at(server.endpoint_url, ca_bundle=given) as origin:
            assert await fetch(origin) == CONTENT


async def test_an_intermediate_authority(authority: trustme.CA, tmp_path: Path) -> None:
    """A bundle may name an authority below a root, as those of companies do."""
    below = authority.create_child_ca()
    path = tmp_path / "below.pem"
    below.cert_pem.write_to_path(path)
    async with server_of(below) as server, origin_at(server.endpoint_url, ca_bundle=path) as origin:
        assert await fetch(origin) == CONTENT


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        ("", "has no certificate in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "has no certificate in PEM form"),
    ],
)
async def test_a_bundle_without_certificates(
    content: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I30: a bundle that cannot be used ends the start with its place and the problem."""
    path, config = tmp_path / "x.pem", tmp_path / "proxy.yaml"
    if content is not None:
        path.write_text(content)
    config.write_text(f"mounts: [{{path: /, bucket: b}}]\norigin:\n  ca_bundle: {path}\n")
    with pytest.raises(ConfigError, match=rf"proxy.yaml:3:14 origin.ca_bundle: must be a PEM file .* it {problem}"):
        load(config, {})
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    with pytest.raises(OriginError, match=f"AWS_CA_BUNDLE .* {problem}"):
        async with origin_at("https://127.0.0.1:1"):
            pass


def test_a_folder_as_a_bundle(tmp_path: Path) -> None:
    """I30: a folder is refused with that reason."""
    with pytest.raises(ConfigError, match=r"ORIGIN__CA_BUNDLE: .* it is a folder"):
        load(None, {"BUCKETFRONT_MOUNTS__0__BUCKET": "b", "BUCKETFRONT_ORIGIN__CA_BUNDLE": str(tmp_path)})


# --- causes --------------------------------------------------------------------------------------------------


async def test_an_unknown_authority(authority: trustme.CA) -> None:
    """A certificate of an authority that is not trusted is named as the cause, with the setting that helps."""
    async with server_of(authority) as server:
        assert await cause_at(server.endpoint_url) in UNTRUSTED


async def test_another_name(authority: trustme.CA, bundle: Path) -> None:
    """A certificate for another host is named as the cause."""
    async with server_of(authority, "s3.example.com") as server:
        assert await cause_at(server.endpoint_url, ca_bundle=bundle) is Cause.NAME_MISMATCH


async def test_another_name_than_localhost(authority: trustme.CA, bundle: Path) -> None:
    """The same holds for a host name."""
    async with server_of(authority, "s3.example.com") as server:
        url = server.endpoint_url.replace("127.0.0.1", "localhost")
        assert await cause_at(url, ca_bundle=bundle) is Cause.NAME_MISMATCH


async def test_an_expired_certificate(authority: trustme.CA, bundle: Path) -> None:
    """An expired certificate is named as the cause."""
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    async with server_of(authority, not_after=past, not_before=past - dt.timedelta(1)) as server:
        assert await cause_at(server.endpoint_url, ca_bundle=bundle) is Cause.CERTIFICATE_EXPIRED


async def test_a_certificate_of_the_future(authority: trustme.CA, bundle: Path) -> None:
    """A certificate that is not valid yet points at the clock."""
    future = dt.datetime(2090, 1, 1, tzinfo=dt.UTC)
    async with server_of(authority, not_before=future, not_after=future + dt.timedelta(1)) as server:
        assert await cause_at(server.endpoint_url, ca_bundle=bundle) is Cause.CERTIFICATE_NOT_YET_VALID


async def test_tls_to_a_plain_port() -> None:
    """TLS that a plain port does not understand points at the scheme of the endpoint."""

    async def script(connection: RawConnection, _: Head) -> None:
        raise AssertionError("TLS reached the origin as a request")

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response("400 Bad Request", b"<html>"))
        writer.close()

    async with RawServer(script), await asyncio.start_server(page, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await cause_at(f"https://127.0.0.1:{port}") is Cause.NO_TLS


async def test_plain_text_to_a_tls_port() -> None:
    """A TLS alert in place of a response points at the scheme of the endpoint."""

    async def script(connection: RawConnection, _: Head) -> None:
        await connection.send(b"\x15\x03\x01\x00\x02\x02\x46")
        connection.writer.close()

    async with RawServer(script) as server:
        assert await cause_at(server.endpoint_url) is Cause.TLS_ONLY


async def test_a_refused_connection() -> None:
    """A port on which nothing listens is named as refused."""
    with held_port() as port:
        assert await cause_at(f"http://127.0.0.1:{port}") is Cause.REFUSED
        assert await cause_at(f"https://127.0.0.1:{port}") is Cause.REFUSED


@pytest.mark.parametrize(
    ("code", "expected"), [(socket.EAI_NONAME, Cause.UNKNOWN_NAME), (socket.EAI_AGAIN, Cause.DNS_UNREACHABLE)]
)
async def test_a_host_without_an_address(code: int, expected: Cause, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown host name differs from a resolver that is out of reach."""

    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "no address")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await cause_at("http://s3.example.com") is expected


async def test_a_response_that_does_not_come() -> None:
    """A timeout is named with its setting, and is still an OriginTimeout."""
    async with RawServer(answering(None)) as server, origin_at(server.endpoint_url, read_timeout="10ms") as origin:
        with pytest.raises(OriginTimeout, match=r"origin\.read_timeout"):
            await origin.calls.make("GET o", origin.client.get_object, {"Bucket": "bucket", "Key": "o"})


async def test_a_connection_that_is_closed() -> None:
    """A connection without a response is named as closed."""

    async def script(connection: RawConnection, _: Head) -> None:
        connection.writer.close()

    async with RawServer(script) as server:
        assert await cause_at(server.endpoint_url) is Cause.NO_RESPONSE


def _os_error(number: int) -> Callable[[], BaseException]:
    return lambda: HTTPClientError(error=OSError(number, os.strerror(number)))


@each_row(
    ("make", "expected"),
    [
        (_os_error(errno.ENETUNREACH), Cause.UNREACHABLE),
        (_os_error(errno.EHOSTUNREACH), Cause.UNREACHABLE),
        (_os_error(errno.EMFILE), Cause.NO_DESCRIPTORS),
        (_os_error(errno.EPERM), Cause.FORBIDDEN),
        (_os_error(errno.ETIMEDOUT), Cause.CONNECT_TIMEOUT),
        (_os_error(errno.ENOTDIR), None),
        (lambda: ConnectTimeoutError(endpoint_url="http://x", error=TimeoutError()), Cause.CONNECT_TIMEOUT),
        (lambda: SSLError(endpoint_url="https://x", error=ssl.SSLError(1, "x")), Cause.TLS_FAILED),
        (aiohttp.ServerDisconnectedError, Cause.NO_RESPONSE),
        (TimeoutError, Cause.RESPONSE_TIMEOUT),
        (ValueError, None),
    ],
)
def test_causes(make: Callable[[], BaseException], expected: Cause | None) -> None:
    """What is wrapped by the SDK, by aiohttp, or by nothing has the same cause."""
    assert cause(make()) is expected
