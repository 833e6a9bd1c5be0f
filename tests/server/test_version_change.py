"""An object is overwritten in the middle of its fill, at every point. No body ever mixes versions (I1)."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from behaviour import Behaviour, OriginRequest
from chaos_client import ChaosClient
from chaos_origin import ChaosOrigin
from history import Outcome, Record, violations
from proxy_under_test import BLOCK, settings_of

from bucketfront.app import App

pytestmark = pytest.mark.long

SIZE = 7 * BLOCK + 100
SIZES = (SIZE, SIZE - BLOCK - 7, SIZE + BLOCK + 7)  # of the new version
# Blocks of the old version that the origin has sent when it is overwritten, by which size.
CUTS = tuple(itertools.product(range(1, 7), SIZES))
CLIENTS = itertools.count()

honoured = pytest.mark.parametrize("ignores_if_match", [False, True], ids=["honoured", "ignored"])


@dataclass(frozen=True, slots=True)
class Way:
    """How bytes arrive.

    They come in parts of `part` bytes. With `breaks_off` the origin ends its response where the object changes.
    `max_size` is the cache's, below SIZE if all bytes must pass through.
    """

    part: int
    breaks_off: bool = False
    max_size: int = 1 << 26

    def last(self, cut: int) -> int:
        """Return the first byte that cannot have arrived. A response that has begun continues in its version."""
        return cut * BLOCK if self.breaks_off else -(-cut * BLOCK // self.part) * self.part


KEPT = {
    "blocks": Way(BLOCK),
    "parts": Way(2 * BLOCK),
    "broken off": Way(8 * BLOCK, breaks_off=True),
}
NOT_KEPT = Way(BLOCK, breaks_off=True, max_size=4 * BLOCK)

kept = pytest.mark.parametrize("way", KEPT.values(), ids=KEPT)
ways = pytest.mark.parametrize("way", [*KEPT.values(), NOT_KEPT], ids=[*KEPT, "not kept"])
buckets = pytest.mark.parametrize("versioned", [False, True], ids=["plain", "versioned"])


class Matrix:
    """A proxy on an origin whose objects are overwritten at given moments. It fetches one part at a time."""

    def __init__(self, origin: ChaosOrigin, app: App, stack: AsyncExitStack) -> None:
        self.origin = origin
        self.records: list[Record] = []
        self._address = app.address
        self._stack = stack

    def client(self) -> ChaosClient:
        made = ChaosClient(self._address, next(CLIENTS), self.records)
        self._stack.push_async_callback(made.close)
        return made

    def overwrite(self, key: str, cut: int, size: int, way: Way, *, ignores_if_match: bool) -> None:
        """Overwrite the object once the origin has sent so many blocks of `key`, in whichever response."""
        self.origin.script = _Overwriting(key, cut * BLOCK, size, way, ignores_if_match)

    def check(self) -> None:
        found = violations(self.records, self.origin.history)
        assert not found, found[0]


@dataclass
class _Overwriting:
    """A script that overwrites the object once, at that byte."""

    key: str
    at: int
    size: int
    way: Way
    ignores_if_match: bool
    is_done: bool = False

    def __call__(self, asked: OriginRequest) -> Behaviour:
        otherwise = Behaviour(ignores_if_match=self.ignores_if_match)
        if asked.method != "GET" or asked.key != self.key or self.is_done:
            return otherwise
        first, _, last = (asked.range or "bytes=0-").removeprefix("bytes=").partition("-")
        start = int(first)
        if not start <= self.at <= int(last or SIZE):
            return otherwise
        self.is_done = True
        if start == self.at:
            return replace(otherwise, swap="before head", swap_size=self.size)
        within = self.at - start
        return replace(otherwise, swap=within, swap_size=self.size, cut_at=within if self.way.breaks_off else None)


Start = Callable[..., Awaitable[Matrix]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def started(way: Way, *, versioned: bool) -> Matrix:
            origin = await stack.enter_async_context(ChaosOrigin(is_versioned=versioned))
            settings = settings_of(
                tmp_path,
                origin.endpoint_url,
                origin.bucket,
                origin={"part_size": way.part, "parallel_parts": 1},
                cache={"max_size": way.max_size},
            )
            return Matrix(origin, await stack.enter_async_context(App(settings)), stack)

        yield started


async def cut_in_the_middle(matrix: Matrix, way: Way, *, ignores_if_match: bool) -> list[Outcome]:
    """Return how downloads end whose object is overwritten at each point."""
    outcomes = []
    for cut, new_size in CUTS:
        key = f"o{cut}-{new_size}"
        old = matrix.origin.store(key, SIZE)
        matrix.overwrite(key, cut, new_size, way, ignores_if_match=ignores_if_match)
        client = matrix.client()
        response = await client.get(key)
        assert response.status == 200, cut
        if response.version == old:
            assert response.received <= (SIZE if response.outcome == "done" else way.last(cut)), cut
        else:
            # aiohttp may drop what it has not handed on when a connection ends, and with that the head's reason.
            assert way.breaks_off, cut
            assert response.outcome == "done", cut
        outcomes.append(response.outcome if response.version == old else "cut")
    matrix.check()
    return outcomes


@honoured
@ways
@buckets
async def test_a_request_whose_head_is_sent(start: Start, ignores_if_match: bool, way: Way, versioned: bool) -> None:
    """It continues in its first version or is cut, and never ends cleanly in another (I1, I3)."""
    matrix = await start(way, versioned=versioned)
    outcomes = await cut_in_the_middle(matrix, way, ignores_if_match=ignores_if_match)
    assert set(outcomes) <= ({"cut", "done"} if versioned else {"cut"})


@honoured
@ways
async def test_in_a_bucket_that_keeps_versions(start: Start, ignores_if_match: bool, way: Way) -> None:
    """The fill is completed by `versionId`, so the body is whole and of the old version (I1)."""
    matrix = await start(way, versioned=True)
    outcomes = await cut_in_the_middle(matrix, way, ignores_if_match=ignores_if_match)
    assert set(outcomes) == {"done"}


@honoured
@kept
@buckets
async def test_requests_whose_head_is_not_sent(start: Start, ignores_if_match: bool, way: Way, versioned: bool) -> None:
    """If the object changes before the first byte that they need, they begin again on the new version (I1)."""
    matrix = await start(way, versioned=versioned)
    await begin_again(matrix, way, ignores_if_match=ignores_if_match)


@honoured
async def test_objects_that_are_not_kept(start: Start, ignores_if_match: bool) -> None:
    """The same if the cache has no room for the object, and its bytes pass through (I1, I16)."""
    matrix = await start(NOT_KEPT, versioned=False)
    await begin_again(matrix, NOT_KEPT, ignores_if_match=ignores_if_match)


async def begin_again(matrix: Matrix, way: Way, *, ignores_if_match: bool) -> None:
    for cut, new_size in CUTS:
        key, first = f"o{cut}-{new_size}", cut * BLOCK
        old = matrix.origin.store(key, SIZE)
        clients = [matrix.client() for _ in range(3)]
        # Before the first response: once that is sent, a fill that has half of the object goes on by itself.
        matrix.overwrite(key, cut, new_size, way, ignores_if_match=ignores_if_match)
        assert (await clients[0].get(key, 0, first)).version == old
        responses = await asyncio.gather(*(client.get(key, first + 10 * n) for n, client in enumerate(clients)))
        for response in responses:
            if matrix.origin.is_versioned and response.version == old:
                assert response.outcome == "done", cut
            elif first < new_size:
                assert (response.outcome, response.version) == ("done", old + 1), cut
            else:
                assert response.status == 416, cut
    matrix.check()
