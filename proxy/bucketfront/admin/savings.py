"""What S3 costs with bucketfront and what it would cost without it, by mount. Pure: counts and prices come in.

Without bucketfront, each read of a client is a GET or HEAD of S3, and S3 sends the bytes of its response. With it, S3
charges for the requests and bytes of the cache. The difference is saved. It is negative if the cache reads more than
its clients do, for example ahead of readers that leave. Writes cost the same in both cases, so they save nothing.
"""

from dataclasses import dataclass

from bucketfront.config.pricing_settings import Prices

GB = 10**9  # bytes, as in S3's price list


@dataclass(frozen=True, slots=True)
class Usage:
    """The counts of one mount since the start. Clients' counts are of reads that S3 would have served."""

    client_reads: int
    client_bytes: int
    origin_reads: int
    origin_writes: int
    origin_bytes: int

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.client_reads + other.client_reads,
            self.client_bytes + other.client_bytes,
            self.origin_reads + other.origin_reads,
            self.origin_writes + other.origin_writes,
            self.origin_bytes + other.origin_bytes,
        )

    @property
    def saved_reads(self) -> int:
        """Return the reads that S3 did not have to serve, negative if it served more."""
        return self.client_reads - self.origin_reads

    @property
    def saved_bytes(self) -> int:
        """Return the bytes that S3 did not have to send, negative if it sent more."""
        return self.client_bytes - self.origin_bytes


@dataclass(frozen=True, slots=True)
class Money:
    """Amounts in the configured currency: what S3 charges, and what it does not because of the cache."""

    spent: float
    saved: float

    def __add__(self, other: "Money") -> "Money":
        return Money(self.spent + other.spent, self.saved + other.saved)


NOTHING = Usage(0, 0, 0, 0, 0)


def money(usage: Usage, prices: Prices) -> Money | None:
    """Return the amounts of a mount. Returns None if its prices are unknown."""
    if prices.per_1000_gets is None or prices.per_1000_puts is None or prices.per_gb_out is None:
        return None
    reads = _of_reads(usage.origin_reads, usage.origin_bytes, prices.per_1000_gets, prices.per_gb_out)
    writes = usage.origin_writes / 1000 * prices.per_1000_puts
    direct = _of_reads(usage.client_reads, usage.client_bytes, prices.per_1000_gets, prices.per_gb_out)
    return Money(reads + writes, direct - reads)


def _of_reads(requests: int, count: int, per_1000: float, per_gb: float) -> float:
    return requests / 1000 * per_1000 + count / GB * per_gb
