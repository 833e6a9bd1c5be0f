"""A certificate for tests of TLS."""

from pathlib import Path

import trustme


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
