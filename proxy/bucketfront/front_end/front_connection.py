"""A connection in a front end, which answers hits from leases, and leaves everything else to the owner."""

import asyncio
from typing import Any, Protocol

from aiohttp import web

from bucketfront.front_end.lease_table import LeaseTable
from bucketfront.front_end.relay import Relay, RelayState
from bucketfront.front_end.visitor import Visitor
from bucketfront.server.fast_path.fast_connection import Awaited, FastConnection
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.http1.connection_limit import ConnectionLimit


class Owner(Protocol):
    """The door to the owner."""

    def hand_over(self, visitor: Visitor, first: bytes, descriptor: int) -> None:
        """Let the owner serve a connection, of which `first` was read. The caller closes the descriptor."""

    def relay(self, client: "FrontConnection", visitor: Visitor, first: bytes) -> Relay:
        """Let the owner serve a connection of TLS, and return its relay."""


class FrontConnection(FastConnection):
    """`_has_asked` is true while the owner is asked for a lease. `_relay` is set while the owner serves it by a relay.

    `in_vain` counts how often in a row the owner gave the connection back, and no request of it was served here.
    """

    __slots__ = ("_has_asked", "_leases", "_owner", "_relay", "in_vain")

    def __init__(
        self,
        manager: web.Server,
        limit: ConnectionLimit,
        path: FastPath,
        leases: LeaseTable,
        owner: Owner,
        **options: Any,
    ) -> None:
        super().__init__(manager, limit, path, **options)
        self._leases = leases
        self._owner = owner
        self._relay: Relay | None = None
        self._has_asked = False
        self.in_vain = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._socket >= 0:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.set_write_buffer_limits(0)  # so that `drain` waits for the last byte

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._relay is not None:
            self._relay.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._relay is not None and self._relay.state is RelayState.RELAYING:
            self._relay.pass_on(data)
        else:
            super().data_received(data)

    def sends_outside_aiohttp(self) -> bool:
        return self._relay is not None or super().sends_outside_aiohttp()

    def _serve(self, data: bytes) -> bool:
        if super()._serve(data):
            self.in_vain = 0
            return True
        return False

    def _pass_on(self, data: bytes) -> None:
        wanted = self._leases.take_wanted()
        if self.transport is None:
            return
        if self.transport.is_closing():
            self._leave_behind(data)
            return
        if self._socket >= 0 and self.transport.get_write_buffer_size():
            self._hold(data)
            self._sending = self.loop.create_task(self._pass_on_when_sent())
        elif wanted is None or self._has_asked:
            self._leave(data)
        else:
            self._hold(data)
            self._sending, self._has_asked = Awaited(), True
            self._leases.ask(wanted, self._serve_held)

    async def _pass_on_when_sent(self) -> None:
        try:
            await self.drain()
        except ConnectionError:
            return  # the loop reports the loss as well
        self._serve_held()

    def _serve_held(self) -> None:
        """Serve what was held, or leave it to the owner."""
        self._sending = None
        if self.transport is not None and not self.transport.is_closing():
            self._after_response()
        self._has_asked = False

    def _leave(self, first: bytes) -> None:
        """Let the owner serve the connection. It gets `first`. Without TLS no byte may wait to be sent."""
        assert self.transport is not None
        if self._socket >= 0:
            self._owner.hand_over(Visitor(self._peer, self.in_vain), first, self._socket)
            self.transport.abort()  # the owner's copy of the descriptor keeps the connection open
            return
        visitor = Visitor(self._peer, self.in_vain, 0, self.response_fields, self.client_certificate)
        self._sending = Awaited()
        self._stop_head_timer()
        self._relay = self._owner.relay(self, visitor, first)

    def _leave_behind(self, first: bytes) -> None:
        """Let the owner carry out the writes that a client sent behind another request before it left."""
        assert self.transport is not None
        if self.transport.get_extra_info("sslcontext") is None:
            descriptor = self.transport.get_extra_info("socket").fileno()
            if descriptor >= 0:
                self._owner.hand_over(Visitor(self._peer, self.in_vain), first, descriptor)
            return
        visitor = Visitor(self._peer, self.in_vain, 0, self.response_fields, self.client_certificate)
        self._owner.relay(self, visitor, first).close()

    def relay_ended(self, relay: Relay) -> None:
        """Take the connection back from the owner, or close it as the owner has done."""
        if self._relay is not relay:
            return
        self._relay = None
        if self.transport is None:
            return
        if relay.state is RelayState.ENDED:
            self.in_vain += 1
            self.count_request(self.loop.time())
            self._serve_held()
        else:
            self._sending = None
            self.transport.close()
