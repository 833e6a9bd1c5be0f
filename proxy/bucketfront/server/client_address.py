"""The address of a request's client, which a trusted front may name."""

import ipaddress
import re
from collections.abc import Callable, Iterable

from bucketfront.config.listen_host import UNIX, UNIX_PEER
from bucketfront.http import cache_control
from bucketfront.http.grammar import QUOTED_STRING, TOKEN
from bucketfront.server.access.networks import Networks
from bucketfront.server.access.rule import Address

FORWARDED, X_FORWARDED_FOR = "forwarded", "x-forwarded-for"
MAX_HOPS = 32  # nodes of a chain that are examined, the nearest first; real chains have a few

# RFC 7239 section 4. The value of an unquoted `for` may have colons, because many fronts write an address as it is.
_PAIR = re.compile(rf"[ \t]*({TOKEN})=(?:({QUOTED_STRING})|([^;,\"\s]*))[ \t]*(?:;|$)")
_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([0-9.]+):\d+")


def shown(address: Address | None, peer: str | None) -> str:
    """Return the client's address as the log has it. `peer` is the address that the connection comes from."""
    return str(address) if address is not None else UNIX_PEER if peer == UNIX_PEER else "-"


class ClientAddresses:
    """Finds the client's address. `trusted` are the networks of fronts whose fields count, or UNIX for Unix sockets.

    `reads` are the request fields that this looks at.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        trusted = tuple(trusted)
        self._trusted = Networks(network for network in trusted if network != UNIX)
        self._trusts_unix = UNIX in trusted
        self.reads = frozenset({FORWARDED, X_FORWARDED_FOR} if trusted else ())

    def of(self, peer: str | None, field: Callable[[str], str | None]) -> Address | None:
        """Return the address of the client whose connection comes from `peer`, or None if it is unknown.

        The last hop that is not trusted is the client, because it can write whatever precedes it. A hop that is no
        address is unknown, and so is the client then. It is unknown as well if the two fields disagree: most fronts
        set one of them, and pass on what a client has written into the other.
        """
        address = _parsed(peer or "")
        if not self._is_front(peer, address):
            return address
        chains = (_forwarded(field(FORWARDED)), _x_forwarded_for(field(X_FORWARDED_FOR)))
        named = {self._first(address, chain) for chain in chains if chain is not None}
        return named.pop() if len(named) == 1 else None if named else address

    def hides(self, peer: str | None, field: Callable[[str], str | None]) -> bool:
        """Return whether the client is unknown because of the fields of a front, which it may have written itself."""
        if not self._is_front(peer, _parsed(peer or "")) or self.of(peer, field) is not None:
            return False
        return any(field(name) is not None for name in self.reads)

    def _is_front(self, peer: str | None, address: Address | None) -> bool:
        if peer == UNIX_PEER:
            return self._trusts_unix
        return address is not None and address in self._trusted

    def _first(self, address: Address | None, chain: Iterable[str]) -> Address | None:
        """Return the nearest node of a chain that is not trusted, or the last one."""
        for node in chain:
            address = _parsed(node)
            if address is None or address not in self._trusted:
                return address
        return address


def _forwarded(value: str | None) -> list[str] | None:
    """Return the nodes of a Forwarded field, the nearest first (RFC 7239 section 4)."""
    if value is None:
        return None
    return [_node(element) for element in reversed(list(cache_control.split(value))[-MAX_HOPS:])] or [""]


def _node(element: str) -> str:
    """Return the one `for` of an element. It is empty if there is no such one, or the element is malformed."""
    found: list[str] = []
    position = 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            found.append(cache_control.unquoted(pair[2]) if pair[2] else pair[3])
        position = pair.end()
    return found[0] if len(found) == 1 else ""


def _x_forwarded_for(value: str | None) -> list[str] | None:
    """Return the nodes of an X-Forwarded-For field, the nearest first."""
    return None if value is None else [node.strip() for node in reversed(value.split(",")[-MAX_HOPS:])]


def _parsed(node: str) -> Address | None:
    bare = _PORT.fullmatch(node)
    if bare is not None:
        node = bare[1] or bare[2]
    try:
        address = ipaddress.ip_address(node)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # RFC 4291 section 2.5.5.2
