"""Client certificates that the authority has issued, and that Python cannot read in full (I12)."""

import logging
import ssl
from pathlib import Path

import pytest
import trustme
from certificates import issue, issue_with_extension
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from proxy_under_test import S3, StartProxy, until
from test_tls_names import client_context, connection_for


@pytest.mark.parametrize(
    "alternative_names",
    [
        b"\x30\x06\x86\x04a\xff\xfe:",  # a URI that is not UTF-8
        b"\x30\x06\x82\x04\xff\xff\xff\xff",  # a DNS name
        b"\x30\x05\x82\x03a\x00b",  # a DNS name with a NUL
        b"\x30\x03\x87\x01\x01",  # an address of one byte
        b"\x30\x00",
    ],
)
async def test_odd_names(
    start: StartProxy, s3: S3, tmp_path: Path, caplog: pytest.LogCaptureFixture, alternative_names: bytes
) -> None:
    """A client with such a certificate is served by its other names or refused, and leaves no warning."""
    authority = trustme.CA()
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    served = issue(tmp_path, "served", authority, "localhost")
    s3.put("x", b"data")
    proxy = await start(
        server={"tls": {**served.settings, "client_ca": str(trusted), "client_certificates": "optional"}},
        access={"devices": {"client_certificate": {"common_names": ["odd"]}}},
        mounts=[{"path": "/", "bucket": s3.bucket, "read": ["devices"]}],
        uploads=None,
    )
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, alternative_names)
    odd = issue_with_extension(tmp_path, "odd", authority, names, is_critical=False)
    context = client_context(authority)
    context.load_cert_chain(odd.chain, odd.key)
    connection = None
    try:
        connection, _ = await connection_for(proxy.address, context)
        assert (await connection.request("GET", "/x")).status in (200, 403)
    except (ssl.SSLError, ConnectionError, EOFError):
        (tls,) = proxy.app.listener.tls
        await until(lambda: tls.failures.total() == 1)
    if connection is not None:
        await connection.close()
    await until(lambda: not proxy.app.connection_limit.open)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
