"""Reloads: all of a new configuration applies to the requests that begin later, or none of it."""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy_under_test import S3, Proxy, WallClock, descriptors_open, pattern, until
from relay import Relay, Seen
from reloadable import ConfigFile, Site
from test_warm import warmed
from wire import connected

from bucketfront.admin.reloader import ReloadVerdict
from bucketfront.app import App
from bucketfront.config.loader import LoadedConfig, load_with_places

TOKEN = "0123456789abcdef-first"
OTHER_TOKEN = "0123456789abcdef-other"


@pytest.fixture
async def site(tmp_path: Path, s3: S3, relay: Relay, clock: WallClock) -> AsyncIterator[Site]:
    config = ConfigFile(tmp_path, relay.url, s3.bucket)

    def read() -> LoadedConfig:
        return load_with_places(config.path, {})

    app = App(read().settings, clock=clock, elapsed=clock.passed, read=read)
    async with app:
        yield Site(Proxy(app, relay, clock), config)


async def test_a_new_rule_holds_on_open_connections(site: Site, s3: S3) -> None:
    """After a reload, an open connection gets 401 for what a new rule protects, also where the fast path served it."""
    s3.put("x", b"secret")
    async with connected(site.proxy.address) as connection:
        assert (await site.hit("/x")).status == 200
        assert (await connection.request("GET", "/x")).status == 200
        site.config.mount["read"] = ["team"]
        await site.reload(access={"team": {"bearer": {"tokens": [TOKEN]}}})
        assert (await connection.request("GET", "/x")).status == 401
        allowed = await connection.request("GET", "/x", {"Authorization": f"Bearer {TOKEN}"})
        assert (allowed.status, allowed.body) == (200, b"secret")
        site.config.mount["read"] = ["public"]
        await site.reload()
        assert (await connection.request("GET", "/x")).status == 200


async def test_warm_jobs_follow(site: Site, s3: S3) -> None:
    """A warm job that begins after a reload has the new mounts and rules."""
    s3.put("x", b"data")
    s3.put("a.private", b"data")
    site.config.mount["path"] = "/new/"
    await site.reload(freshness={"rules": [{"match": "*.private", "cache": False}]})
    report = await warmed(site.proxy, prefix="/")
    assert (report["filled"], report["not_stored"], report["failed"]) == (1, 1, 0)
    assert (await site.proxy.get("/new/x")).cache_status.startswith("hit")


async def test_prepared_responses_follow(site: Site, s3: S3) -> None:
    """The first hit after a reload has the headers of the new settings: CORS, rules of paths, Cache-Control."""
    s3.put("x", b"data")
    first = await site.hit("/x")
    assert "X-New" not in first.headers
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    await site.reload(
        cors={"allow_origins": []},
        freshness={"rules": [{"match": "x", "headers": {"X-New": "1"}, "cache_control": "max-age=7"}]},
    )
    second = await site.hit("/x")
    assert second.headers["X-New"] == "1"
    assert second.headers["Cache-Control"] == "max-age=7"
    assert "Access-Control-Allow-Origin" not in second.headers


async def test_freshness_holds_for_what_is_cached(site: Site, s3: S3, relay: Relay, clock: WallClock) -> None:
    """A new `default_ttl` holds for cached objects as well, whether they were fresh or stale by the one before (I7)."""
    s3.put("x", b"data")
    await site.hit("/x")
    clock.advance(100)
    await site.reload(freshness={"default_ttl": "50s", "stale_while_revalidate": "0s"})
    requests = len(relay.seen)
    assert (await site.proxy.get("/x")).status == 200
    assert len(relay.seen) == requests + 1
    clock.advance(60)
    await site.reload(freshness={"default_ttl": "1h"})
    requests = len(relay.seen)
    assert "hit" in (await site.hit("/x")).cache_status
    assert len(relay.seen) == requests


async def test_a_soft_purge_outlives_a_reload(site: Site, s3: S3, relay: Relay) -> None:
    """An object that was marked stale stays so when a reload changes how long objects are fresh (I27)."""
    s3.put("x", b"data")
    await site.hit("/x")
    await site.proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"], "soft": true}')
    await site.reload(freshness={"default_ttl": "1h"})
    requests = len(relay.seen)
    assert (await site.proxy.get("/x")).status == 200
    assert len(relay.seen) == requests + 1


async def test_absences_follow(site: Site, s3: S3, relay: Relay) -> None:
    """A 404 that was remembered by a `negative_ttl` before is asked for again."""
    await site.reload(freshness={"negative_ttl": "1h"})
    assert (await site.proxy.get("/none")).status == 404
    s3.put("none", b"now")
    assert (await site.proxy.get("/none")).status == 404
    await site.reload(freshness={"negative_ttl": "0s"})
    assert (await site.proxy.get("/none")).status == 200


async def test_mounts_follow_everywhere(site: Site, s3: S3) -> None:
    """A new mount serves, a removed one does not, and a purge goes by the new mounts."""
    s3.put("a/x", b"data")
    assert (await site.hit("/a/x")).status == 200
    site.config.tree["mounts"] = [{"path": "/new/", "bucket": s3.bucket, "prefix": "a/"}]
    outcome = await site.reload()
    assert outcome.changed == ("mounts[0].path", "mounts[0].prefix")
    assert (await site.proxy.get("/a/x")).status == 404
    assert "hit" in (await site.proxy.get("/new/x")).cache_status
    purged = await site.proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/new/x"]}')
    assert purged.json() == {"purged": 1}


async def test_requests_under_way_end_under_the_old_settings(site: Site, s3: S3, relay: Relay) -> None:
    """A request that waits for S3 ends with the rules and headers that held when it began."""
    s3.put("x", b"data")
    arrived, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(_: Seen) -> None:
        arrived.set()
        await goes_on.wait()

    relay.on_request = hold
    async with connected(site.proxy.address) as connection:
        waiting = asyncio.ensure_future(connection.request("GET", "/x"))
        await arrived.wait()
        site.config.mount["read"] = ["nobody"]
        await site.reload(access={"nobody": {"bearer": {"tokens": [TOKEN]}}})
        goes_on.set()
        response = await waiting
        assert (response.status, response.body) == (200, b"data")
        assert (await connection.request("GET", "/x")).status == 401


async def test_the_fast_path_can_be_turned_off_and_on(site: Site, s3: S3) -> None:
    """`server.fast_path` and `server.timing` hold at once, also for a head that equals the connection's last one."""
    s3.put("x", b"data")
    async with connected(site.proxy.address) as connection:
        await site.hit("/x")
        await connection.request("GET", "/x")
        await site.proxy.settled()
        for server in ({"fast_path": False}, {"fast_path": True, "timing": True}):
            await site.reload(server=server)
            served = site.proxy.app.fast_path.served
            response = await connection.request("GET", "/x")
            assert ("Server-Timing" in response.headers) is ("timing" in server)
            assert site.proxy.app.fast_path.served == served
        await site.reload(server={"timing": False})
        served = site.proxy.app.fast_path.served
        await connection.request("GET", "/x")
        assert site.proxy.app.fast_path.served == served + 1


async def test_the_admin_port_follows(site: Site) -> None:
    """A new token, and new names of the proxy, hold for the next request to the admin port."""
    ask = site.proxy.admin
    assert (await ask("GET", "/metrics")).status == 200
    await site.reload(admin={"token": TOKEN})
    assert (await ask("GET", "/metrics")).status == 401
    authorized = {"Authorization": f"Bearer {TOKEN}"}
    assert (await ask("GET", "/metrics", None, authorized)).status == 200
    await site.reload(admin={"token": OTHER_TOKEN}, server={"hosts": ["media.example"]})
    assert (await ask("GET", "/metrics", None, authorized)).status == 401
    authorized = {"Authorization": f"Bearer {OTHER_TOKEN}", "Host": "media.example"}
    assert (await ask("GET", "/metrics", None, authorized)).status == 200


async def test_the_access_log_follows(site: Site, s3: S3, tmp_path: Path) -> None:
    """Lines of requests that end before a reload are in the old log, and later ones in the new log and its format."""
    s3.put("x", b"data")
    await site.proxy.get("/x")
    await site.reload(access_log={"path": str(tmp_path / "new.log"), "format": "text"})
    await site.proxy.get("/x")
    assert site.proxy.app.telemetry.drain(timeout_s=10)
    await until(lambda: not site.proxy.app.telemetry._closing)
    assert [json.loads(line)["path"] for line in (tmp_path / "access.log").read_text().splitlines()] == ["/x"]
    assert [line.split()[3] for line in (tmp_path / "new.log").read_text().splitlines()] == ["/x"]


async def test_the_fields_of_the_log_follow(site: Site, s3: S3) -> None:
    """`access_log.fields` holds for the requests after a reload, also on the fast path."""
    s3.put("x", b"data")
    sent = {"User_Agent": "me", "Referer": "https://a.example"}
    for fields in (["referer"], [], ["user_agent"]):
        await site.reload(access_log={"fields": fields})
        await site.hit("/x", **sent)
        line = site.proxy.log[-1]
        assert [name for name in ("user_agent", "referer") if name in line] == fields


async def test_an_invalid_file_changes_nothing(site: Site, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """A file with an unknown key is refused with its line and the cure, to the caller and in the log."""
    s3.put("x", b"data")
    outcome = await site.refused(freshness={"default_tll": "1s"}, cors={"allow_origins": []})
    assert outcome.verdict is ReloadVerdict.INVALID
    (problem,) = outcome.problems
    assert problem.startswith(f"{site.config.path}:")
    assert "default_ttl" in problem
    assert any(problem in record.getMessage() for record in caplog.records)
    assert (await site.hit("/x")).headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"access_log": {"path": "/nowhere/access.log"}}, "access_log.path"),
        ({"access": {"p": {"basic": {"file": "/nowhere/htpasswd"}}}}, "access.p.basic.file"),
        ({"cache": {"dir": "elsewhere"}}, "cache.dir: needs a restart"),
        ({"server": {"port": 1}}, "server.port: needs a restart"),
    ],
)
async def test_a_refused_reload_leaves_no_half(site: Site, s3: S3, sections: dict[str, object], name: str) -> None:
    """If one setting cannot apply, none does: the rule beside it, the header and the token stay as they were (I30)."""
    s3.put("x", b"data")
    before, threads = site.proxy.app.settings, descriptors_open()
    site.config.mount["read"] = ["p"]
    rule = {"p": {"bearer": {"tokens": [TOKEN]}}}
    outcome = await site.refused(
        **{"access": rule, "admin": {"token": TOKEN}, "cors": {"allow_origins": []}, **sections}
    )
    assert outcome.verdict is not ReloadVerdict.RELOADED
    assert name in outcome.problems[0]
    assert site.proxy.app.settings is before
    assert (await site.hit("/x")).headers["Access-Control-Allow-Origin"] == "*"
    assert (await site.proxy.admin("GET", "/metrics")).status == 200
    assert descriptors_open() <= threads + 4  # those of the cached object and its connections


async def test_a_restart_is_named_for_each_setting(site: Site) -> None:
    """The response to POST names each change that needs a restart, with its place, and has status 409."""
    site.config.write(cache={"dir": "elsewhere", "block_size": "128KiB"}, cors={"allow_origins": []})
    response = await site.proxy.admin("POST", "/api/v1/reload", b"{}")
    assert response.status == 409
    assert response.json()["result"] == "needs-restart"
    assert response.json()["changed"] == ["cache.dir", "cache.block_size", "cors.allow_origins"]
    assert [line.partition(" ")[2].partition(":")[0] for line in response.json()["problems"]] == [
        "cache.dir",
        "cache.block_size",
    ]


async def test_concurrent_reloads_run_in_turn(site: Site, s3: S3) -> None:
    """Reloads at once each apply as a whole, and the settings of the last one hold."""
    s3.put("x", b"data")
    pending = []
    for number in range(8):
        site.config.write(freshness={"rules": [{"match": "x", "headers": {"X-Number": str(number)}}]})
        pending.append(asyncio.ensure_future(site.proxy.app.reload("test")))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*pending)
    assert {outcome.verdict for outcome in outcomes} == {ReloadVerdict.RELOADED}
    assert (await site.hit("/x")).headers["X-Number"] == "7"


async def test_many_reloads_leave_nothing(site: Site, s3: S3) -> None:
    """Many reloads leave no descriptor, task, thread or router each (I12). Pools of them may have grown by a few."""
    s3.put("x", pattern(1000))

    async def reload(number: int) -> None:
        site.config.mount["read"] = ["team", "public"][number % 2 :]
        path = site.config.path.with_name(f"{number % 2}.log")
        await site.reload(access={"team": {"bearer": {"tokens": [TOKEN]}}}, access_log={"path": str(path)})
        await site.proxy.get("/x")

    def resources() -> tuple[int, int, int, int]:
        gc.collect()
        kinds = ("Application", "Pipeline", "PreparedResponses")
        kept = sum(type(one).__name__ in kinds for one in gc.get_objects())
        return descriptors_open(), len(asyncio.all_tasks()), threading.active_count(), kept

    for number in range(4):
        await reload(number)
    await until(lambda: not site.proxy.app.telemetry._closing)
    before = resources()
    for number in range(40):
        await reload(number)
    await until(lambda: not site.proxy.app.telemetry._closing)
    await until(lambda: all(now - then < 20 for now, then in zip(resources(), before, strict=True)))


async def test_a_reload_before_the_end_of_the_start_waits(site: Site) -> None:
    """A reload that is asked for during the start applies after it, and one during the stop is refused."""
    app = site.proxy.app
    app.reloader.started.clear()
    pending = asyncio.ensure_future(app.reload("test"))
    await asyncio.sleep(0)
    assert not pending.done()
    app.reloader.started.set()
    assert (await pending).verdict is ReloadVerdict.RELOADED
    await site.proxy.stop()
    assert (await app.reload("test")).verdict is ReloadVerdict.STOPPING
