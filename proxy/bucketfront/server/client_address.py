"""The address of a request's client, which may be told by a front that is trusted."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from bucketfront.server.access.networks import Networks
from bucketfront.server.access.rule import Address

FORWARDED, X_FORWARDED_FOR = "forwarded", "x-forwarded-for"
MAX_HOPS = 32  # of fronts; a longer chain is nobody's

# RFC 7239 section 4, of one hop: for=192.0.2.43, for="[2001:db8::1]:4711".
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;,"\s]+))', re.IGNORECASE)
_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([0-9.]+):\d+")


class ClientAddresses:
    """Finds the client's address. `trusted` are the networks of fronts whose word counts.

    `reads` are the request fields that this looks at.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = Networks(trusted)
        self.reads = frozenset({FORWARDED, X_FORWARDED_FOR} if self._trusted else ())

    def of(self, peer: str | None, field: Callable[[str], str | None]) -> Address | None:
        """Return the address of the client whose connection comes from `peer`, or None if it is unknown.

        The last hop that is not trusted is the client, because it can write whatever precedes it. A hop that is no
        address is unknown, and so is the client then.
        """
        address = _parsed(peer or "")
        if address is None or not self._trusted or address not in self._trusted:
            return address
        for hop in _hops(field):
            address = _parsed(hop)
            if address is None or address not in self._trusted:
                return address
        return address


def _hops(field: Callable[[str], str | None]) -> Iterator[str]:
    """Yield the nodes of a request's chain, the nearest first. `Forwarded` takes precedence (RFC 7239)."""
    forwarded = field(FORWARDED)
    if forwarded is not None:
        for element in reversed(forwarded.split(",")[-MAX_HOPS:]):
            found = _FOR.search(element)
            yield (found[1] or found[2] or "") if found else ""
        return
    named = field(X_FORWARDED_FOR)
    if named is not None:
        yield from (hop.strip() for hop in reversed(named.split(",")[-MAX_HOPS:]))


def _parsed(node: str) -> Address | None:
    bare = _PORT.fullmatch(node)
    if bare is not None:
        node = bare[1] or bare[2]
    try:
        return ipaddress.ip_address(node)
    except ValueError:
        return None
