"""The time that requests to S3 are signed with.

S3 refuses a signature whose time is more than 15 minutes from its own. A machine's clock may be that wrong: without a
battery, after a suspend, in a virtual machine. Each response of S3 has a Date, so the client can sign with the origin's
time instead.

The correction is an anchor: the origin's time at one reading of a clock that is never set. So it stays right if an
operator sets the wall clock, and it ends once the wall clock agrees with it. A Date may be wrong as well. A correction
that did not help is dropped, and the wall clock counts again.

Clocks are parameters, and nothing here waits.
"""

import logging
from collections.abc import Callable

# A named refusal is about the time, so a small skew counts. S3-alikes may allow less than S3.
MIN_NAMED_SKEW_S = 30.0
# Any other refusal is about the time only if the skew is one that S3 refuses: 15 minutes, less the latency.
MIN_UNNAMED_SKEW_S = 14 * 60.0
AGREEMENT_S = 30.0  # the wall clock is right again if it is so close
WARNING_INTERVAL_S = 60.0

log = logging.getLogger(__name__)


class SigningClock:
    """A callable that returns seconds since the epoch. `wall` is the wall clock, and `elapsed` is never set."""

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._anchor: float | None = None  # the origin's time less `elapsed`
        self._warned_at: float | None = None  # by `elapsed`
        self.corrections = 0

    def __repr__(self) -> str:
        return f"<SigningClock skew {self.skew:+.0f} s>"

    @property
    def skew(self) -> float:
        """Return by how many seconds signatures are ahead of the wall clock, 0 without a correction."""
        return self() - self._wall() if self._anchor is not None else 0.0

    def __call__(self) -> float:
        wall = self._wall()
        if self._anchor is None:
            return wall
        corrected = self._anchor + self._elapsed()
        if abs(corrected - wall) > AGREEMENT_S:
            return corrected
        self._anchor = None
        log.warning("the clock agrees with the origin's again: requests are signed with the clock's time")
        return wall

    def correct(self, date: float, signed: float, *, is_named: bool) -> bool:
        """Take the origin's time from the Date of a refusal. Return whether a new signature would have another time.

        `signed` is the time in the refused signature. `is_named` means that the origin gave the time as its reason.
        """
        smallest = MIN_NAMED_SKEW_S if is_named else MIN_UNNAMED_SKEW_S
        if abs(date - self()) < smallest:
            if abs(date - signed) >= smallest:
                return True  # corrected since the request was signed
            return is_named and self.drop()  # the Date is not the time by which the origin judges
        self._anchor = date - self._elapsed()
        self.corrections += 1
        behind = date - self._wall()
        self._warn(
            "the clock is %.0f s %s the origin's, and requests are signed with the origin's time; set it right (NTP)",
            abs(behind),
            "behind" if behind > 0 else "ahead of",
        )
        return True

    def drop(self) -> bool:
        """End the correction, because it did not help. Return whether there was one."""
        if self._anchor is None:
            return False
        self._anchor = None
        self._warn("the origin's Date is not the time that it accepts: requests are signed with the clock's time")
        return True

    def _warn(self, message: str, *values: object) -> None:
        now = self._elapsed()
        if self._warned_at is None or now - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = now
            log.warning(message, *values)
