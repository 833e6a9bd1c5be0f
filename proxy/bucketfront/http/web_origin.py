"""The authority of a request, and web origins, which browsers send in Origin (RFC 9110 section 7.2, RFC 6454)."""

import ipaddress
import re
from typing import NamedTuple, Self

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/?#@]*)(?::([0-9]{0,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(https?)://([^\s/?#@]+)", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host in lower case, without the dot at its end, and an explicit port. An address in IPv6 has no brackets."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return None for a malformed text."""
        found = _AUTHORITY.fullmatch(text)
        if found is None:
            return None
        host, port = found[1].strip("[]").lower().removesuffix("."), found[2]
        return cls(host, int(port) if port else None)

    @property
    def is_address(self) -> bool:
        """Return whether the host is an IP address, and not a name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_loopback_name(self) -> bool:
        """Return whether browsers resolve the name to this machine, whatever DNS says (RFC 6761 section 6.3)."""
        return self.host == "localhost" or self.host.endswith(".localhost")


def is_own(origin: str, host: str, *, is_tls: bool) -> bool:
    """Return whether `origin` is that of the server that a request with the Host `host` went to.

    A TLS terminator in front changes the scheme. So a server without TLS compares only host and port. A port that is
    the default of the origin's scheme may be absent in either.
    """
    found = _ORIGIN.fullmatch(origin)
    if found is None or (is_tls and found[1] != "https"):
        return False
    theirs, ours = Authority.parse(found[2]), Authority.parse(host)
    if theirs is None or ours is None or not ours.host:
        return False
    default = _DEFAULT_PORTS[found[1]]
    return theirs.host == ours.host and (theirs.port or default) == (ours.port or default)
