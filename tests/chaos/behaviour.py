"""The behaviour of a chaos origin at one request, and scripts that choose one for each request."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

# S3 API, "Error responses".
CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass(frozen=True, slots=True)
class OriginRequest:
    """One request as it arrived. `line` and `headers` are as sent and in order. `key` is None if it names no object."""

    method: str
    line: str
    headers: tuple[tuple[str, str], ...]
    key: str | None
    at: float  # monotonic seconds

    def header(self, name: str) -> str | None:
        """Return the value of a header; `name` may be in any case."""
        return next((value for sent, value in self.headers if sent.lower() == name.lower()), None)

    @property
    def range(self) -> str | None:
        return self.header("range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the origin does with one request. Offsets count bytes of the response body.

    A write with `cut_at` above 0 ends after so many bytes of its own body and stores nothing. With `cut_at` 0,
    `stall_at` or `garbage` the write is stored without a valid response: an unknown outcome.
    """

    swap: Literal["before head", "after head"] | int | None = None  # an int: the object is overwritten at that byte
    swap_size: int | None = None  # bytes of the new version; None: the size of the old one
    ignores_if_match: bool = False
    status: int | None = None  # an S3 error with that status; 200: Range is ignored; 301, 307: a redirect
    cut_at: int | None = None
    with_reset: bool = False  # the cut is an RST in place of a FIN
    early_at: int | None = None  # a write gets its `status` after so many bytes of its body; the rest is not read
    stall_at: int | None = None  # no further byte from there on, until the client leaves
    trickle: tuple[int, float] | None = None  # bytes at a time, seconds between
    pause: float = 0.0  # seconds before the head
    content_range: str | None = None
    extra_length: int = 0  # the difference between a GET's Content-Length and the true length
    etag: str | None = None  # `{}` in it becomes a number that no other response has
    flip_at: int | None = None  # one bit of that byte is wrong
    garbage: bytes | None = None  # in place of HTTP


HONEST = Behaviour()

Script = Callable[[OriginRequest], Behaviour]


def honest(_: OriginRequest) -> Behaviour:
    return HONEST


class InTurn:
    """A script: the n-th request for `key` with one of `methods` gets the n-th behaviour, all others get HONEST."""

    def __init__(self, *behaviours: Behaviour, methods: tuple[str, ...] = ("GET",), key: str | None = None) -> None:
        self._left = deque(behaviours)
        self._methods = methods
        self._key = key

    def __call__(self, request: OriginRequest) -> Behaviour:
        if request.method not in self._methods or self._key not in (None, request.key) or not self._left:
            return HONEST
        return self._left.popleft()


FAULTS = (
    *(Behaviour(status=status) for status in (400, 403, 404, 412, 416, 429, 500, 503, 200, 301)),
    *(Behaviour(cut_at=at, with_reset=reset) for at in (0, 1, 70_000) for reset in (False, True)),
    Behaviour(stall_at=0),
    Behaviour(stall_at=50_000),
    Behaviour(trickle=(4096, 0.02)),
    Behaviour(pause=0.3),
    Behaviour(content_range="bytes 1-5/6"),
    Behaviour(content_range="bytes */0"),
    Behaviour(extra_length=7),
    Behaviour(extra_length=-7),
    Behaviour(etag='"lie-{}"'),
    Behaviour(etag=""),
    Behaviour(garbage=b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    Behaviour(garbage=b"HTTP/1.1 200 OK\r\nContent-Length: none\r\n\r\n"),
)
"""One of each kind, for requests of some 100 KB."""

SWAPS = tuple(
    replace(swap, swap_size=size, ignores_if_match=ignores)
    for swap in (Behaviour(swap="before head"), Behaviour(swap="after head"), Behaviour(swap=40_000))
    for size in (None, 150_000)
    for ignores in (False, True)
)


@dataclass
class AtRandom:
    """A script that can be sent to another process.

    `rate` is the share of requests for `keys` that get one of `behaviours`.
    """

    seed: int
    rate: float
    behaviours: tuple[Behaviour, ...] = FAULTS
    keys: frozenset[str] | None = None  # None: all
    methods: frozenset[str] = frozenset({"GET", "HEAD", "PUT", "DELETE"})
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, request: OriginRequest) -> Behaviour:
        if request.method not in self.methods or (self.keys is not None and request.key not in self.keys):
            return HONEST
        chosen = self._random.choice(self.behaviours) if self._random.random() < self.rate else HONEST
        # The proxy waits 30 s for an origin that reads an upload and stalls: too long for random tests.
        return HONEST if request.method == "PUT" and chosen.stall_at is not None else chosen
