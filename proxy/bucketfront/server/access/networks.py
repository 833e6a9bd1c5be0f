"""Addresses of clients, and the rule of them."""

import ipaddress
from collections.abc import Iterable

from bucketfront.server.access.rule import AccessRequest, Address, Denial, Grant, RuleVerdict, Scope


class Networks:
    """Some networks. An IPv4 address that is mapped into IPv6 counts as the former (RFC 4291 section 2.5.5.2)."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __contains__(self, address: Address | str) -> bool:
        if isinstance(address, str):
            try:
                address = ipaddress.ip_address(address)
            except ValueError:
                return False  # the name of a Unix socket
        plain = getattr(address, "ipv4_mapped", None) or address
        return any(plain in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


class NetworksRule:
    """Holds for requests from some networks."""

    scope = Scope.MOUNT
    challenge = None

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = Networks(networks)

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        is_inside = request.address is not None and request.address in self._networks
        return Grant() if is_inside else Denial("the client's address is not permitted")

    async def close(self) -> None:
        pass


def client_of(address: str) -> str:
    """Return the name of the client at an address: the address, or in IPv6 its network of 64 bits."""
    if ":" not in address:
        return address
    network = int(ipaddress.IPv6Address(address.partition("%")[0])) >> 64 << 64
    return f"{ipaddress.IPv6Address(network)}/64"
