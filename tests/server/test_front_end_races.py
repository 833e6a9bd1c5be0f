"""Writes, deletes and purges against hits of front ends that hold leases: each change is a race."""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from stopwatch import HANG_S
from wire import Connection, connected

RACES = int(os.environ.get("RACES", "600"))  # changes; make soak has 100,000
FRONT_ENDS = 4
KEYS = 4
READERS = 4  # of each key


@dataclass
class Contested:
    """An object. `states` are the bodies that it had in turn, None while it was absent. `confirmed` is the last
    one whose change has had its response.
    """

    key: str
    states: list[bytes | None] = field(default_factory=list)
    confirmed: int = 0
    reads: int = 0
    is_over: bool = False

    async def read(self, client: Connection) -> None:
        """Read until the end. No response has a state before the one that was confirmed before its request."""
        while not self.is_over:
            since = self.confirmed
            response = await client.request("GET", f"/{self.key}")
            assert response.status in (200, 404)
            body = response.body if response.status == 200 else None
            assert body in self.states[since:], f"{self.key} was {body!r} after {self.states[since:]!r}"
            self.reads += 1

    async def change(self, proxy: Proxy, s3: S3, client: Connection, kind: str) -> None:
        """Change the object, and wait for the response."""
        body = None if kind == "delete" else b"%d" % len(self.states)
        self.states.append(body)
        if body is None:
            assert (await client.request("DELETE", f"/{self.key}")).status == 204
        elif kind == "put":
            headers = {"Content-Length": str(len(body))}
            assert (await client.request("PUT", f"/{self.key}", headers, body)).status in (200, 201)
        else:
            await asyncio.to_thread(s3.put, self.key, body)
            wish = f'{{"paths": ["/{self.key}"]}}'.encode()
            assert (await proxy.admin("POST", "/api/v1/purge", wish)).status == 200
        self.confirmed = len(self.states) - 1


@pytest.mark.long
async def test_no_stale_byte_after_a_change(start: StartProxy, s3: S3) -> None:
    """Whatever races with a change, no response that begins after the change's has what was before (I5, I6, I36)."""
    proxy = await start(server={"workers": FRONT_ENDS})
    contested = [Contested(f"object{number}") for number in range(KEYS)]
    rng = random.Random(RACES)
    async with AsyncExitStack() as stack:

        async def client() -> Connection:
            return await stack.enter_async_context(connected(proxy.address))

        readers = []
        for one in contested:
            await one.change(proxy, s3, await client(), "put")
            readers += [asyncio.create_task(one.read(await client())) for _ in range(READERS)]

        async def race(one: Contested) -> None:
            writer = await client()
            for _ in range(RACES // KEYS):
                enough = one.reads + rng.randrange(2 * READERS)
                async with asyncio.timeout(HANG_S):
                    while one.reads < enough:  # noqa: ASYNC110 - so that front ends have leases again
                        await asyncio.sleep(0)
                await one.change(proxy, s3, writer, rng.choice(("put", "put", "purge", "delete")))
            one.is_over = True

        await asyncio.gather(*map(race, contested))
        await asyncio.gather(*readers)
    assert proxy.figures["hits"] > RACES // 4
