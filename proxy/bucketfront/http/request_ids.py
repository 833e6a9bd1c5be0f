"""The id of a request, by which a client, this proxy and S3 name it in their logs."""

import re

NAME = "X-Request-Id"
MAX_CHARS = 128  # UUIDs, ULIDs and the ids of common proxies have at most 64
SAFE = r"[A-Za-z0-9._~:/+=@-]{1,128}+"
"""The expression of an id that a client may choose. It needs no escape in a header, in JSON or on a terminal."""

_SAFE = re.compile(SAFE)


def accepted(value: str | None) -> str | None:
    """Return the id that a client chose. Returns None if it sent none, or one that is not safe."""
    return value if value is not None and _SAFE.fullmatch(value) is not None else None
