"""Compare a body, piece by piece, with the checksums that its sender declared."""

from collections.abc import Iterable

from bucketfront.errors import ProxyError
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest


class ChecksumMismatch(ProxyError):
    """The body does not have the checksum that was sent with it. `algorithm` is that of the checksum."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"the body's {algorithm} is not the one that was sent with it")
        self.algorithm = algorithm


class BodyChecksums:
    """The running checksums of one body. `claims` are what its sender declared, and all of them must match.

    `trailing` are the algorithms of checksums that its sender declares behind the body.
    """

    def __init__(self, claims: Iterable[Digest], trailing: Iterable[str] = ()) -> None:
        self._claims = tuple(claims)
        algorithms = (*(claim.algorithm for claim in self._claims), *trailing)
        self._states = {algorithm: checksums.hasher(algorithm) for algorithm in dict.fromkeys(algorithms)}

    def update(self, data: bytes) -> None:
        for state in self._states.values():
            state.update(data)

    def verify(self, trailing: Iterable[Digest] = ()) -> None:
        """Compare the checksums once the body is complete. Raises ChecksumMismatch."""
        for claim in (*self._claims, *trailing):
            if self._states[claim.algorithm].digest() != claim.value:
                raise ChecksumMismatch(claim.algorithm)
