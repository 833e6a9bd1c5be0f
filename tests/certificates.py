"""Certificates for tests of TLS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


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
