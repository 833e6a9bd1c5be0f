"""Requests that S3 has allowed, remembered for a short time (docs/s3-endpoint.md#passthrough).

Only the very same request is allowed again: the `Proof` of a request covers its method, its target and all fields that
S3 decides by, the signature among them. bucketfront has no secret of the client, so it could not tell a right signature
from a wrong one. A request with another signature, token, Host or Referer is another request, which S3 decides on.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from bucketfront.cache import Shown
from bucketfront.keys import ObjectKey

MAX_REMEMBERED = 4096  # requests; about 2 MB


@dataclass(frozen=True, slots=True)
class Proof:
    """One request, by a digest of all that S3 decides by.

    `expires_at` is when its signature ends, in seconds since the epoch. It is None for an anonymous request.
    """

    digest: bytes
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class _Allowed:
    key: ObjectKey
    shown: Shown
    until: float


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request was sent: by the clock `elapsed`, and by the number of writes before it."""

    time: float
    writes: int


class Authorizations:
    """The requests that S3 has allowed within the last `ttl` seconds, at most MAX_REMEMBERED.

    `clock` is wall time in seconds since the epoch, and `elapsed` a clock in seconds that no operator sets.
    """

    def __init__(self, ttl: float, clock: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._elapsed = elapsed
        self._allowed: OrderedDict[bytes, _Allowed] = OrderedDict()
        self._writes = 0  # how often something was forgotten because of a write

    @property
    def moment(self) -> Moment:
        """Return the present moment, for a request that is about to be sent."""
        return Moment(self._elapsed(), self._writes)

    def find(self, proof: Proof) -> Shown | None:
        """Return the version that S3 has shown for this very request, if that still holds."""
        allowed = self._allowed.get(proof.digest)
        if allowed is None:
            return None
        if self._elapsed() >= allowed.until or self._is_expired(proof):
            del self._allowed[proof.digest]
            return None
        return allowed.shown

    def remember(self, proof: Proof, key: ObjectKey, shown: Shown, sent: Moment) -> None:
        """Remember that S3 has allowed a request for `key`, unless a write came after it was sent."""
        until = sent.time + self._ttl
        if sent.writes != self._writes or self._elapsed() >= until or self._is_expired(proof):
            return
        self._allowed[proof.digest] = _Allowed(key, replace(shown, status=None), until)
        self._allowed.move_to_end(proof.digest)
        if len(self._allowed) > MAX_REMEMBERED:
            self._allowed.popitem(last=False)

    def refuse(self, proof: Proof) -> None:
        """Forget a request on which S3 has to decide again."""
        self._allowed.pop(proof.digest, None)

    def forget(self, keys: Iterable[ObjectKey]) -> None:
        """Forget all requests for these objects, in all versions, because a write may change who may read them."""
        self._writes += 1
        if self._allowed:
            names = {key._replace(version=None) for key in keys}
            for digest in [d for d, allowed in self._allowed.items() if allowed.key._replace(version=None) in names]:
                del self._allowed[digest]

    def forget_bucket(self, bucket: str | None) -> None:
        """Forget all requests for objects of a bucket, because its policy may change. None stands for all buckets."""
        self._writes += 1
        for digest in [d for d, allowed in self._allowed.items() if bucket in (None, allowed.key.bucket)]:
            del self._allowed[digest]

    def _is_expired(self, proof: Proof) -> bool:
        return proof.expires_at is not None and self._clock() >= proof.expires_at
