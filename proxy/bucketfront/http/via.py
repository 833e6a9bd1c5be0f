"""The Via header (RFC 9110 section 7.6.3), by which a proxy recognises a request that has passed it before.

Requests to S3 name each bucketfront that they have passed, and nothing else that clients send: their values are not
for S3 to read.
"""

import re
from collections.abc import Iterable

# RFC 9110 section 7.6.3: a pseudonym in the place of the host.
_NAME = re.compile(r"(?:^|,)[ \t]*(?:HTTP/)?[0-9.]+[ \t]+(bucketfront-[0-9a-f]{16})(?=[ \t,]|$)")
MAX_HOPS = 8  # tiers, before a request counts as one that goes round


def pseudonym(number: str) -> str:
    """Return the name of the process with this random number of 16 hex digits."""
    return f"bucketfront-{number}"


def passed(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the pseudonyms in the values of Via, the first one nearest to the client."""
    return tuple(name for value in fields for name in _NAME.findall(value))


def value_of(names: Iterable[str]) -> str:
    """Return the value for a request that has passed these."""
    return ", ".join(f"1.1 {name}" for name in names)
