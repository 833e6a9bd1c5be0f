"""An origin whose bytes do not match its own checksum."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from behaviour import Behaviour, InTurn, OriginRequest
from chaos_client import ChaosClient
from chaos_origin import ChaosOrigin
from proxy_under_test import BLOCK, PART, settings_of

from bucketfront.app import App
from bucketfront.cache.fetch import part_transfer
from bucketfront.keys import ObjectKey
from bucketfront.server.handlers.objects import MAX_MISMATCHES


@dataclass(frozen=True, slots=True)
class Lied:
    """A proxy in front of an origin that sends wrong bytes by `origin.script`, and a client of it."""

    origin: ChaosOrigin
    app: App
    client: ChaosClient

    @property
    def corrupt(self) -> int:
        return self.app.cache.statistics().corrupt_objects


@pytest.fixture
async def lied(tmp_path: Path) -> AsyncIterator[Lied]:
    async with ChaosOrigin() as origin, App(settings_of(tmp_path, origin.endpoint_url, origin.bucket)) as app:
        client = ChaosClient(app.address)
        origin.store("honest", 100)
        assert (await client.get("honest")).outcome == "done"  # its ETag is an MD5: this bucket's are
        yield Lied(origin, app, client)
        await client.close()


async def test_one_lie_is_not_heard(lied: Lied) -> None:
    """One wrong bit in an object of one block costs a second GET in the same request, and nothing else (I1, I15)."""
    lied.origin.store("x", BLOCK)
    lied.origin.script = InTurn(Behaviour(flip_at=BLOCK // 3), key="x")
    record = await lied.client.get("x")
    assert (record.outcome, record.finding.is_all(record.version or 0)) == ("done", True)
    assert lied.corrupt == 1
    asked = len(lied.origin.requests)
    assert (await lied.client.get("x")).outcome == "done"
    assert len(lied.origin.requests) == asked


async def test_lies_without_end(lied: Lied) -> None:
    """An origin whose bytes are always wrong, each time others, is a 502. No wrong byte is sent and none is stored.

    The requests to the origin are bounded (I1, I13).
    """
    lied.origin.store("x", BLOCK)
    flips = itertools.count()
    lied.origin.script = lambda asked: Behaviour(flip_at=next(flips) if asked.key == "x" else None)
    for _ in range(2):
        before = len(lied.origin.requests)
        record = await lied.client.get("x")
        assert (record.outcome, record.status) == ("failed", 502)
        assert len(lied.origin.requests) - before == MAX_MISMATCHES
    assert lied.app.cache.statistics().entries == 1
    lied.origin.script = lambda _: Behaviour()
    assert (await lied.client.get("x")).outcome == "done"


@pytest.mark.parametrize("size", [BLOCK + 100, 3 * PART + 100])
async def test_an_answer_that_has_begun_is_cut(lied: Lied, size: int) -> None:
    """A wrong byte among those already sent cuts the response before its end, so it is never whole (I1, I3)."""
    lied.origin.store("x", size)
    lied.origin.script = InTurn(Behaviour(flip_at=5, trickle=(BLOCK, 0.05)), key="x")
    record = await lied.client.get("x")
    assert record.outcome == "cut"
    assert 0 < record.received < size
    record = await lied.client.get("x")
    assert (record.outcome, record.finding.is_all(record.version or 0)) == ("done", True)


async def test_a_large_object_is_not_kept(lied: Lied, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong byte in an object too large to be held back is found once it is whole.

    The object is then fetched again (I15).
    """
    monkeypatch.setattr(part_transfer, "MAX_HELD_BYTES", PART)
    lied.origin.store("x", 3 * PART + 100)
    lied.origin.script = InTurn(Behaviour(flip_at=PART // 3), key="x")
    await lied.client.get("x")
    await lied.app.cache_assembly.fetch_context.tasks.wait()
    assert lied.corrupt == 1
    record = await lied.client.get("x")
    assert (record.outcome, record.finding.is_all(record.version or 0)) == ("done", True)


async def test_an_etag_that_is_no_md5_among_others(lied: Lied) -> None:
    """If one object's ETag only looks like an MD5, its second fetch is served, and it costs no third one (I10).

    That is remembered when the entry is gone.
    """
    lied.origin.store("x", BLOCK)
    lied.origin.script = lambda asked: Behaviour(etag=f'"{7:032x}"' if asked.key == "x" else None)
    before = len(lied.origin.requests)
    for count in (2, 2):
        assert (await lied.client.get("x")).outcome == "done"
        assert len(lied.origin.requests) - before == count
    assert lied.corrupt == 1
    await lied.app.cache.purge([ObjectKey(lied.origin.bucket, "x")])
    assert (await lied.client.get("x")).outcome == "done"
    assert len(lied.origin.requests) - before == 3


async def test_etags_that_are_no_md5s(tmp_path: Path) -> None:
    """If the ETags of a bucket only look like MD5s, its objects are served and stored as usual."""

    def encrypted(asked: OriginRequest) -> Behaviour:
        return Behaviour(etag=f'"{abs(hash(asked.key)):032x}"')

    async with ChaosOrigin(script=encrypted) as origin:
        for key in ("x", "y"):
            origin.store(key, BLOCK)
        async with App(settings_of(tmp_path, origin.endpoint_url, origin.bucket)) as app:
            client = ChaosClient(app.address)
            for key in ("x", "y", "x", "y"):
                assert (await client.get(key)).outcome == "done"
            assert [request.key for request in origin.requests] == ["x", "x", "y"]
            await client.close()
