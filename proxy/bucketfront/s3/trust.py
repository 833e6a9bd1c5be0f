"""Which certificates of an origin are trusted.

The authorities are those of the system, to which OpenSSL adds SSL_CERT_FILE and SSL_CERT_DIR, and those of
`origin.ca_bundle`. Without a system's store, as in some containers, the SDK's own list takes its place.
"""

import logging
import os
import ssl
from pathlib import Path
from typing import Any

from botocore.httpsession import get_cert_path

from bucketfront.config.pem_file import certificate_problem
from bucketfront.errors import OriginError

log = logging.getLogger(__name__)


def bundle_of(settings: Path | None, session: Any) -> str | None:
    """Return the path of the bundle in the settings, or else in the environment or profile of the SDK's session.

    Raises OriginError if the latter cannot be used. The settings are checked when they are loaded.
    """
    if settings is not None:
        return str(settings)
    for name, found in (
        ("AWS_CA_BUNDLE (or ca_bundle of the profile)", session.get_config_variable("ca_bundle")),
        ("REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")),
    ):
        if found:
            if not Path(found).is_dir() and (problem := certificate_problem(Path(found))):
                raise OriginError(f"the file of {name} {problem}")
            return str(found)
    return None


def client_context(bundle: str | None) -> ssl.SSLContext:
    """Return the context of connections to the origin. It reads files. `bundle` is a file, or a folder as of OpenSSL.

    Raises OSError and ssl.SSLError if the bundle cannot be used.
    """
    context = ssl.create_default_context()
    # Python 3.13 refuses certificates of private authorities that lack an extension, and Python 3.11 no authority
    # below a root. Both follow OpenSSL's own defaults here, whatever the version.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not _has_system_store(context):
        context.load_verify_locations(get_cert_path(True))
    if bundle is not None:
        if Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (path := os.environ.get(name)) and not Path(path.split(os.pathsep)[0]).exists():
            log.warning("%s names a path that does not exist", name)
    return context


def _has_system_store(context: ssl.SSLContext) -> bool:
    """Return whether OpenSSL finds authorities of the system. It reads a folder of them only when it needs one."""
    folder = ssl.get_default_verify_paths().capath
    return bool(context.cert_store_stats()["x509_ca"]) or (folder is not None and any(Path(folder).iterdir()))
