"""How many requests may be asked twice: a share of those asked once, however badly things go.

A token bucket: each first attempt earns a tenth of a token, each further one costs a whole token. An origin that fails
everything so hears a tenth more requests than one that works, not three times as many.
"""

EARNED = 1  # tenths of a token
PRICE = 10
MOST = 10  # tokens held at most, and at first: that many may follow each other whatever was earned


class RetryBudget:
    """`most` in tokens."""

    def __init__(self, most: int = MOST) -> None:
        self._most = self._held = most * PRICE  # tenths: sums of them are exact
        self.refused = 0  # times that there was no token

    def __repr__(self) -> str:
        return f"<RetryBudget {self._held / PRICE:.1f} of {self._most // PRICE}>"

    def earn(self) -> None:
        """A first attempt is made."""
        self._held = min(self._most, self._held + EARNED)

    def spend(self) -> bool:
        """Take a token for a further attempt; False: there is none, so it may not be made."""
        if self._held < PRICE:
            self.refused += 1
            return False
        self._held -= PRICE
        return True
