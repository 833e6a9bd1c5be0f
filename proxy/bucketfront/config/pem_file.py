"""Files of certificates, as the system's tools write them (PEM, RFC 7468)."""

import ssl
from pathlib import Path


def certificate_problem(path: Path) -> str | None:
    """Return what keeps the file from being a list of trusted certificates, or None if it is one."""
    try:
        if path.is_dir():
            return "is a folder"
        if path.exists() and not path.is_file():
            return "is no regular file"  # to open a named pipe may take forever
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "has no certificate in PEM form"
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'not a usable path'}"
    return None
