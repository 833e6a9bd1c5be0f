"""What the listener of a process counts, as differences, so that the owner has the sums of all processes."""

from collections.abc import Sequence

from bucketfront.front_end.facts import Facts
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.handshake_failure import HandshakeFailure
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.http1.server_tls import ServerTls


class Counts:
    """The counters of one process. In a front end they are read, and in the owner those of front ends are added."""

    def __init__(
        self, connections: ConnectionLimit, path: FastPath, headers: ProxyHeaders, tls: Sequence[ServerTls]
    ) -> None:
        self._connections = connections
        self._path = path
        self._headers = headers
        self._tls = tls
        self._last = self._read()

    def since_last(self) -> Facts:
        """Return by how much each counter has grown since the last call, without those that have not."""
        now, last = self._read(), self._last
        self._last = now
        return {name: count - last.get(name, 0) for name, count in now.items() if count != last.get(name, 0)}

    def add(self, counts: Facts) -> None:
        """Add what another process has counted."""
        for name, count in counts.items():
            match name.split(":"):
                case ["refused"]:
                    self._connections.refused += count
                case ["made way"]:
                    self._connections.made_way += count
                case ["served"]:
                    self._path.served += count
                case ["headers"]:
                    self._headers.refused += count
                case ["tls", number, failure]:
                    self._tls[int(number)].failures[HandshakeFailure(failure)] += count

    def _read(self) -> dict[str, int]:
        found = {
            "refused": self._connections.refused,
            "made way": self._connections.made_way,
            "served": self._path.served,
            "headers": self._headers.refused,
        }
        for number, tls in enumerate(self._tls):
            found |= {f"tls:{number}:{failure.value}": count for failure, count in tls.failures.items()}
        return found
