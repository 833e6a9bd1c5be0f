"""Client certificates that the authority has issued, and that Python cannot read in full (I12)."""

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from certificates import Pair, issue
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID
from proxy_under_test import S3, StartProxy, until
from test_tls_names import client_context, connection_for

DAY = timedelta(days=1)


def odd_certificate(folder: Path, authority: trustme.CA, alternative_names: bytes) -> Pair:
    """Write a certificate whose extension of alternative names has these octets."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - DAY)
        .not_valid_after(datetime.now(UTC) + 9 * DAY)
        .add_extension(
            x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, alternative_names), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    pair = Pair(folder / "odd.pem", folder / "odd.key")
    pair.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


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
    odd = odd_certificate(tmp_path, authority, alternative_names)
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
