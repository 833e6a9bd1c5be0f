"""What operators see of the bus: whether it works, and what this proxy has announced and learnt."""

from pydantic import BaseModel, ConfigDict

from bucketfront.fleet.fleet import Fleet


class BusFigures(BaseModel):
    """The bus of several proxies: see docs/fleet.md#the-bus. Counts are since the start.

    `failure` is why its last calls failed, and null if they did not. `lag` is in seconds since the last time at which
    all changes on other proxies were known. `queued` notices are not on the bus yet. `gaps` are the times that notices
    were missed.
    """

    model_config = ConfigDict(extra="forbid")

    failure: str | None
    lag: float
    queued: int
    sent: int
    received: int
    gaps: int


def bus_figures(fleet: Fleet) -> BusFigures:
    figures = fleet.figures
    return BusFigures(
        failure=fleet.failure or None,
        lag=figures.lag,
        queued=figures.queued,
        sent=figures.sent,
        received=figures.follower.received,
        gaps=figures.follower.gaps,
    )
