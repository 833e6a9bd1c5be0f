"""The bus on a real server, and what happens when that fails."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from certificates import issue
from redis.asyncio import Redis
from redis_server import SERVERS, RedisServer
from rows import each_row
from stopwatch import HANG_S

from bucketfront.checks.bus import check_bus
from bucketfront.checks.result import CheckVerdict
from bucketfront.config.bus_settings import BusSettings
from bucketfront.config.secret_file import SecretFile
from bucketfront.fleet import redis_bus
from bucketfront.fleet.bus import BusError, EntryId, Member, Position
from bucketfront.fleet.follower import continues
from bucketfront.fleet.redis_bus import RedisBus


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_bus, "CALL_TIMEOUT_S", 0.5)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path, server=request.param)
    yield found
    found.resume()
    found.kill()


@pytest.fixture
async def bus(server: RedisServer) -> AsyncIterator[RedisBus]:
    found = RedisBus(BusSettings(url=server.url))
    yield found
    await found.close()


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Any]:
    found: Redis = Redis.from_url(server.url)
    yield found
    await found.aclose()


async def works(bus: RedisBus) -> EntryId:
    """Use the bus until it works. A server that has just begun needs some time."""
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                return await bus.append("me", [b"x"])
            except BusError:
                await asyncio.sleep(0.01)


async def fails(bus: RedisBus) -> str:
    """Return why all calls fail, each within a bounded time."""
    reasons = set()
    for call in (
        lambda: bus.append("me", [b"x"]), lambda: bus.read(EntryId()), lambda: bus.wait(EntryId(), 0.1), bus.members,
        lambda: bus.register(Member("n", "n", EntryId()), 1.0), lambda: bus.leave("n"),
    ):  # fmt: skip
        async with asyncio.timeout(HANG_S):
            with pytest.raises(BusError) as raised:
                await call()
        reasons.add(str(raised.value))
    return ", ".join(reasons)


async def position(bus: RedisBus) -> Position:
    return (await bus.read(EntryId())).end


async def test_a_server_that_is_away_and_back(server: RedisServer, bus: RedisBus) -> None:
    """Calls fail while the server is killed, and the same bus works with the next one. Its entries are gone (I7)."""
    await bus.append("me", [b"one", b"two"])
    before = await position(bus)
    server.kill()
    assert await fails(bus)
    server.start()
    await works(bus)
    assert not continues(before, await bus.read(before.at))


async def test_a_server_that_hangs(server: RedisServer, bus: RedisBus) -> None:
    """Calls to a stopped server fail after a bounded time, and succeed once it goes on (I20)."""
    await bus.append("me", [b"one"])
    server.pause()
    await fails(bus)
    server.resume()
    await works(bus)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_that_the_client_drops(fails: bool) -> None:
    """A call ends as cancelled although the client drops that, as `asyncio.wait_for` of Python 3.11 may (I20)."""

    async def call() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if fails:
            raise ConnectionError

    task = asyncio.create_task(redis_bus._called(call()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await redis_bus._called(call())


LOSSES = {
    "FLUSHALL": ["FLUSHALL"],
    "DEL": ["DEL bucketfront:stream"],
    "XTRIM": ["XTRIM bucketfront:stream MAXLEN 1"],
    "XTRIM to nothing": ["XTRIM bucketfront:stream MAXLEN 0"],
    "XDEL": ["XDEL bucketfront:stream {last}"],
}


@pytest.mark.parametrize("commands", LOSSES.values(), ids=LOSSES)
async def test_entries_that_are_lost_show(bus: RedisBus, client: Any, commands: list[str]) -> None:
    """A node whose next entries were trimmed, deleted or flushed notices that, also when others follow (I7)."""
    await bus.append("me", [b"one", b"two"])
    before = await position(bus)
    last = await bus.append("other", [b"three"])
    assert continues(before, await bus.read(before.at))
    if commands != LOSSES["XDEL"]:
        await bus.append("other", [b"four"])
    for command in commands:
        await client.execute_command(*command.format(last=last).split())
    assert not continues(before, await bus.read(before.at))
    await bus.append("other", [b"five", b"six"])
    assert not continues(before, await bus.read(before.at))


async def test_entries_that_were_read_may_be_lost(bus: RedisBus, client: Any) -> None:
    """The trimming of what a node has read is no loss for it, also if nothing is left."""
    await bus.append("me", [b"one", b"two"])
    before = await position(bus)
    await client.xtrim("bucketfront:stream", maxlen=0, approximate=False)
    assert continues(before, await bus.read(before.at))
    await bus.append("other", [b"three"])
    assert continues(before, await bus.read(before.at))


async def test_an_old_dump_shows(server: RedisServer, bus: RedisBus, client: Any) -> None:
    """A node notices that the server has begun again with the entries of some time ago (I7)."""
    await bus.append("me", [b"one"])
    await client.save()
    await bus.append("me", [b"two"])
    before = await position(bus)
    server.kill()
    server.start()
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                batch = await bus.read(before.at)
            except BusError:
                await asyncio.sleep(0.01)
            else:
                break
    assert batch.end.added == 1
    assert not continues(before, batch)
    await works(bus)
    await works(bus)
    assert not continues(before, await bus.read(before.at))


async def test_the_stream_is_trimmed_by_age(bus: RedisBus, client: Any) -> None:
    """Entries older than `keep` by the server's clock go when others are added, and younger ones stay."""
    old = int((time.time() - 2 * 86400) * 1000)
    for number in range(300):  # a node of the stream's tree has 100, and whole nodes are trimmed
        await client.xadd("bucketfront:stream", {"from": "x", "notice": "y"}, id=f"{old}-{number + 1}")
    await bus.append("me", [b"new"])
    left = await client.xlen("bucketfront:stream")
    assert left <= 100
    await bus.append("me", [b"new"])
    assert await client.xlen("bucketfront:stream") == left + 1


@pytest.mark.parametrize(
    ("set_up", "reason"),
    [("CONFIG SET maxmemory 1", "OOM|memory"), ("REPLICAOF 127.0.0.1 1", "replica")],
)
async def test_a_server_that_takes_no_writes(bus: RedisBus, client: Any, set_up: str, reason: str) -> None:
    """A server without memory and a replica refuse entries with a reason, and can be read."""
    await bus.append("me", [b"one"])
    await client.execute_command(*set_up.split())
    with pytest.raises(BusError, match=reason):
        await bus.append("me", [b"two"])
    assert (await position(bus)).added == 1


async def test_passwords(server: RedisServer, client: Any, tmp_path: Path) -> None:
    """A user with the rights of docs/fleet.md works. A wrong password fails and is not shown, until it is right."""
    page = Path(__file__).parents[2] / "docs" / "fleet.md"
    rights = page.read_text().partition("The ACL `")[2].partition("`")[0].split()
    await client.execute_command("ACL", "SETUSER", "fleet", "on", ">right-password", *rights)
    file = tmp_path / "password"
    file.write_text("wrong-password\n")
    bus = RedisBus(BusSettings(url=server.url, username="fleet", password=SecretFile.read(file)))
    reason = await fails(bus)
    assert "wrong-password" not in reason
    file.write_text("right-password\n")
    await works(bus)
    await bus.read(EntryId())
    await bus.wait(EntryId(), 0.01)
    await bus.register(Member("n", "n", EntryId()), 10.0)
    assert [member.node for member in await bus.members()] == ["n"]
    await bus.leave("n")
    file.unlink()
    await bus.close()


async def test_tls(tmp_path: Path) -> None:
    """The server's certificate is verified, and it gets one if it asks for it."""
    authority, other = trustme.CA(), trustme.CA()
    theirs, ours = issue(tmp_path, "server", authority, "127.0.0.1"), issue(tmp_path, "client", authority, "node")
    trusted, strange = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(trusted)
    other.cert_pem.write_to_path(strange)
    options = ["--tls-cert-file", theirs.chain, "--tls-key-file", theirs.key, "--tls-ca-cert-file", trusted]
    server = RedisServer(tmp_path, [str(option) for option in options], scheme="rediss")
    try:
        good = BusSettings(url=server.url, ca_bundle=trusted, certificate=ours.chain, key=ours.key)
        for settings in (
            good.model_copy(update={"ca_bundle": strange}), good.model_copy(update={"certificate": None, "key": None}),
            good.model_copy(update={"ca_bundle": None}), good.model_copy(update={"key": tmp_path / "none"}),
        ):  # fmt: skip
            bus = RedisBus(settings)
            assert await fails(bus)
            await bus.close()
        bus = RedisBus(good)
        await works(bus)
        await bus.close()
    finally:
        server.kill()


async def test_a_unix_socket(tmp_path: Path) -> None:
    """A socket file and a number of the database are a URL."""
    path = tmp_path / "bus.sock"
    server = RedisServer(tmp_path, ["--unixsocket", str(path)])
    try:
        bus = RedisBus(BusSettings(url=f"unix://{path}?db=3"))
        await works(bus)
        client: Redis = Redis.from_url(f"redis://127.0.0.1:{server.port}/3")
        assert await client.xlen("bucketfront:stream") == 1
        await client.aclose()
        await bus.close()
    finally:
        server.kill()


async def test_garbage_in_the_register(bus: RedisBus, client: Any) -> None:
    """What other programs write into the register is removed, and hides no node."""
    await bus.register(Member("n", "n", EntryId()), 10.0)
    bad = [
        "garbage",
        "[]",
        b"\xff",
        "[" * 100_000,
        '{"name": "n", "at": "1-1", "until": 1e999}',
        '{"name": "n", "at": 7}',
    ]
    await client.hset("bucketfront:nodes", mapping={f"x{number}": value for number, value in enumerate(bad)})
    assert [member.node for member in await bus.members()] == ["n"]
    assert await client.hlen("bucketfront:nodes") == 1


async def test_a_key_of_another_type(bus: RedisBus, client: Any) -> None:
    """A key that is no stream fails with its reason, and harms nothing."""
    await client.set("bucketfront:stream", "text")
    with pytest.raises(BusError, match="WRONGTYPE"):
        await bus.read(EntryId())
    with pytest.raises(BusError, match="WRONGTYPE"):
        await bus.append("me", [b"x"])


async def test_check_tries_all_that_a_node_does(server: RedisServer, bus: RedisBus, client: Any) -> None:
    """`bucketfront check` names the live nodes, leaves no node behind, and warns of a bus that is of no use."""
    await bus.register(Member("n", "node:8080", EntryId()), 10.0)
    found = await check_bus(BusSettings(url=server.url))
    assert (found.verdict, found.message) == (CheckVerdict.FINE, "live proxies: node:8080")
    assert await client.hlen("bucketfront:nodes") == 1
    await client.execute_command("CONFIG", "SET", "requirepass", "secret")
    found = await check_bus(BusSettings(url=server.url))
    assert found.verdict is CheckVerdict.WARNING
    assert "authenticat" in found.message


@each_row(
    ("set_up", "cure"),
    [
        ("SET bucketfront:stream x", "choose another bus.prefix"),
        ("CONFIG SET maxmemory 1", "raise its maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "bus.url must lead to the primary"),
        ("CONFIG SET requirepass secret", "see bus.username and bus.password"),
        ("ACL SETUSER default -xadd", "docs/fleet.md has the list"),
    ],
)
async def test_cures(tmp_path: Path, set_up: str, cure: str) -> None:
    """`bucketfront check` names the setting or the command that helps."""
    server = RedisServer(tmp_path)
    try:
        client: Any = Redis.from_url(server.url)
        other = RedisBus(BusSettings(url=server.url, prefix="other"))
        await works(other)
        await other.close()
        await client.execute_command(*set_up.split())
        found = await check_bus(BusSettings(url=server.url))
        assert found.verdict is CheckVerdict.WARNING
        assert cure in found.message
        await client.aclose()
    finally:
        server.kill()


@each_row(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis and no Valkey"),
        (b"\x00\xff\x00garbage\r\n", "no Redis and no Valkey"),
        (b"*1\r\n" * 5000, "no Redis and no Valkey"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loads its data"),
        (b":7\r\n", None),
        (b"+OK\r\n", None),
        (b"%1\r\n+a\r\n+b\r\n", None),
    ],
)
async def test_servers_of_other_kinds(reply: bytes, reason: str | None) -> None:
    """What a server of another kind replies is a BusError at most, and the bus takes none of it for an entry."""
    running: set[asyncio.Task[Any]] = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                writer.write(reply * 8)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listener:
        bus = RedisBus(BusSettings(url=f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"))
        async with asyncio.timeout(HANG_S):
            with pytest.raises(BusError, match=reason):
                await bus.read(EntryId())
            for call in (bus.wait(EntryId(), 0.1), bus.members(), bus.leave("n"), bus.append("me", [b"x"])):
                with suppress(BusError):
                    assert not await call
        await bus.close()
        await asyncio.gather(*running)
