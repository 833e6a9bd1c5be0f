"""A connection of TLS that the owner serves: the front end passes the deciphered bytes on, and the responses back.

Theory of operation
-------------------
The descriptor of such a connection is of no use to the owner, because the keys are here. So the owner gets one end of
a pair of sockets, and serves it like a connection of TCP. Each direction pauses while the other end takes nothing.

The owner gives the connection back with the number of bytes that it has received. If the front end has sent more by
then, the owner goes on. Else the front end ends its side of the pair and holds what the client sends. The owner answers
the end with its own, behind the last byte of its last response, and the connection is the front end's again.

    RELAYING --end--> LOST: the owner has closed the connection
    RELAYING --give_back--> ENDING --end--> ENDED
"""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

MAX_BUFFER_BYTES = 64 << 10  # that wait for one end, before the other one pauses


class RelayState(Enum):
    RELAYING = auto()
    ENDING = auto()
    ENDED = auto()
    LOST = auto()


TRANSITIONS: dict[RelayState, frozenset[RelayState]] = {
    RelayState.RELAYING: frozenset({RelayState.ENDING, RelayState.LOST}),
    RelayState.ENDING: frozenset({RelayState.ENDED, RelayState.LOST}),
    RelayState.ENDED: frozenset(),
    RelayState.LOST: frozenset(),
}


class RelayedClient(Protocol):
    """The connection of the client."""

    @property
    def transport(self) -> asyncio.Transport | None: ...

    async def drain(self) -> None: ...

    def pause_transport_reading(self) -> None: ...

    def resume_transport_reading(self) -> None: ...

    def relay_ended(self, relay: "Relay") -> None:
        """Take the connection back if the relay has ENDED, else close it."""


def _ignore() -> None:
    """Do nothing at the end of a relay."""


class Relay(asyncio.Protocol):
    """The front end's side of the pair. `first` are the bytes of the client with which the relay begins."""

    def __init__(self, client: RelayedClient, first: bytes) -> None:
        self.state = RelayState.RELAYING
        self.on_end: Callable[[], object] = _ignore
        self._client = client
        self._first = first
        self._sent = 0
        self._is_closed = False  # by this end
        self._transport: asyncio.Transport | None = None
        self._draining: asyncio.Task[None] | None = None

    async def begin(self, end: socket.socket) -> None:
        """Relay by this end of the pair."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self, end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(MAX_BUFFER_BYTES)
        first, self._first = self._first, b""
        self.pass_on(first)
        if self._is_closed:
            transport.close()

    def pass_on(self, data: bytes) -> None:
        """Send bytes of the client to the owner."""
        assert self.state is RelayState.RELAYING
        if self._transport is None:
            self._first += data
            return
        self._sent += len(data)
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._client.pause_transport_reading()

    def resume_writing(self) -> None:
        self._client.resume_transport_reading()

    def data_received(self, data: bytes) -> None:
        client = self._client.transport
        if client is None or client.is_closing():
            self.close()
            return
        client.write(data)
        if client.get_write_buffer_size() > MAX_BUFFER_BYTES and self._draining is None:
            assert self._transport is not None
            self._transport.pause_reading()
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._client.drain()
        except ConnectionError:
            self.close()
            return
        finally:
            self._draining = None
        if self._transport is not None:
            self._transport.resume_reading()

    def give_back(self, received: int) -> None:
        """End the relay if the owner has received everything that was sent."""
        if self.state is not RelayState.RELAYING or self._transport is None or received != self._sent:
            return
        self._become(RelayState.ENDING)
        self._transport.write_eof()

    def eof_received(self) -> bool:
        return False  # the transport closes, and `connection_lost` follows

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        if self._draining is not None:
            self._draining.cancel()
        is_ended = self.state is RelayState.ENDING and exc is None
        self._become(RelayState.ENDED if is_ended else RelayState.LOST)
        self.on_end()
        self._client.relay_ended(self)

    def close(self) -> None:
        """End the relay because the client is lost. What it has sent still reaches the owner."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()

    def _become(self, state: RelayState) -> None:
        assert state in TRANSITIONS[self.state], f"a relay cannot become {state.name} from {self.state.name}"
        self.state = state
