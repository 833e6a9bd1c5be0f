"""How soon a part fetch reaches an offset, and whether another request would be there sooner. Values without I/O."""

from bucketfront.cache.fetch.part_fetch import PartFetch, PartState

MAX_PATIENCE_S = 0.2
"""How long a reader waits inside another reader's part before it gets a part of its own.

Bytes that the origin has sent of the first part come twice then, so it has to save more than a round trip. S3 takes 0.1
to 0.2 s for a head.
"""

MIN_PATIENCE_S = 0.05  # less saves nothing that a client notices, and costs a request
PATIENCE_IN_REQUESTS = 2  # so many times what a request took to its first byte


class PartRate:
    """The rate and the first byte's delay of the part fetches of one fill."""

    def __init__(self) -> None:
        self._rate: float | None = None  # bytes a second of the latest part fetch that received any
        self._delay: float | None = None  # seconds to the first byte, of the latest one that sent a request

    def note_end(self, fetch: PartFetch, now: float) -> None:
        """Note how fast a part fetch was. Call it before its state becomes ENDED."""
        if fetch.state is PartState.RECEIVING and (elapsed := now - fetch.first_byte_at) > 0:
            self._rate = (fetch.mark - fetch.start) / elapsed
            self._delay = self._delay if fetch.delay is None else fetch.delay

    def is_too_slow(self, fetch: PartFetch, offset: int, now: float) -> bool:
        """Return whether a reader that waits for `offset`, inside the part, had better get a part of its own."""
        rate = self._rate_of(fetch, now)
        return rate is not None and offset - fetch.mark >= rate * self._patience(fetch)

    def _rate_of(self, fetch: PartFetch, now: float) -> float | None:
        """Return bytes a second: of this part fetch, or of the latest one if this one is too young."""
        if fetch.state is not PartState.RECEIVING:
            return self._rate
        elapsed = now - fetch.first_byte_at
        return (fetch.mark - fetch.start) / elapsed if elapsed > MAX_PATIENCE_S else self._rate

    def _patience(self, fetch: PartFetch) -> float:
        delay = self._delay if fetch.delay is None else fetch.delay
        if delay is None:
            return MAX_PATIENCE_S
        return min(MAX_PATIENCE_S, max(MIN_PATIENCE_S, PATIENCE_IN_REQUESTS * delay))
