"""Restarts of whole processes on sockets that stay open, under clients that send requests without a pause."""

import asyncio
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from proxy_under_test import S3, pattern, until
from relay import Relay
from test_passed_sockets import activated, two, write_config
from wire import connected

pytestmark = pytest.mark.long

__all__ = ["two"]  # a fixture

CLIENTS = 8
RESTARTS = 3
ANSWERED_BETWEEN = 400  # responses of each process, at least


@dataclass
class Load:
    """Clients of one address. `answered` counts whole responses, and `lost` has what went wrong for the others."""

    address: str
    bodies: dict[str, bytes]
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    is_over: bool = False

    async def run(self, target: str) -> None:
        """Send GETs one after another. A response that is the last one of its connection is followed by another one."""
        while not self.is_over:
            try:
                async with connected(self.address) as connection:
                    while not self.is_over:
                        response = await connection.request("GET", target)
                        assert response.is_complete
                        assert response.body == self.bodies[target]
                        self.answered += 1
                        if response.headers.get("Connection") == "close":
                            break
            except (OSError, EOFError, AssertionError) as error:
                self.lost.append(f"{target}: {error!r}")

    async def answers_more(self) -> None:
        enough = self.answered + ANSWERED_BETWEEN
        await until(lambda: self.answered >= enough, within=120)


async def test_a_restart_loses_no_request(
    s3: S3, relay: Relay, tmp_path: Path, two: tuple[socket.socket, socket.socket]
) -> None:
    """While the process stops and another one starts, each request gets its whole response, on open connections too."""
    bodies = {f"/{size}": pattern(size) for size in (100, 20_000, 1_000_000)}
    for target, body in bodies.items():
        s3.put(target[1:], body)
    config = write_config(tmp_path, relay.url, s3.bucket)
    load = Load(f"http://127.0.0.1:{two[0].getsockname()[1]}", bodies)
    targets = list(bodies)
    clients = [asyncio.create_task(load.run(targets[number % len(targets)])) for number in range(CLIENTS)]
    for number in range(1 + RESTARTS):
        async with activated(config, two):
            await load.answers_more()
            load.is_over = number == RESTARTS
            if load.is_over:
                await asyncio.gather(*clients)
    assert load.lost == []
    assert load.answered >= ANSWERED_BETWEEN * (1 + RESTARTS)
