"""The prices of S3, by which the statistics show money."""

from typing import Self

from pydantic import model_validator

from bucketfront.config.quantities import Currency, Price
from bucketfront.config.section import Section


class Prices(Section):
    """What S3 charges for the requests of one mount, in place of `pricing`. Give all three prices, or none."""

    per_1000_gets: Price | None = None
    """The price of 1000 reads: GET and HEAD."""
    per_1000_puts: Price | None = None
    """The price of 1000 writes: PUT, COPY, POST and LIST. Deletes are free."""
    per_gb_out: Price | None = None
    """The price of 10^9 bytes that S3 sends."""

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = [price is not None for price in (self.per_1000_gets, self.per_1000_puts, self.per_gb_out)]
        if any(given) and not all(given):
            raise ValueError("needs per_1000_gets, per_1000_puts and per_gb_out, with 0 for what is free")
        return self


class PricingSettings(Prices):
    """The prices of S3, so that `bucketfront stats` and the metrics show what it costs and what the cache saves.

    Copy them from your provider's list, all three, with 0 for what is free. Without prices, the statistics have
    requests and bytes only. What is kept in S3 has a price as well, which the cache does not change. See
    [metrics.md](metrics.md#money).
    """

    currency: Currency = "USD"
    """The currency of all prices, as three letters."""
