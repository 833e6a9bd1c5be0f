"""A request whose bytes come from the origin is no hit, in Cache-Status, log, metrics and statistics alike."""

from prometheus_client.parser import text_string_to_metric_families
from proxy_under_test import BLOCK, PART, S3, Proxy, pattern

FAR = 100 * PART  # so far behind the first bytes that no read-ahead reaches it
BODY = pattern(FAR + 10 * BLOCK)
OUTCOMES = ("hits", "stale_hits", "partials", "misses", "revalidations")


async def requests_by_decision(proxy: Proxy) -> dict[str, float]:
    """Return the requests of `/metrics` by cache decision."""
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "bucketfront_requests_total":
                found[sample.labels["cache"]] = found.get(sample.labels["cache"], 0) + sample.value
    return found


def lookups(proxy: Proxy) -> dict[str, int]:
    """Return the lookups of the statistics by what they found."""
    return {name: proxy.figures[name] for name in OUTCOMES if proxy.figures[name]}


async def test_a_cold_range_of_a_known_object(proxy: Proxy, s3: S3) -> None:
    """A range that the cache lacks is partial, although its entry is fresh. The next time it is a hit (I37)."""
    s3.put("x", BODY)
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    cold = await proxy.get("/x", Range=f"bytes={FAR}-{FAR + 9}")
    assert "fwd=partial" in cold.headers["Cache-Status"]
    assert cold.body == BODY[FAR : FAR + 10]
    await proxy.settled()
    assert lookups(proxy) == {"misses": 1, "partials": 1}
    assert await requests_by_decision(proxy) == {"miss": 1, "partial": 1}
    warm = await proxy.get("/x", Range=f"bytes={FAR}-{FAR + 9}")
    assert "; hit" in warm.headers["Cache-Status"]
    await proxy.settled()
    assert lookups(proxy) == {"misses": 1, "partials": 1, "hits": 1}
    assert await requests_by_decision(proxy) == {"miss": 1, "partial": 1, "hit": 1}
    assert [line["cache"].partition(";")[0] for line in proxy.log] == ["fwd=miss", "fwd=partial", "hit"]


async def test_an_object_of_which_only_the_head_is_known(proxy: Proxy, s3: S3) -> None:
    """After a HEAD, the first GET is a miss, and a second HEAD is a hit."""
    s3.put("x", BODY)
    await proxy.request("HEAD", "/x")
    await proxy.request("HEAD", "/x")
    assert "fwd=miss" in (await proxy.get("/x", Range="bytes=0-9")).headers["Cache-Status"]
    await proxy.settled()
    assert lookups(proxy) == {"misses": 2, "hits": 1}
    assert await requests_by_decision(proxy) == {"miss": 2, "hit": 1}


async def test_several_ranges_of_which_one_is_cold(proxy: Proxy, s3: S3) -> None:
    """A response of several ranges is a hit only if the cache has all of them (I37)."""
    s3.put("x", BODY)
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    ranges = f"bytes=0-9,{FAR}-{FAR + 9}"
    assert "fwd=partial" in (await proxy.get("/x", Range=ranges)).headers["Cache-Status"]
    await proxy.settled()
    assert "; hit" in (await proxy.get("/x", Range=ranges)).headers["Cache-Status"]
    await proxy.settled()
    assert lookups(proxy) == {"misses": 1, "partials": 1, "hits": 1}
    assert await requests_by_decision(proxy) == {"miss": 1, "partial": 1, "hit": 1}
    assert [line["cache"].partition(";")[0] for line in proxy.log] == ["fwd=miss", "fwd=partial", "hit"]


async def test_a_cold_range_that_may_not_be_fetched(proxy: Proxy, s3: S3) -> None:
    """`only-if-cached` for bytes that the cache lacks gets 504, and counts as no hit."""
    s3.put("x", BODY)
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    refused = await proxy.get("/x", Range=f"bytes={FAR}-{FAR + 9}", Cache_Control="only-if-cached")
    assert refused.status == 504
    assert lookups(proxy) == {"misses": 1}


async def test_a_block_that_is_lost(proxy: Proxy, s3: S3) -> None:
    """A request that finds a corrupt block on its way is partial in the statistics and in the log."""
    s3.put("x", BODY)
    await proxy.get("/x", Range=f"bytes=0-{2 * PART - 1}")
    await proxy.settled()
    entries = proxy.app.cache_assembly.entries
    (entry,) = entries.hot_entries()
    entries.mark_unverified(entry, entry.present)
    (file,) = proxy.files
    with file.open("r+b") as spoilt:
        spoilt.seek(BLOCK)
        spoilt.write(b"spoilt")
    body = (await proxy.get("/x", Range=f"bytes=0-{2 * PART - 1}")).body
    assert body == BODY[: 2 * PART]
    await proxy.settled()
    assert lookups(proxy) == {"misses": 1, "partials": 1}
    assert proxy.log[-1]["cache"].startswith("fwd=partial")


async def test_a_stale_object_that_is_served(proxy: Proxy, s3: S3) -> None:
    """A stale entry that serves all bytes is a stale hit, and one that lacks them is partial."""
    s3.put("x", BODY, CacheControl="max-age=60, stale-while-revalidate=3600")
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    proxy.clock.advance(100)
    assert "; hit" in (await proxy.get("/x", Range="bytes=0-9")).headers["Cache-Status"]
    await proxy.settled()
    assert lookups(proxy)["stale_hits"] == 1
    proxy.clock.advance(100)
    assert "fwd=partial" in (await proxy.get("/x", Range=f"bytes={FAR}-{FAR + 9}")).headers["Cache-Status"]
    await proxy.settled()
    assert lookups(proxy)["stale_hits"] == 1
    assert lookups(proxy)["partials"] == 1
    assert "hits" not in lookups(proxy)
