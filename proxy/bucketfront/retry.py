"""Limits for requests that are repeated after a failure: how many there may be, and how long each waits before."""

from collections.abc import Callable

EARNED_TENTHS = 1  # for a first attempt: an origin that fails all of them gets a tenth more requests, not three times
PRICE_TENTHS = 10  # of a further attempt: one token
MAX_TOKENS = 10  # also at the start: so many repetitions may follow each other, whatever was earned
# A second earns one token as well. Otherwise an outage would leave a site with few requests without repetitions for
# hours, and a single failure would reach a client.
EARNED_TENTHS_PER_S = 10


class RetryBudget:
    """A token bucket that bounds the share of repeated requests, however many requests fail.

    Each first attempt earns a tenth of a token, and each further attempt costs a whole one. `limit` is in tokens.
    Each second by `clock` earns one. Without a clock no time passes.
    """

    def __init__(self, limit: int = MAX_TOKENS, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._limit = self._available = limit * PRICE_TENTHS  # in tenths, because sums of integers are exact
        self._clock = clock
        self._counted_until = clock()  # the time up to which seconds have earned
        self.refused = 0  # calls of `spend` without a token

    def __repr__(self) -> str:
        return f"<RetryBudget {self._available / PRICE_TENTHS:.1f} of {self._limit // PRICE_TENTHS}>"

    def earn(self) -> None:
        """Count a first attempt."""
        self._available = min(self._limit, self._available + EARNED_TENTHS)

    def spend(self) -> bool:
        """Take a token for a further attempt. Returns False if there is no token, and then the attempt may not run."""
        now = self._clock()
        earned = int((now - self._counted_until) * EARNED_TENTHS_PER_S)
        if earned:
            self._counted_until = now
            self._available = min(self._limit, self._available + earned)
        if self._available < PRICE_TENTHS:
            self.refused += 1
            return False
        self._available -= PRICE_TENTHS
        return True


def backoff(first: float, failures: int, chance: float) -> float:
    """Return the seconds to wait before the next attempt: exponential backoff with full jitter.

    `first` is the upper bound in seconds after one failure, and doubles with each further one. `failures` counts from
    1. `chance` is uniform in [0, 1), so that clients that failed together do not return together.
    """
    return first * 2.0 ** (failures - 1) * chance
