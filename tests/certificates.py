"""Certificates for tests of TLS."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key, as PEM files."""

    chain: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        """Return the keys of a section that has a certificate."""
        return {"certificate": str(self.chain), "key": str(self.key)}


def write_pair(folder: Path, name: str, issued: trustme.LeafCert) -> Pair:
    """Write a certificate and its key, over those that are there."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(pair.key)
    pair.key.chmod(0o600)
    return pair


def issue(folder: Path, name: str, authority: trustme.CA, *names: str, **options: Any) -> Pair:
    """Write a new certificate for `names`, and its key."""
    return write_pair(folder, name, authority.issue_cert(*names, **options))


def issue_with_extension(
    folder: Path, name: str, authority: trustme.CA, extension: x509.ExtensionType, *, is_critical: bool
) -> Pair:
    """Write a new certificate with one extension, which trustme would not write, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - DAY)
        .not_valid_after(datetime.now(UTC) + 9 * DAY)
        .add_extension(extension, critical=is_critical)
        .sign(signer, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


def localhost_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for `localhost` and its key as PEM files, and return their paths.

    The chain includes the root, so that clients can verify a server with the same file.
    """
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for part in (*certificate.cert_chain_pems, authority.cert_pem):
        part.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    return chain, key
