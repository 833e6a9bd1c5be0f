"""Whether a body is what its sender said it would be: fed with its pieces, asked at its end."""

from collections.abc import Iterable

from bucketfront.errors import ProxyError
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest


class ChecksumMismatch(ProxyError):
    """The body is not the one that its checksum was made of."""


class BodyChecksums:
    """`claims` are what the sender said. All of them have to hold."""

    def __init__(self, claims: Iterable[Digest]) -> None:
        self._states = [(claim, checksums.hasher(claim.algorithm)) for claim in claims]

    def update(self, data: bytes) -> None:
        for _, state in self._states:
            state.update(data)

    def verify(self) -> None:
        """To be called when the body is whole. Raises ChecksumMismatch."""
        for claim, state in self._states:
            if state.digest() != claim.value:
                raise ChecksumMismatch(f"the body's {claim.algorithm} is not the one that was sent with it")
