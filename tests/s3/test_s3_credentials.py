"""When credentials are loaded, and what a source that fails does."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiobotocore.credentials import AioCredentials, AioRefreshableCredentials
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from fakes import FakeClock
from stopwatch import HANG_S

from bucketfront.s3 import credentials
from bucketfront.s3.credentials import RELOAD_INTERVAL_S, RENEWAL_INTERVAL_S, OriginCredentials

SECRET = "secret-4711"


class Source:
    """Credentials by number: the n-th load brings the id `n`. They live for `life` after the load, None for ever."""

    def __init__(self, clock: FakeClock, life: timedelta | None = None) -> None:
        self._clock = clock
        self._life = life
        self.loads = 0
        self.fault: Exception | None = None
        self.gate: asyncio.Event | None = None  # each load waits for it

    def time(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now, UTC)

    async def __call__(self) -> Any:
        self.loads += 1
        number = self.loads
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if self._life is None:
            return AioCredentials(str(number), SECRET)
        return AioRefreshableCredentials(
            str(number), SECRET, "token", self.time() + self._life, _never, "test", time_fetcher=self.time
        )


async def _never() -> dict[str, str]:
    raise AssertionError("botocore refreshed the credentials itself")


async def started(source: Source, clock: FakeClock) -> OriginCredentials:
    found = OriginCredentials(source, clock)
    return await found.load_credentials()


async def current(found: OriginCredentials) -> str:
    return str((await found.get_frozen_credentials()).access_key)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000.0)


@pytest.fixture
def source(clock: FakeClock) -> Source:
    return Source(clock)


@pytest.fixture
def expiring(clock: FakeClock) -> Source:
    return Source(clock, timedelta(hours=1))


async def test_a_refusal_loads_once(source: Source, clock: FakeClock) -> None:
    """I35: all requests that were refused with the same credentials wait for one load."""
    found = await started(source, clock)
    refused = await found.get_frozen_credentials()
    assert await asyncio.gather(*(found.replaced(refused) for _ in range(10))) == [True] * 10
    assert (await current(found), source.loads) == ("2", 2)


async def test_refusals_in_a_row(source: Source, clock: FakeClock) -> None:
    """I35: between two loads for refusals passes RELOAD_INTERVAL_S, however many requests are refused."""
    found = await started(source, clock)
    for _ in range(5):
        await found.replaced(await found.get_frozen_credentials())
    assert source.loads == 2
    clock.advance(RELOAD_INTERVAL_S)
    assert await found.replaced(await found.get_frozen_credentials())
    assert source.loads == 3


@pytest.mark.parametrize("fault", [OSError(SECRET), ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET)])
async def test_a_source_that_fails(
    source: Source, clock: FakeClock, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """I31: the credentials before a failed load stay. The log has the kind of the fault and no secret (I28)."""
    found = await started(source, clock)
    refused = await found.get_frozen_credentials()
    source.fault = fault
    assert not await found.replaced(refused)
    assert await current(found) == "1"
    assert type(fault).__name__ in caplog.text
    assert SECRET not in caplog.text
    source.fault = None
    clock.advance(RELOAD_INTERVAL_S)
    assert await found.replaced(refused)


async def test_a_source_that_hangs(source: Source, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """I20: a load has a deadline, and requests wait no longer than for that."""
    monkeypatch.setattr(credentials, "LOAD_TIMEOUT_S", 0.01)
    found = await started(source, clock)
    refused = await found.get_frozen_credentials()
    source.gate = asyncio.Event()
    async with asyncio.timeout(HANG_S):
        assert not await found.replaced(refused)
    assert await current(found) == "1"


async def test_renewal_before_expiry(expiring: Source, clock: FakeClock) -> None:
    """I31: credentials that expire soon are loaded beside the requests, which do not wait."""
    found = await started(expiring, clock)
    assert await current(found) == "1"
    clock.advance(50 * 60)
    expiring.gate = asyncio.Event()
    for _ in range(3):
        assert await current(found) == "1"
    await asyncio.sleep(0)
    assert expiring.loads == 2
    expiring.gate.set()
    await settled(found, lambda: current_is(found, "2"))


async def test_renewals_that_fail(expiring: Source, clock: FakeClock) -> None:
    """I31: a source that fails before the expiry is asked again each RENEWAL_INTERVAL_S, and the old ones are used."""
    found = await started(expiring, clock)
    await current(found)
    expiring.fault = OSError()
    clock.advance(50 * 60)
    for number in range(1, 4):
        for _ in range(3):
            assert await current(found) == "1"
            await asyncio.sleep(0)
        assert expiring.loads == 1 + number
        clock.advance(RENEWAL_INTERVAL_S)


async def test_expired_credentials(expiring: Source, clock: FakeClock) -> None:
    """A request waits for the load if the credentials have expired. If that fails, S3 decides about the old ones."""
    found = await started(expiring, clock)
    await current(found)
    clock.advance(61 * 60)
    assert await current(found) == "2"
    clock.advance(61 * 60)
    expiring.fault = OSError()
    assert await current(found) == "2"


async def test_credentials_that_a_wrong_clock_takes_for_expired(clock: FakeClock) -> None:
    """I35: new credentials are used although this machine's clock is past their expiry, because S3 has its own."""

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now, UTC)

    past = now() - timedelta(hours=1)
    new = {"access_key": "new", "secret_key": SECRET, "token": "token", "expiry_time": past.isoformat()}

    async def refresh() -> dict[str, str]:
        return new

    async def load() -> AioRefreshableCredentials:
        return AioRefreshableCredentials("old", SECRET, "token", past, refresh, "test", time_fetcher=now)

    found = await OriginCredentials(load, clock).load_credentials()
    assert await current(found) == "new"


async def test_no_credentials_at_the_start(clock: FakeClock) -> None:
    """I31: a source without credentials fails requests, and is asked again until it has some."""
    answers: list[AioCredentials | None] = [None, None, AioCredentials("late", SECRET)]

    async def load() -> AioCredentials | None:
        return answers.pop(0)

    found = await OriginCredentials(load, clock).load_credentials()
    for _ in range(3):
        with pytest.raises(NoCredentialsError):
            await found.get_frozen_credentials()
    clock.advance(RELOAD_INTERVAL_S)
    assert await found.get_frozen_credentials() == ReadOnlyCredentials("late", SECRET, None)


async def test_a_cancelled_request(source: Source, clock: FakeClock) -> None:
    """I12: a request that is cancelled leaves the load to the others."""
    found = await started(source, clock)
    refused = await found.get_frozen_credentials()
    source.gate = asyncio.Event()
    waiting = [asyncio.create_task(found.replaced(refused)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    source.gate.set()
    assert await waiting[1]
    assert source.loads == 2


async def settled(found: OriginCredentials, holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while not await holds():  # noqa: ASYNC110 - the load has no event
            await asyncio.sleep(0)
    await found.close()


async def current_is(found: OriginCredentials, name: str) -> bool:
    return await current(found) == name
