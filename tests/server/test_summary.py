"""The summary of `/api/v1/stats`: hit ratios, money by mount, sizes of the cache, what is degraded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern

from bucketfront.admin.savings import Money, Usage, money
from bucketfront.config.pricing_settings import Prices

PRICES = {"per_1000_gets": 1.0, "per_1000_puts": 10.0, "per_gb_out": 1000.0}
BODY = pattern(BLOCK)  # that one request brings
EPSILON = 1e-9


async def summary(proxy: Proxy) -> dict[str, Any]:
    response = await proxy.admin("GET", "/api/v1/stats")
    found: dict[str, Any] = response.json()["summary"]
    return found


counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts, counts)
def test_savings_are_a_difference(reads: int, sent: int, origin_reads: int, writes: int, received: int) -> None:
    """What the reads of clients cost straight from S3 is what was saved and what the reads of the cache cost."""
    usage = Usage(reads, sent, origin_reads, writes, received)
    amount = money(usage, Prices(**PRICES))
    assert amount is not None
    direct = reads / 1000 * 1.0 + sent / 10**9 * 1000.0
    of_writes = writes / 1000 * 10.0
    assert amount.saved + amount.spent - of_writes == pytest.approx(direct, abs=1e-3)
    nothing_cached = money(Usage(reads, sent, reads, writes, sent), Prices(**PRICES))
    assert nothing_cached is not None
    assert nothing_cached.saved == pytest.approx(0, abs=1e-3)


def test_amounts_add_up() -> None:
    """The sums of two mounts are those of their counts."""
    one, other = Usage(5, 50, 1, 2, 10), Usage(3, 30, 4, 0, 90)
    assert one + other == Usage(8, 80, 5, 2, 100)
    assert (one + other).saved_bytes == -20
    assert Money(1.0, 2.0) + Money(0.5, -3.0) == Money(1.5, -1.0)


def test_unknown_prices() -> None:
    """Without prices there is no amount, and a price of zero is a price."""
    assert money(Usage(1, 1, 1, 1, 1), Prices()) is None
    free = money(Usage(1, 1, 1, 1, 1), Prices(per_1000_gets=0, per_1000_puts=0, per_gb_out=0))
    assert free == Money(0.0, 0.0)


async def test_money_of_a_proxy(start: StartProxy, s3: S3) -> None:
    """Each hit saves a request and its bytes once, and each request to S3 is spent once (I37)."""
    proxy = await start(pricing={"currency": "EUR", **PRICES})
    s3.put("x", BODY)
    await proxy.get("/x")
    await proxy.settled()
    first = await summary(proxy)
    assert first["currency"] == "EUR"
    assert first["total"]["saved"] == {"requests": 0, "bytes": 0, "money": pytest.approx(0, abs=EPSILON)}
    assert first["total"]["money_spent"] == pytest.approx(1 / 1000 + len(BODY) / 10**9 * 1000)
    for _ in range(3):
        await proxy.get("/x")
    await proxy.request("HEAD", "/x")
    found = (await summary(proxy))["total"]
    assert found["money_spent"] == first["total"]["money_spent"]
    assert found["saved"]["requests"] == 4
    assert found["saved"]["bytes"] == 3 * len(BODY)
    assert found["saved"]["money"] == pytest.approx(4 / 1000 + 3 * len(BODY) / 10**9 * 1000)
    assert found["hit_ratio"] == {"requests": 0.8, "bytes": 0.75}
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_money_saved{currency="EUR",mount="/"}' in text
    assert 'mount=""' not in "".join(line for line in text.splitlines() if "money" in line)


async def test_a_conditional_hit_saves_only_a_request(proxy: Proxy, s3: S3) -> None:
    """A 304 saves no bytes, because S3 would have sent a 304 as well. A refused request saves nothing."""
    etag = s3.put("x", BODY)
    await proxy.get("/x")
    await proxy.settled()
    assert (await proxy.get("/x", If_None_Match=etag)).status == 304
    assert (await proxy.request("PATCH", "/x")).status == 405
    found = (await summary(proxy))["total"]
    assert (found["reads"], found["saved"]["requests"], found["saved"]["bytes"]) == (2, 1, 0)
    assert found["saved"]["money"] is None


async def test_mounts_have_their_own_figures(start: StartProxy, s3: S3) -> None:
    """Each mount has its reads, its requests to S3 and its prices. The total is the sum."""
    mounts = [
        {"path": "/", "bucket": s3.bucket},
        {"path": "/cold/", "bucket": s3.bucket, "prefix": "cold/", "pricing": {**PRICES, "per_1000_gets": 50.0}},
    ]
    proxy = await start(mounts=mounts, pricing=PRICES, uploads=None)
    for key in ("x", "cold/y"):
        s3.put(key, BODY)
    for target in ("/x", "/x", "/cold/y", "/cold/y", "/cold/y"):
        await proxy.get(target)
        await proxy.settled()
    found = await summary(proxy)
    by_mount = {one["mount"]: one for one in found["mounts"]}
    assert (by_mount["/"]["reads"], by_mount["/cold/"]["reads"]) == (2, 3)
    assert (by_mount["/"]["origin_reads"], by_mount["/cold/"]["origin_reads"]) == (1, 1)
    assert (by_mount["/"]["origin_bytes"], by_mount["/cold/"]["origin_bytes"]) == (len(BODY), len(BODY))
    assert by_mount["/cold/"]["saved"]["money"] == pytest.approx(2 * (50 / 1000 + len(BODY) / 10**9 * 1000))
    assert found["total"]["reads"] == 5
    assert found["total"]["saved"]["money"] == pytest.approx(sum(one["saved"]["money"] for one in by_mount.values()))


async def test_sizes(proxy: Proxy, s3: S3) -> None:
    """After some requests there are estimates for other sizes. A larger cache never has a lower hit ratio."""
    assert (await summary(proxy))["sizing"] is None
    for key in ("a", "b"):
        s3.put(key, BODY)
        for _ in range(3):
            await proxy.get(f"/{key}")
            await proxy.settled()
    sizing = (await summary(proxy))["sizing"]
    assert (sizing["requests"], sizing["objects"], sizing["sample_rate"]) == (6, 2, 1.0)
    limit = proxy.app.settings.cache.max_size
    assert [(one["factor"], one["bytes"]) for one in sizing["sizes"]] == [
        (factor, int(limit * factor)) for factor in (0.5, 1.0, 2.0, 4.0)
    ]
    assert {one["hit_ratio"]["requests"] for one in sizing["sizes"]} == {4 / 6}
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_predicted_hit_ratio{by="bytes",factor="0.5"} 0.666' in text


async def test_what_is_degraded(proxy: Proxy, s3: S3) -> None:
    """The summary has the reasons of `/readyz`, and why objects were not stored."""
    s3.put("x", b"data", CacheControl="no-store")
    await proxy.get("/x")
    found = await summary(proxy)
    assert found["degraded"] == []
    assert found["refusals"]["no-store"] == 1
    assert found["seconds"] >= 0
