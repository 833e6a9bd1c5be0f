"""Hit ratios and savings, as the admin API has them."""

from pydantic import BaseModel, ConfigDict


class HitRatios(BaseModel):
    """Shares from 0 to 1. They are null without a request, or without a byte."""

    model_config = ConfigDict(extra="forbid")

    requests: float | None
    bytes: float | None


class Savings(BaseModel):
    """Reads and bytes that S3 did not have to serve, and the money of both. Negative if the cache cost more."""

    model_config = ConfigDict(extra="forbid")

    requests: int
    bytes: int
    money: float | None


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
