"""A connection in the owner that a front end has handed over."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from bucketfront.front_end.visitor import Visitor
from bucketfront.server.fast_path.fast_connection import FastConnection, FastConnectionServer
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.send.sender import abort

GiveBack = Callable[["HandedConnection"], None]
Make = Callable[[Visitor, bytes, GiveBack], "HandedConnection"]
"""Makes a connection for a visitor, with the bytes that were read of it, and what gets it back."""

MAX_IN_VAIN = 6  # 64 hits in a row are enough in any case

log = logging.getLogger(__name__)


class HandedConnection(FastConnection):
    """It begins with `first`, the bytes that the front end has read.

    A plain hit shows that the front end can serve the client again. After it `give_back` gets the connection. One that
    was given back in vain needs more hits in a row. No hit is served while `may_serve_hits` returns False.
    """

    __slots__ = ("_first", "_give_back", "_hits", "_may_serve_hits", "received", "visitor")

    def __init__(
        self,
        manager: web.Server,
        limit: ConnectionLimit,
        path: FastPath,
        visitor: Visitor,
        first: bytes,
        give_back: GiveBack,
        may_serve_hits: Callable[[], bool],
        **options: Any,
    ) -> None:
        super().__init__(manager, limit, path, **options)
        self.visitor = visitor
        self.received = 0
        self._hits = 0  # of the fast path in a row
        self._first = first
        self._give_back = give_back
        self._may_serve_hits = may_serve_hits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.visitor.relay is not None:
            self.leave_to_transport()  # only that counts what arrives, and adds the fields of TLS
            self.response_fields, self.client_certificate = self.visitor.fields, self.visitor.certificate
            self.end_heads_with(self.response_fields)
        first, self._first = self._first, b""
        if not first:
            return  # a relay brings its first bytes later
        try:
            self.data_received(first)
        except Exception:
            log.exception("a request failed with an unexpected error")
            abort(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)

    def _serve(self, data: bytes) -> bool:
        is_served = self._may_serve_hits() and super()._serve(data)
        self._hits = self._hits + 1 if is_served else 0
        if is_served:
            self._offer()
        return is_served

    def _after_response(self) -> None:
        super()._after_response()
        self._offer()

    def _offer(self) -> None:
        is_free = not self.sends_outside_aiohttp() and self.is_at_rest() and not self.has_ended
        if is_free and self._hits >= 1 << min(self.visitor.in_vain, MAX_IN_VAIN):
            self._give_back(self)


def handed_maker(connections: FastConnectionServer, may_serve_hits: Callable[[], bool]) -> Make:
    """Return what makes the connections that front ends hand over."""

    def make(visitor: Visitor, first: bytes, give_back: GiveBack) -> HandedConnection:
        return HandedConnection(
            connections, connections.limit, connections.path, visitor, first, give_back, may_serve_hits,
            **connections.connection_options,
        )  # fmt: skip

    return make
