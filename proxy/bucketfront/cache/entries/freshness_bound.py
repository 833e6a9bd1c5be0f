"""How long entries may count as fresh while this cache may miss changes elsewhere.

A cache that learns of each change needs no short lifetimes. `in_step_at` is the last time at which it knew of all
changes. That is as good as a validation of every entry at that time. Beyond `grace` seconds after it, or after an own
later validation, nothing is fresh (docs/invariants.md#bounded-staleness). No event has to end that: a process that
stands still, or that learns nothing, does not move `in_step_at`.
"""

import math
from collections.abc import Callable


class FreshnessBound:
    """All entries and leases of a cache share it. Times are by the cache's clock. By default there is no bound."""

    __slots__ = ("grace", "in_step_at", "on_advance")

    def __init__(self, grace: float = math.inf) -> None:
        """`grace` is in seconds; infinite without a bound."""
        self.grace = grace
        self.in_step_at = -math.inf
        self.on_advance: Callable[[], None] | None = None
        """Called each time that `in_step_at` moves, for copies of the bound in other processes."""

    def advance(self, in_step_at: float) -> None:
        """Note that all changes until `in_step_at` are known and applied."""
        if in_step_at > self.in_step_at:
            self.in_step_at = in_step_at
            if self.on_advance is not None:
                self.on_advance()

    def until(self, validated_at: float) -> float:
        """Return the time until which something that was validated at `validated_at` may count as fresh."""
        return max(validated_at, self.in_step_at) + self.grace

    def ttl(self, validated_at: float, fresh_until: float, now: float) -> float:
        """Return the seconds of freshness left, negative if stale. `fresh_until` is the end without a bound.

        As long as the bound is not reached it does not count, because it moves on.
        """
        bound = self.until(validated_at)
        return (fresh_until if bound > now else min(fresh_until, bound)) - now


UNBOUNDED = FreshnessBound()
