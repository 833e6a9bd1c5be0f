"""Processes that serve hits beside the owner of the cache: to clients all of them are one proxy (I21, I36)."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bucketfront_process import bucketfront
from certificates import localhost_certificate
from front_ends_under_test import WORKERS, front_ends, warm
from process_tree import descendants, has_ended
from proxy_under_test import S3, Proxy, StartProxy, WallClock, pattern
from stopwatch import HANG_S
from wire import Connection, connected, message

from bucketfront.admin.reloader import ReloadVerdict
from bucketfront.config.loader import LoadedConfig
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.front_end import front_ends as front_ends_module
from bucketfront.front_end import lease_grants
from bucketfront.front_end.nursery import Nursery
from bucketfront.server.http1 import descriptors

CONNECTIONS = 8  # enough that each front end has some, whichever the kernel chooses
KIB = 1 << 10
SIZES = (0, 1, 1000, 16 * KIB, 100 * KIB, 300_000)  # from memory, in one write, by sendfile, in a burst


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def requests_counted(proxy: Proxy) -> float:
    """Return how many requests the metrics have."""
    lines = (await proxy.admin("GET", "/metrics")).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("bucketfront_requests_total{"))


async def test_hits_need_no_owner(two: Proxy, s3: S3) -> None:
    """Hits of each size are the object's bytes, whole and in part, and none of them opens a connection of the owner."""
    bodies = {f"/{size}": pattern(size) for size in SIZES}
    for target, body in bodies.items():
        s3.put(target[1:], body)
    await warm(two, *bodies)
    async with two.connection() as connection:
        for _ in range(3):
            for target, body in bodies.items():
                response = await connection.request("GET", target)
                assert (response.status, response.body) == (200, body)
                assert response.cache_status.startswith("hit")
                if body:
                    part = await connection.request("GET", target, {"Range": "bytes=-500"})
                    assert (part.status, part.body) == (206, body[-500:])
                assert (await connection.request("HEAD", target)).headers["Content-Length"] == str(len(body))
        await two.until(lambda: two.app.connection_limit.total == 1)
        assert two.app.connection_limit.open == 0


async def test_a_connection_moves_with_its_requests(two: Proxy, s3: S3) -> None:
    """One connection has hits, misses, writes and errors in turn, in order, and rests at a front end after a hit."""
    s3.put("hit", b"hit")
    await warm(two, "/hit")
    async with two.connection() as connection:
        for number in range(5):
            assert (await connection.request("GET", "/hit")).body == b"hit"
            body = b"%d" % number
            put = await connection.request("PUT", f"/written{number}", {"Content-Length": "1"}, body)
            assert put.status == 201
            assert (await connection.request("GET", f"/written{number}")).body == body
            assert (await connection.request("GET", "/absent")).status == 404
        for _ in range(70):
            assert (await connection.request("GET", "/hit")).body == b"hit"
        await two.until(lambda: two.app.connection_limit.total == 1)
        assert two.app.connection_limit.open == 0


async def test_pipelined_requests_keep_their_order(two: Proxy, s3: S3) -> None:
    """Requests that arrive in one piece, hits among misses, have their responses in order."""
    bodies = {f"/{number}": pattern(20_000, seed=number) for number in range(6)}
    for target, body in bodies.items():
        s3.put(target[1:], body)
    await warm(two, "/1", "/3", "/5")
    async with two.connection() as connection:
        for _ in range(3):
            await connection.send(b"".join(message("GET", target, None, None) for target in bodies))
            for body in bodies.values():
                assert (await connection.response()).body == body


async def test_requests_are_counted_once(two: Proxy, s3: S3) -> None:
    """The metrics have each request once, in the scrape behind it, whichever process served it (honest figures)."""
    s3.put("x", b"data")
    await warm(two, "/x")
    before = await requests_counted(two)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(two.address)) for _ in range(CONNECTIONS)]
        for number in range(1, 6):
            await asyncio.gather(*(client.request("GET", "/x") for client in clients))
            assert await requests_counted(two) == before + number * CONNECTIONS
    lines = [line for line in two.log if line["path"] == "/x"]
    assert len(lines) == 5 * CONNECTIONS + 1
    assert {line["cache"].partition(";")[0] for line in lines[1:]} == {"hit"}
    assert two.figures["hits"] == 5 * CONNECTIONS


@pytest.mark.parametrize("change", ["purge", "put", "delete", "soft"])
async def test_no_response_is_stale_after_a_change(two: Proxy, s3: S3, change: str) -> None:
    """No response that begins after the response to a change has what was changed, on any connection.

    (docs/invariants.md: read your writes; all processes are one)
    """
    s3.put("x", b"0")
    await warm(two, "/x")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(two.address)) for _ in range(CONNECTIONS)]
        for number in range(1, 30):
            await asyncio.gather(*(client.request("GET", "/x") for client in clients))
            body = b"%d" % number
            if change == "put":
                assert (await two.request("PUT", "/x", {"Content-Length": str(len(body))}, body)).status in (200, 201)
            elif change == "delete":
                assert (await two.request("DELETE", "/x")).status == 204
            else:
                s3.put("x", body)
                wish = b'{"paths": ["/x"], "soft": %s}' % (b"true" if change == "soft" else b"false")
                assert (await two.admin("POST", "/api/v1/purge", wish)).status == 200
            responses = await asyncio.gather(*(client.request("GET", "/x") for client in clients))
            expected = (404, None) if change == "delete" else (200, body)
            found = {(one.status, None if change == "delete" else one.body) for one in responses}
            assert found == {expected}
            if change == "delete":
                s3.put("x", body)
                await two.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
        assert two.app.connection_limit.refused == 0


async def test_readers_never_go_back(two: Proxy, s3: S3) -> None:
    """While one client writes versions, each other one sees none that is older than the newest that was confirmed."""
    confirmed, ended = 0, asyncio.Event()
    s3.put("x", b"0")
    await warm(two, "/x")

    async def read(client: Connection) -> int:
        count = 0
        while not ended.is_set():
            since = confirmed
            response = await client.request("GET", "/x")
            assert response.status == 200
            assert int(response.body) >= since
            count += 1
        return count

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(two.address)) for _ in range(CONNECTIONS)]
        readers = [asyncio.create_task(read(client)) for client in clients]
        async with two.connection() as writer:
            for number in range(1, 60):
                body = b"%d" % number
                response = await writer.request("PUT", "/x", {"Content-Length": str(len(body))}, body)
                assert response.status in (200, 201)
                confirmed = number
        ended.set()
        assert min(await asyncio.gather(*readers)) > 0


async def test_a_stopped_front_end_holds_no_purge(two: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front end that does not acknowledge is ended, so that a purge is complete when its response comes."""
    monkeypatch.setattr(lease_grants, "ACKNOWLEDGE_TIMEOUT_S", 1.0)  # the other one keeps it on a busy machine too
    s3.put("x", b"old")
    await warm(two, "/x")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(two.address)) for _ in range(CONNECTIONS)]
        for _ in range(3):
            await asyncio.gather(*(client.request("GET", "/x") for client in clients))
        first, second = front_ends(two)
        os.kill(first, signal.SIGSTOP)
        s3.put("x", b"new")
        assert (await two.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')).status == 200
        assert first not in front_ends(two)
        responses = await asyncio.gather(*(client.request("GET", "/x") for client in clients), return_exceptions=True)
        bodies = [one.body for one in responses if not isinstance(one, BaseException)]
        assert set(bodies) <= {b"new"}
        await two.until(lambda: len(front_ends(two)) == WORKERS)
        assert first not in front_ends(two)
        assert second in front_ends(two)
        assert (await two.get("/x")).body == b"new"


async def test_a_killed_front_end_costs_its_own_connections(two: Proxy, s3: S3) -> None:
    """After `kill -9` of a front end the others' connections go on, new ones are served, and another one starts."""
    s3.put("x", b"data")
    await warm(two, "/x")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(two.address)) for _ in range(4 * CONNECTIONS)]
        await asyncio.gather(*(client.request("GET", "/x") for client in clients))
        os.kill(front_ends(two)[0], signal.SIGKILL)
        responses = await asyncio.gather(*(client.request("GET", "/x") for client in clients), return_exceptions=True)
        served = [one for one in responses if not isinstance(one, BaseException)]
        assert {(one.status, one.body) for one in served} == {(200, b"data")}
        for _ in range(CONNECTIONS):
            assert (await two.get("/x")).body == b"data"
        await two.until(lambda: len(front_ends(two)) == WORKERS)


async def test_a_killed_nursery_is_replaced(two: Proxy, s3: S3, nursery: Callable[[], Nursery]) -> None:
    """After `kill -9` of the nursery, which ends all front ends, others start and serve."""
    s3.put("x", b"data")
    await warm(two, "/x")
    before = front_ends(two)
    os.kill(nursery().process, signal.SIGKILL)
    await two.until(lambda: len(front_ends(two)) == WORKERS and not set(front_ends(two)) & set(before))
    for _ in range(CONNECTIONS):
        assert (await two.get("/x")).body == b"data"


async def test_a_stop_leaves_nothing(two: Proxy, s3: S3) -> None:
    """After a stop no front end runs, and no descriptor of a file of the cache is open."""
    s3.put("x", pattern(100_000))
    await warm(two, "/x")
    async with two.connection() as connection:
        await connection.request("GET", "/x")
        processes = front_ends(two)
        await two.stop()
    assert not any(map(is_running, processes))


async def test_a_revoked_file_takes_space_until_its_response_ends(two: Proxy, s3: S3) -> None:
    """The budget counts a purged object as long as a front end sends it (docs/invariants.md#space-bound)."""
    body = pattern(8 << 20)
    s3.put("large", body)
    await warm(two, "/large")
    entries = two.app.cache_assembly.entries
    async with two.connection() as warmed:
        assert (await warmed.request("GET", "/large")).body == body
        await warmed.send(message("GET", "/large", None, None))
        head = await warmed.head()
        assert head.cache_status.startswith("hit")
        assert (await two.admin("POST", "/api/v1/purge", b'{"all": true}')).status == 200
        assert entries.budget.used >= len(body)
        async with asyncio.timeout(60):
            assert await warmed.reader.readexactly(len(body)) == body
        await two.until(lambda: entries.budget.used < len(body))


LIMIT = 12  # connections


@pytest.fixture
async def limited(start_two: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Two front ends, and few connections for both."""
    monkeypatch.setattr(descriptors, "shares", lambda limit, _: descriptors.DescriptorShares(limit // 8, LIMIT))
    s3.put("x", b"data")
    proxy = await start_two()
    assert (await proxy.get("/x")).status == 200
    await proxy.until(lambda: proxy.app.connection_limit.total == 0)
    return proxy


async def statuses(stack: AsyncExitStack, proxy: Proxy, count: int) -> list[int]:
    """Return the statuses of a request on each of `count` connections, which stay open as long as the stack."""
    clients = [await stack.enter_async_context(connected(proxy.address)) for _ in range(count)]
    return [one.status for one in await asyncio.gather(*(client.request("GET", "/x") for client in clients))]


async def test_one_front_end_may_have_all_connections(limited: Proxy) -> None:
    """If the others have none, a front end takes as many connections as all of them may have, and no more."""
    total = limited.app.connection_limit
    async with AsyncExitStack() as stack:
        os.kill(front_ends(limited)[0], signal.SIGSTOP)
        assert await statuses(stack, limited, LIMIT) == [200] * LIMIT
        assert total.total == LIMIT
        (refused,) = await statuses(stack, limited, 1)
        assert refused == 503
        assert total.total == LIMIT
        os.kill(front_ends(limited)[0], signal.SIGCONT)
    await limited.until(lambda: total.total == 0)


async def test_the_limit_holds_for_the_sum(limited: Proxy) -> None:
    """However connections spread over the processes, there are never more of them than the limit."""
    for _ in range(5):
        async with AsyncExitStack() as stack:
            found = await statuses(stack, limited, 3 * LIMIT)
            assert LIMIT // 2 < found.count(200) <= LIMIT
            assert set(found) == {200, 503}
            assert limited.app.connection_limit.total <= LIMIT
        await limited.until(lambda: limited.app.connection_limit.total == 0)


async def test_a_killed_front_end_frees_its_places(limited: Proxy) -> None:
    """The connections of a front end that was killed count no more."""
    async with AsyncExitStack() as stack:
        await statuses(stack, limited, LIMIT)
        for process in front_ends(limited):
            os.kill(process, signal.SIGKILL)
        await limited.until(lambda: limited.app.connection_limit.total == 0)
        await limited.until(lambda: len(front_ends(limited)) == WORKERS)
        assert await statuses(stack, limited, LIMIT) == [200] * LIMIT


async def test_an_idle_connection_of_another_front_end_makes_way(limited: Proxy) -> None:
    """At the limit a new connection is served as soon as any front end has an idle one."""
    async with AsyncExitStack() as stack:
        os.kill(front_ends(limited)[0], signal.SIGSTOP)
        assert await statuses(stack, limited, LIMIT) == [200] * LIMIT
        os.kill(front_ends(limited)[0], signal.SIGCONT)
        async with asyncio.timeout(HANG_S):
            while await statuses(stack, limited, 1) != [200]:
                pass
        assert limited.app.connection_limit.total == LIMIT


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("tls"))


async def test_tls(start_two: StartProxy, s3: S3, certificate: tuple[Path, Path]) -> None:
    """Over TLS hits, misses and writes take turns on one connection, with the fields of TLS in each response.

    Hits of each size bring it to rest at a front end.
    """
    chain, key = certificate
    tls = {"certificate": str(chain), "key": str(key), "hsts": {"max_age": "1h"}}
    proxy = await start_two(server={"tls": tls})
    context = ssl.create_default_context(cafile=str(chain))
    bodies = {f"/{size}": pattern(size) for size in (1000, 100_000, 3_000_000)}
    for target, body in bodies.items():
        s3.put(target[1:], body)
    async with connected(proxy.address.replace("127.0.0.1", "localhost"), context) as connection:
        for number in range(4):
            for target, body in bodies.items():
                response = await connection.request("GET", target)
                assert (response.status, response.body) == (200, body)
                assert response.headers["Strict-Transport-Security"] == "max-age=3600"
            body = pattern(200_000, seed=number)
            put = await connection.request("PUT", "/written", {"Content-Length": str(len(body))}, body)
            assert put.status in (200, 201)
            assert (await connection.request("GET", "/written")).body == body
            await proxy.settled()
        for target, body in (*[("/1000", bodies["/1000"])] * 70, *bodies.items()):
            assert (await connection.request("GET", target)).body == body
        await proxy.until(lambda: proxy.app.connection_limit.total == 1)
        assert proxy.app.connection_limit.open == 0


async def test_reload(start_two: StartProxy, s3: S3) -> None:
    """A reload changes what front ends respond, from the next request on."""
    s3.put("x", b"data")
    proxy = await start_two()
    await warm(proxy, "/x")
    async with proxy.connection() as connection:
        for _ in range(2):
            response = await connection.request("GET", "/x")
        assert "Access-Control-Allow-Origin" in response.headers
        settings = proxy.app.settings.model_copy(
            update={"cors": proxy.app.settings.cors.model_copy(update={"allow_origins": ()})}
        )
        renewal = await proxy.app._prepare(settings)
        renewal.apply()
        await proxy.app.catch_up()
        response = await connection.request("GET", "/x")
        assert "Access-Control-Allow-Origin" not in response.headers


def change(proxy: Proxy, **sections: object) -> None:
    """Let the next reload of the proxy find other settings."""
    settings = proxy.app.settings.model_copy(update=sections)
    proxy.app.reloader._read = lambda: LoadedConfig(settings)


async def test_a_reload_holds_at_once(start_two: StartProxy, s3: S3, clock: WallClock) -> None:
    """No response that begins after a reload goes by an older `default_ttl`, on any connection (I7)."""
    s3.put("x", b"old")
    proxy = await start_two(freshness={"default_ttl": "1h", "stale_while_revalidate": "0s"})
    await warm(proxy, "/x")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(proxy.address)) for _ in range(CONNECTIONS)]
        for _ in range(3):
            await asyncio.gather(*(client.request("GET", "/x") for client in clients))
        clock.advance(100)
        s3.put("x", b"new")
        freshness = proxy.app.settings.freshness.model_copy(update={"default_ttl": 50.0})
        change(proxy, freshness=freshness)
        assert (await proxy.app.reload("test")).verdict is ReloadVerdict.RELOADED
        responses = await asyncio.gather(*(client.request("GET", "/x") for client in clients))
        assert {response.body for response in responses} == {b"new"}


async def test_a_stopped_front_end_holds_no_reload(
    start_two: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A front end that does not follow a reload is ended, so that none serves what a new rule protects."""
    monkeypatch.setattr(front_ends_module, "ACKNOWLEDGE_TIMEOUT_S", 1.0)  # the other one keeps it on a busy machine too
    s3.put("x", b"data")
    proxy = await start_two()
    await warm(proxy, "/x")
    stopped, other = front_ends(proxy)
    os.kill(stopped, signal.SIGSTOP)
    change(proxy, cors=proxy.app.settings.cors.model_copy(update={"allow_origins": ()}))
    assert (await proxy.app.reload("test")).verdict is ReloadVerdict.RELOADED
    assert stopped not in front_ends(proxy)
    await proxy.until(lambda: len(front_ends(proxy)) == WORKERS)
    assert other in front_ends(proxy)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_front_ends_end_with_their_owner(
    tmp_path: Path, origin_server: OriginSettings, s3: S3, *, is_stopped: bool
) -> None:
    """After `kill -9` of the owner no front end is left, also if it was stopped and could notice nothing."""
    config = f"""
server: {{port: 0, workers: {WORKERS}}}
admin: {{port: 0}}
origin: {{endpoint_url: "{origin_server.endpoint_url}", credentials: {{access_key_id: a, secret_access_key: b}}}}
mounts: [{{path: /, bucket: {s3.bucket}}}]
cache: {{dir: {tmp_path / "cache"}}}
access_log: {{path: {tmp_path / "log"}}}
"""
    with bucketfront(config, tmp_path) as running:
        processes = descendants(running.pid)
        assert len(processes) == 1 + WORKERS
        if is_stopped:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
        os.kill(running.pid, signal.SIGKILL)
        deadline = time.monotonic() + HANG_S
        while not (is_over := all(map(has_ended, processes))) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_over
