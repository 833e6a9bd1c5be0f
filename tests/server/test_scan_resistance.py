"""A crawl, and ranges of single bytes, beside a popular set of objects: over real sockets."""

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern

HOT = 6  # about a fifth of the cache
OTHERS = 10 * HOT
FOREVER = "max-age=99999"


async def hits(proxy: Proxy) -> int:
    """Request the popular objects once each. Returns how many are hits."""
    found = [await proxy.get(f"/hot/{number}") for number in range(HOT)]
    assert all(response.status == 200 for response in found)
    return sum(response.cache_status.startswith("hit") for response in found)


@pytest.mark.parametrize("name", ["lru", "s3-fifo"])
async def test_popular_objects_outlive_a_crawl(start: StartProxy, s3: S3, name: str) -> None:
    """Popular objects stay hits after ten times as many others were read once, and after ranges of a byte (I34)."""
    proxy = await start(cache={"max_size": "2MiB", "eviction": name, "idle_timeout": "1d"})
    body = pattern(BLOCK)
    for number in range(HOT):
        s3.put(f"hot/{number}", body, CacheControl=FOREVER)
    for number in range(OTHERS):
        s3.put(f"other/{number}", body, CacheControl=FOREVER)
        s3.put(f"ranged/{number}", body, CacheControl=FOREVER)
    for _ in range(3):
        await hits(proxy)
        await proxy.settled()
    assert await hits(proxy) == HOT
    for number in range(OTHERS):
        assert (await proxy.get(f"/other/{number}")).body == body
        await proxy.settled()
    assert proxy.figures["evicted"] > OTHERS // 4
    assert await hits(proxy) == HOT
    for number in range(OTHERS):
        assert (await proxy.get(f"/ranged/{number}", Range="bytes=0-0")).status == 206
        await proxy.settled()
    assert await hits(proxy) == HOT
