"""The connections of the admin port."""

from collections.abc import Callable
from typing import Any

from bucketfront.server.http1.connection import Connection


def _nothing() -> None:
    """Do nothing, because no handler waits for the end of the connection."""


class AdminConnection(Connection):
    """A connection that makes way also while a head arrives, because a slow client must not keep probes out.

    `on_lost` is called once the client has left or sends no more, so that a stream ends at once. A handler sets it.
    """

    __slots__ = ("on_lost",)

    on_lost: Callable[[], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_lost = _nothing

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.on_lost()

    def end_received(self) -> bool:
        stays_open = super().end_received()
        self.on_lost()
        return stays_open

    def idle_since(self) -> float | None:
        return None if self.is_responding else self.last_used
