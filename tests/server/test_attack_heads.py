"""Mutated requests, as an attacker sends them, at both request paths (I22, I24)."""

import asyncio
import os
import random
import re
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import h11
import pytest
from attack_client import Answer, answers_in, exchanged
from attack_heads import Attack, attack, honest
from chaos_origin import ChaosOrigin
from proxy_under_test import Proxy, WallClock, descriptors_open, pattern, settings_of, until
from relay import Relay
from stopwatch import TRIES

from bucketfront.app import App

pytestmark = pytest.mark.long

SLICES = 4
HEADS = int(os.environ.get("ATTACK_HEADS", "100000"))  # of all slices; `make soak` has ten times as many
AT_ONCE = 32  # connections
MAX_CHAIN = 4  # requests on a connection, the last one apart
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LAST_BODY = b"the last one"
DOCUMENTED = {501, 505}  # methods, codings and versions that are not implemented
FEW = 100  # descriptors and tasks, for thousands of connections
ROOM = 64 << 20  # bytes that the allocator may keep


@dataclass(slots=True)
class Siege:
    """Sends attacks to two proxies, one of which has no fast path."""

    seed: int
    fast: Proxy
    ordinary: Proxy
    heads: int = 0
    refused: set[str] = field(default_factory=set)
    number: int = 0  # of the connection, which has its own dice, so that a failure can be had again

    async def run(self, heads: int) -> None:
        """Send attacks until that many have been read by both servers."""
        end = self.heads + heads
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._send_until(end))

    async def _send_until(self, end: int) -> None:
        while self.heads < end:
            await self._send_once()

    async def _send_once(self) -> None:
        """Send one chain of requests to both.

        It is sent again if anything is wrong, because a busy machine may cut a connection. A fault of the proxy stays.
        """
        self.number += 1
        dice = random.Random(self.seed << 32 | self.number)
        chain = _chain(dice, self.number)
        segments = _segments(dice, [*(each.data for each in chain), LAST])
        told = f"seed {self.seed}, connection {self.number}: {segments}"
        for left in reversed(range(TRIES)):
            try:
                answers = await self._answers(chain, segments, told)
                self._judge(chain, answers, told)
            except AssertionError:
                if not left:
                    raise
            else:
                break
        self.heads += min(len(chain), len(answers))

    async def _answers(self, chain: list[Attack], segments: list[bytes], told: str) -> list[Answer]:
        """Return the responses that both have. Raises AssertionError if they differ."""
        may_have_no_body = any(b"HEAD" in each.data for each in chain)
        found = []
        has_ended = False
        for proxy in (self.fast, self.ordinary):
            data, has_ended_here = await exchanged(proxy.address, segments)
            has_ended = has_ended or has_ended_here
            try:
                found.append(answers_in(data, may_have_no_body=may_have_no_body))
            except (h11.RemoteProtocolError, AssertionError) as error:
                raise AssertionError(f"malformed: {data!r}: {told}") from error
        assert has_ended or found[0] == found[1], f"{found}: {told}"
        # A server that waits for a body may or may not respond to a client that ends within it.
        pairs = zip(*found, strict=False)
        return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]

    def _judge(self, chain: list[Attack], answers: list[Answer], told: str) -> None:
        for answer in answers[:-1]:
            assert not answer.closes, f"a response behind the last one: {told}"
        for answer in answers:
            assert answer.status < 500 or answer.status in DOCUMENTED, f"{answer}: {told}"
        if chain[0].is_ambiguous:
            assert len(answers) == 1, f"more than an error: {answers}: {told}"
            assert answers[0].status >= 400, f"accepted: {told}"
            assert answers[0].closes, f"the connection stays: {told}"
        if chain[0].key and answers and answers[0].status >= 400:
            self.refused.add(chain[0].key)

    async def assert_healthy(self, body: bytes) -> None:
        """Assert that an honest client gets the right bytes of both."""
        for proxy in (self.fast, self.ordinary):
            response = await proxy.get("/x")
            assert (response.status, response.body) == (200, body), f"seed {self.seed}"
            response = await proxy.get("/last")
            assert response.body == LAST_BODY, f"seed {self.seed}"


def _chain(dice: random.Random, number: int) -> list[Attack]:
    """Return requests for one connection. One whose response must be known is alone on it."""
    first = attack(dice, number)
    if first.key or first.is_ambiguous:
        return [first]
    chain = [first] if dice.randrange(4) else [honest(dice), first]
    while len(chain) < MAX_CHAIN and not (further := attack(dice, number)).key:
        chain.append(further)
    return chain


def _segments(dice: random.Random, requests: list[bytes]) -> list[bytes]:
    """Return the segments to send: mostly one for each request, else one for all, or two.

    What may have a body comes at once. Else its response depends on whether the body's fault arrives before it.
    """
    data = b"".join(requests)
    if re.search(rb"content-length|transfer|expect", data, re.IGNORECASE) is not None:
        return [data]
    cut = dice.randrange(1, len(data))
    return dice.choice((requests, requests, requests, [data], [data[:cut], data[cut:]]))


@pytest.mark.parametrize("seed", range(1, SLICES + 1))
async def test_mutated_heads(tmp_path: Path, trial: Callable[..., None], seed: int) -> None:
    """Whatever the heads are, each response is well-formed, and both request paths have the same (I24).

    No 5xx but those for what is not implemented. A connection ends after an ambiguous message, whose write does not
    reach the origin. Honest clients get the right bytes, and descriptors, tasks and memory return to the base (I12).
    """
    body = pattern(1000)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(ChaosOrigin())
        origin.store_bytes("x", body, {})
        origin.store_bytes("last", LAST_BODY, {})
        relay = Relay(origin.endpoint_url)
        await relay.start()
        stack.push_async_callback(relay.close)
        clock = WallClock()
        proxies: list[Proxy] = []
        for folder, is_fast in ((tmp_path / "fast", True), (tmp_path / "ordinary", False)):
            folder.mkdir()
            app = App(
                settings_of(folder, relay.url, "bucket", server={"fast_path": is_fast}),
                clock=clock,
                elapsed=clock.passed,
            )
            proxies.append(Proxy(await stack.enter_async_context(app), relay, clock))
        siege = Siege(seed, proxies[0], proxies[1])
        await besiege(siege, body)
        seen = f"{siege.number:,} connections to each path, {len(siege.refused)} writes refused and none of them sent"
        trial("mutated heads", f"both request paths, seed {seed}", siege.heads, seen)


async def besiege(siege: Siege, body: bytes) -> None:
    """Send a slice of all heads, a tenth of them before the base is taken."""
    proxies = siege.fast, siege.ordinary
    await siege.assert_healthy(body)
    await siege.run(HEADS // SLICES // 10)
    await _rest(*proxies)
    base = descriptors_open(), len(asyncio.all_tasks())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    await siege.run(HEADS // SLICES - siege.heads)
    await siege.assert_healthy(body)
    await _rest(*proxies)
    # The pool of connections to the origin and the open files of the cache may have grown.
    await until(lambda: descriptors_open() <= base[0] + FEW and len(asyncio.all_tasks()) <= base[1] + FEW)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < ROOM
    written = {
        seen.target.partition("?")[0].rpartition("/")[2] for seen in siege.fast.relay.seen if seen.method == "PUT"
    }
    assert written.isdisjoint(siege.refused)
    assert written
    assert siege.fast.app.fast_path is not None
    assert siege.fast.app.fast_path.served > HEADS // SLICES // 20


async def _rest(*proxies: Proxy) -> None:
    for proxy in proxies:
        await until(lambda proxy=proxy: not proxy.app.listener.server.connections)  # type: ignore[misc]
        await proxy.settled()
