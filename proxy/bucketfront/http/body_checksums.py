"""Compare a body, piece by piece, with the checksums that its sender declared."""

from collections.abc import Iterable

from bucketfront.errors import ProxyError
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest


class ChecksumMismatch(ProxyError):
    """The body does not have the checksum that was sent with it."""


class BodyChecksums:
    """The running checksums of one body. `claims` are what its sender declared, and all of them must match."""

    def __init__(self, claims: Iterable[Digest]) -> None:
        self._states = [(claim, checksums.hasher(claim.algorithm)) for claim in claims]

    def update(self, data: bytes) -> None:
        for _, state in self._states:
            state.update(data)

    def verify(self) -> None:
        """Compare the checksums once the body is complete. Raises ChecksumMismatch."""
        for claim, state in self._states:
            if state.digest() != claim.value:
                raise ChecksumMismatch(f"the body's {claim.algorithm} is not the one that was sent with it")
