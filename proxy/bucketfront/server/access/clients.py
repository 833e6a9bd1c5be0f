"""Names the clients that have fair shares."""

from collections.abc import Iterable

from bucketfront.config.listen_host import is_loopback
from bucketfront.fair_share import Client
from bucketfront.server.access.networks import Networks, client_of
from bucketfront.server.access.rule import Address

UNKNOWN = "unknown"  # the client of all requests behind a front that do not name one


class Clients:
    """Names the client of a request. `fronts` are the networks of trusted fronts, which have no share themselves.

    No client has one if `has_shares` is false.
    """

    def __init__(self, fronts: Iterable[str], *, has_shares: bool = True) -> None:
        self._fronts = Networks(fronts)
        self._has_shares = has_shares

    def has_share(self, address: str) -> bool:
        """Return whether an address is one client's. This machine and fronts stand for many."""
        return bool(address) and not is_loopback(address) and address not in self._fronts

    def name(self, address: Address | None, credential: str | None, *, is_hidden: bool) -> Client:
        """Return the credential of a client, or else its address. Returns None if it has no share.

        `address` is None for the peer of a Unix socket, and if it is not known. `is_hidden` is true if that is because
        of what the client may have sent. A key that signs URLs is no credential of one client, because all visitors of
        a site have the same.
        """
        if not self._has_shares:
            return None
        if credential is not None:
            return credential
        if address is None:
            return UNKNOWN if is_hidden else None
        name = str(address)
        return client_of(name) if self.has_share(name) else None
