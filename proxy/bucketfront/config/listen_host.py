"""What the host of a listener means: the addresses to bind, and the one at which this machine reaches it."""

import ipaddress
import re

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104 - names, nothing is bound
EVERY = "*"
LOCALHOST = "localhost"
UNIX = "unix"  # in the settings, the peers of Unix sockets
UNIX_PEER = "unix:"  # the address of a client of a Unix socket, in the log
_LOOPBACK_IPV4, _LOOPBACK_IPV6 = "127.0.0.1", "::1"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,253}")


def normalised(host: str) -> str:
    """Return the host in its one spelling: `[::]` is `::`, and names are lower case. Raises ValueError with the fix."""
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(inner))
    except ValueError:
        pass
    if host == EVERY:
        return host
    if ":" in host and "/" not in host:
        raise ValueError("must be an address or a host name, without the port: that is the key port")
    if not _NAME.fullmatch(host):
        raise ValueError("must be an address or a host name, or * for all addresses")
    return host.lower()


def addresses(host: str) -> tuple[str, ...]:
    """Return the addresses that a listener on a normalised host binds. A name that DNS must resolve stays a name.

    `*` and `::` mean both protocols. So does `localhost`, which never leaves the machine (RFC 6761 section 6.3).
    """
    if host in (EVERY, ANY_IPV6):
        return ANY_IPV4, ANY_IPV6
    if host == LOCALHOST:
        return _LOOPBACK_IPV4, _LOOPBACK_IPV6
    return (host,)


def plain_address(address: str) -> str:
    """Return an IPv4 address that is mapped into IPv6 as the former: RFC 4291 section 2.5.5.2."""
    if not address.startswith("::ffff:"):
        return address
    mapped = ipaddress.IPv6Address(address).ipv4_mapped
    return address if mapped is None else str(mapped)


def is_any(host: str) -> bool:
    """Return whether a listener on the host has all addresses of the machine, of one protocol or both."""
    return bool({ANY_IPV4, ANY_IPV6} & set(addresses(host)))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a listener on the host. Returns False for a name."""
    try:
        return all(ipaddress.ip_address(address).is_loopback for address in addresses(host))
    except ValueError:
        return False


def reachable(host: str) -> str:
    """Return the address, or name, at which a program on this machine reaches a listener on the host."""
    return {ANY_IPV4: _LOOPBACK_IPV4, ANY_IPV6: _LOOPBACK_IPV6}.get(addresses(host)[0], addresses(host)[0])


def overlap(one: str, other: str) -> bool:
    """Return whether listeners on the two hosts cannot have the same port. Names are compared as text."""
    mine, yours = set(addresses(one)), set(addresses(other))
    return bool(mine & yours) or _covers(mine, yours) or _covers(yours, mine)


def _covers(many: set[str], few: set[str]) -> bool:
    return any(ANY_IPV6 in many if ":" in address else ANY_IPV4 in many for address in few)


def in_url(host: str, port: int) -> str:
    """Return host and port as they stand in a URL: RFC 3986 section 3.2.2."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
