"""Which values of Host are served (RFC 9110 section 7.4).

A page can give its own name an address of ours (DNS rebinding). Then its requests have the page's own origin, and only
Host shows whose name it is. An IP address in Host is no name, so it is always served.
"""

from collections.abc import Iterable

from bucketfront.errors import ProxyError
from bucketfront.http.web_origin import Authority


class UnknownHost(ProxyError):
    """A request came under a name that is not configured. It is misdirected (RFC 9110 section 15.5.20)."""

    def __init__(self) -> None:
        super().__init__("this name is not served here; server.hosts has the names that are")


class HostNames:
    """The configured names, besides IP addresses and the names of loopback."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def check(self, host: str | None) -> None:
        """Raise UnknownHost for the Host of a request, unless it is served. Browsers always send Host."""
        if not host:
            return
        authority = Authority.parse(host)
        if authority is None or not (
            authority.host in self._names or authority.is_loopback_name or authority.is_address
        ):
            raise UnknownHost
