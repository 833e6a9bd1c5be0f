"""The metrics of a whole proxy: all of them are in the table, and count what they are named for."""

import asyncio
import json
import platform
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Seen
from test_warm import warmed
from wire import message

from bucketfront import __version__
from bucketfront.admin.collectors.table import FAMILIES, STANDARD_PREFIXES
from bucketfront.server.telemetry.metric_family import Kind

ALL = {family.exposed_name: family for families in FAMILIES.values() for family in families}
OPTIONAL = {"bucketfront_tls_certificate_not_after_seconds", "bucketfront_tls_handshakes_failed_total"} | {
    name for name in ALL if name.startswith("bucketfront_s3_event")
}
UNITS = ("_bytes", "_seconds", "_ratio", "_info")


async def samples(proxy: Proxy) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def value(proxy: Proxy, name: str, **labels: str) -> float:
    return (await samples(proxy)).get((f"bucketfront_{name}", frozenset(labels.items())), 0)


async def test_the_table_is_complete(proxy: Proxy) -> None:
    """A scrape has the metrics of the table, each with its type, text and labels, and no others."""
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not name.startswith(STANDARD_PREFIXES) and not name.endswith("_created"):
            found[name] = family
    assert found.keys() == ALL.keys() - OPTIONAL
    for name, family in found.items():
        expected = ALL[name]
        assert (family.type, family.documentation) == (expected.kind.value, expected.text), name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(expected.labels), name


def test_names_by_the_rules() -> None:
    """Names have base units at their end, and no label has the name of a unit."""
    assert len(ALL) == sum(map(len, FAMILIES.values()))
    for name, family in ALL.items():
        assert re.fullmatch(r"bucketfront(_[a-z0-9]+)+", name)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", name)
        assert name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert not {"le", "quantile", "job", "instance"} & set(family.labels)
        if family.kind is Kind.HISTOGRAM:
            assert name.endswith(UNITS)


async def test_the_build(proxy: Proxy) -> None:
    """One series has the versions, and the process has its memory, descriptors and lag of the event loop."""
    assert await value(proxy, "build_info", version=__version__, python=platform.python_version()) == 1
    found = {name for name, _ in await samples(proxy)}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_max_fds"} <= found
    assert "bucketfront_event_loop_lag_seconds_bucket" in found


async def test_bytes_from_the_origin(proxy: Proxy, s3: S3) -> None:
    """Bytes count once, by their cause: what a client requested is a fill, and the rest is read ahead (I37)."""
    body = pattern(40 * PART)
    s3.put("x", body)
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    filled = await value(proxy, "origin_received_bytes_total", mount="/", cause="fill")
    ahead = await value(proxy, "origin_received_bytes_total", mount="/", cause="read-ahead")
    assert filled >= BLOCK
    assert filled + ahead == proxy.relay.body_bytes
    await proxy.get("/x")
    await proxy.settled()
    assert await value(proxy, "origin_received_bytes_total", mount="/", cause="fill") > 30 * PART
    assert await value(proxy, "origin_received_bytes_total", mount="/", cause="pass-through") == 0
    whole = await samples(proxy)
    received = sum(count for (name, _), count in whole.items() if name == "bucketfront_origin_received_bytes_total")
    assert received == proxy.relay.body_bytes == len(body)
    await proxy.get("/x")
    assert await samples(proxy) is not None
    assert await value(proxy, "origin_received_bytes_total", mount="/", cause="fill") + await value(
        proxy, "origin_received_bytes_total", mount="/", cause="read-ahead"
    ) == len(body)


async def wasted(proxy: Proxy) -> dict[str, int]:
    """Return the bytes of no use that are not 0, by cause. The statistics have the same as the metrics."""
    found = {
        dict(labels)["cause"]: int(count)
        for (name, labels), count in (await samples(proxy)).items()
        if name == "bucketfront_origin_wasted_bytes_total" and count
    }
    summary = (await proxy.admin("GET", "/api/v1/stats")).json()["summary"]
    for figures in (summary["total"], summary["mounts"][0]):
        assert {cause: count for cause, count in figures["origin_wasted"].items() if count} == found
    return found


@pytest.mark.parametrize("end", ["purge", "write", "change", "idle"])
async def test_bytes_that_no_client_read(proxy: Proxy, s3: S3, end: str) -> None:
    """Of an object that ends, the blocks of which no client read a byte count once, by the reason of the end (I37)."""
    body = pattern(40 * PART)
    s3.put("x", body)
    s3.put("read", body)
    await proxy.get("/read")
    await warmed(proxy, objects=[{"path": "/x", "range": f"bytes=0-{5 * BLOCK - 1}"}])
    await proxy.get("/x", Range=f"bytes={BLOCK}-{BLOCK}")
    await proxy.settled()
    received = proxy.relay.body_bytes - len(body)
    assert received >= 5 * BLOCK
    assert await wasted(proxy) == {}
    match end:
        case "purge":
            await proxy.admin("POST", "/api/v1/purge", b'{"all": true}')
        case "write":
            for name in ("x", "read"):
                await proxy.request("PUT", f"/{name}", body=b"new")
        case "change":
            for name in ("x", "read"):
                s3.put(name, b"new")
            proxy.clock.advance(1000)
            for name in ("x", "read"):
                assert (await proxy.get(f"/{name}")).body == b"new"
        case _:
            proxy.clock.advance(4000)
            await proxy.step()
    await proxy.app.cache_assembly.disposal.finish()
    assert await wasted(proxy) == {"unread" if end == "idle" else "outdated": received - BLOCK}


async def test_a_hit_is_a_read(proxy: Proxy, s3: S3) -> None:
    """What a warm job brought counts as read with the first hit, also one of the fast path."""
    s3.put("hit", b"data")
    s3.put("unused", b"other")
    await warmed(proxy, paths=["/hit", "/unused"])
    assert (await proxy.get("/hit")).cache_status.startswith("hit")
    await proxy.admin("POST", "/api/v1/purge", b'{"all": true}')
    await proxy.app.cache_assembly.disposal.finish()
    assert await wasted(proxy) == {"outdated": len(b"other")}


async def test_bytes_of_a_block_that_is_cut(start: StartProxy, s3: S3) -> None:
    """If the last client leaves within a block, what came of that block counts as cut off (I37)."""
    proxy = await start(cache={"after_disconnect": "stop"})
    s3.put("x", pattern(40 * PART))
    held = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.method == "GET" and seen.sent > BLOCK // 2:
            await held.wait()

    proxy.relay.on_body = hold
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/x"))
        await connection.head()
        await until(lambda: any(seen.sent > BLOCK // 2 for seen in proxy.relay.seen))
        await until(lambda: sum(view.present for view in proxy.app.cache.fills()) > 0)
        connection.abort()
    await proxy.settled()
    held.set()
    cut = (await wasted(proxy))["cut-off"]
    received = sum(proxy.app.cache.traffic["/"].received.values())
    present = sum(len(held.spans) and held.spans[0].length for held in proxy.app.cache.newest(9))
    assert 0 < cut == received - present


async def test_requests_that_s3_charges_for(proxy: Proxy, s3: S3) -> None:
    """Reads and writes count by S3's price classes. Hits and deletes cost nothing."""
    s3.put("x", b"data")
    before = len([one for one in proxy.relay.seen if one.method in ("GET", "HEAD")])
    await proxy.get("/x")
    await proxy.settled()
    reads = len([one for one in proxy.relay.seen if one.method in ("GET", "HEAD")]) - before
    assert await value(proxy, "origin_charged_requests_total", mount="/", kind="read") == reads == 1
    await proxy.get("/x")
    await proxy.get("/absent")
    assert await value(proxy, "origin_charged_requests_total", mount="/", kind="read") == 2
    assert (await proxy.request("PUT", "/y", body=b"data")).status == 201
    assert await value(proxy, "origin_charged_requests_total", mount="/", kind="write") >= 1
    writes = await value(proxy, "origin_charged_requests_total", mount="/", kind="write")
    assert (await proxy.request("DELETE", "/y")).status == 204
    assert await value(proxy, "origin_charged_requests_total", mount="/", kind="write") == writes


async def test_reads_by_mount(proxy: Proxy, s3: S3) -> None:
    """Reads count that S3 would have served, with their bytes and those of them that the cache had."""
    body = pattern(3 * BLOCK)
    s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    await proxy.get("/x")
    await proxy.request("HEAD", "/x")
    await proxy.get("/absent")
    await proxy.request("PUT", "/y", body=b"data")
    await proxy.request("PATCH", "/y")
    assert await value(proxy, "reads_total", mount="/") == 4
    assert await value(proxy, "read_bytes_total", mount="/") == 2 * len(body)
    assert await value(proxy, "read_cached_bytes_total", mount="/") == len(body)
    assert await value(proxy, "sent_bytes_total", mount="/", cache="hit") == len(body)
    assert await value(proxy, "sent_bytes_total", mount="/", cache="miss") == len(body)
    assert await value(proxy, "requests_total", mount="/", method="GET", status="2xx", cache="hit") == 1


async def test_decisions(proxy: Proxy, s3: S3) -> None:
    """A stale object that is served is another decision than one that was revalidated first."""
    s3.put("x", b"data", CacheControl="max-age=60, stale-while-revalidate=100")
    await proxy.get("/x")
    proxy.clock.advance(100)
    await proxy.get("/x")
    await proxy.settled()
    proxy.clock.advance(1000)
    await proxy.get("/x")
    found = await samples(proxy)
    decisions = {
        dict(labels)["cache"]: count for (name, labels), count in found.items() if name == "bucketfront_requests_total"
    }
    assert decisions == {"miss": 1, "stale-hit": 1, "stale": 1}


async def test_first_bytes(proxy: Proxy, s3: S3) -> None:
    """The first byte of each response is in the histogram of its decision, and never later than the last one."""
    s3.put("x", pattern(3 * BLOCK))
    for _ in range(3):
        await proxy.get("/x")
        await proxy.settled()
    assert await value(proxy, "first_byte_seconds_count", cache="miss") == 1
    assert await value(proxy, "first_byte_seconds_count", cache="hit") == 2
    for decision in ("hit", "miss"):
        first = await value(proxy, "first_byte_seconds_sum", cache=decision)
        assert 0 < first <= await value(proxy, "request_seconds_sum", cache=decision)


async def test_removals(proxy: Proxy, s3: S3) -> None:
    """Entries that leave count by their reason, with the ages that they had."""
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    proxy.clock.advance(30)
    body = json.dumps({"paths": ["/x"]}).encode()
    assert (await proxy.admin("POST", "/api/v1/purge", body)).json()["purged"] == 1
    assert await value(proxy, "removed_entries_total", reason="purged") == 1
    assert await value(proxy, "removed_entry_age_seconds_sum", reason="purged") >= 30
    assert await value(proxy, "removed_entry_age_seconds_bucket", reason="purged", le="10.0") == 0
    assert await value(proxy, "removed_entry_age_seconds_bucket", reason="purged", le="+Inf") == 1
