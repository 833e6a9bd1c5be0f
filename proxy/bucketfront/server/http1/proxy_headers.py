"""Reads the PROXY header with which a front begins a connection, and counts the connections without a valid one.

A header counts only from fronts that are trusted. Without it such a front would itself be the client in all rules, so
its connection is closed. Other clients must send none: theirs would be garbage to TLS and to the HTTP parser.
"""

import asyncio
import logging
import socket
from collections.abc import Iterable

from bucketfront.config.listen_host import UNIX_PEER, plain_address
from bucketfront.server.access.networks import Networks
from bucketfront.server.access.rule import Address
from bucketfront.server.http1.proxy_protocol import MAX_BINARY_BYTES, BadProxyHeader, NoClient, parse

HEADER_TIMEOUT_S = 10.0  # as for the head of a request
REPORT_INTERVAL_S = 60.0  # between two warnings

UNKNOWN_CLIENT = "-"

log = logging.getLogger(__name__)


class ProxyHeaders:
    """The headers of a server's connections. `refused` counts the connections that had no valid one."""

    def __init__(self, fronts: Iterable[str]) -> None:
        self.refused = 0
        self._fronts = Networks(fronts)
        self._next_report = 0.0
        self._reported = 0

    def believe(self, fronts: Iterable[str]) -> None:
        """Trust these networks from now on, and no others."""
        self._fronts = Networks(fronts)

    def are_due(self, peer: str) -> bool:
        """Return whether a connection of the peer begins with a header."""
        return peer == UNIX_PEER or peer in self._fronts

    async def client(self, accepted: socket.socket, peer: str) -> str | None:
        """Read the header, and no byte behind it. Return the client's address, or UNKNOWN_CLIENT.

        Returns None if the connection is to be closed.
        """
        try:
            async with asyncio.timeout(HEADER_TIMEOUT_S):
                named = await _read(accepted)
        except BadProxyHeader as error:
            self._refuse(peer, str(error))
        except TimeoutError:
            self._refuse(peer, f"no whole PROXY header within {HEADER_TIMEOUT_S:g} s")
        except OSError:
            pass  # the front left, as after a check whether the port is open
        else:
            if isinstance(named, NoClient):
                return peer if named is NoClient.FRONT else UNKNOWN_CLIENT
            return plain_address(str(named))
        return None

    def _refuse(self, peer: str, reason: str) -> None:
        self.refused += 1
        if (now := asyncio.get_running_loop().time()) < self._next_report:
            return
        count, self._reported = self.refused - self._reported, self.refused
        self._next_report = now + REPORT_INTERVAL_S
        log.warning(
            "closed %d connections of fronts without a valid PROXY header, the last one from %s: %s",
            *(count, peer, reason),
        )


async def _read(accepted: socket.socket) -> Address | NoClient:
    """Return the client that the header names.

    Raises BadProxyHeader, and OSError if the front left before its first byte.
    """
    held = b""
    while True:
        try:
            seen = accepted.recv(MAX_BINARY_BYTES - len(held), socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(accepted)
            continue
        if not seen and not held:
            raise ConnectionResetError("the front left")
        if not seen:
            raise BadProxyHeader("the connection ended within the PROXY header")
        header = parse(held + seen)
        # Bytes of the header leave the kernel at once, so that the rest wakes the loop, and what follows stays there.
        held += accepted.recv(len(seen) if header is None else header.length - len(held))
        if header is not None:
            return header.client


async def _readable(accepted: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    loop.add_reader(accepted, _settle, arrived)
    try:
        await arrived
    finally:
        loop.remove_reader(accepted)


def _settle(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)
