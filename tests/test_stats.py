"""`bucketfront stats`: the report answers an operator's questions in words that fit the figures."""

import copy
from typing import Any

from rows import each_row

from bucketfront.cli.stats import report

MOUNT = {
    "mount": "/", "reads": 1000, "hits": 900, "bytes": 5 << 30, "cached_bytes": 4 << 30,
    "hit_ratio": {"requests": 0.9, "bytes": 0.8}, "origin_reads": 120, "origin_writes": 7, "origin_bytes": 3 << 29,
    "origin_wasted": {"unread": 3 << 20, "outdated": 1 << 20, "twice": 0, "cut-off": 0},
    "saved": {"requests": 880, "bytes": (5 << 30) - (3 << 29), "money": 1.25}, "money_spent": 0.5,
}  # fmt: skip
FIGURES: dict[str, Any] = {
    "version": "1.2.3", "entries": 12345, "bytes_used": 1 << 29, "bytes_limit": 1 << 30, "endings": {"filled": 3},
    "summary": {
        "mode": "serve", "forecast": None, "shadow": None, "bus": None,
        "seconds": 7385.0, "total": {**MOUNT, "mount": ""}, "mounts": [MOUNT], "currency": None, "sizing": None,
        "removals": {"space": 40, "idle": 0, "purged": 2}, "refusals": {"no-store": 3, "rule": 0}, "degraded": [],
    },
}  # fmt: skip


def sizes(*by_bytes: float) -> dict[str, Any]:
    """Return the sizing of a cache of 1 GiB with these hit ratios for half, the same, double and four times of it."""
    estimates = [
        {"factor": factor, "bytes": int(factor * (1 << 30)), "hit_ratio": {"requests": ratio, "bytes": ratio}}
        for factor, ratio in zip((0.5, 1.0, 2.0, 4.0), by_bytes, strict=True)
    ]
    return {"requests": 5000, "objects": 77, "sample_rate": 1.0, "sizes": estimates}


def reported(**changes: Any) -> str:
    figures = copy.deepcopy(FIGURES)
    figures["summary"].update(changes)
    return "\n".join(report(figures))


def test_a_report() -> None:
    """The report has hit ratios, what S3 sent, what is saved, the cache, removals, and that nothing is wrong."""
    text = reported()
    assert "bucketfront 1.2.3, for 2 h 3 min" in text
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert lines["read by clients"][-3:] == ["1,000", "5.0", "GiB"]
    assert lines["hit ratio"][-4:] == ["90.0", "%", "80.0", "%"]
    assert lines["read from S3"][-3:] == ["120", "1.5", "GiB"]
    assert lines["of no use"][-2:] == ["4.0", "MiB"]
    assert lines["saved"][-3:] == ["880", "3.5", "GiB"]
    assert "cache: 12,345 objects, 512 MiB of 1.0 GiB (50.0 %)" in text
    assert "removed: 40 space, 2 purged\n" in text
    assert "not stored: 3 no-store\n" in text
    assert "nothing is degraded" in text
    assert "costs" not in text


def test_money() -> None:
    """With prices the report has what S3 costs, and less or more than without the cache."""
    assert "S3 costs 0.50 USD, 1.25 USD less than without the cache" in reported(currency="USD")
    dear = copy.deepcopy(FIGURES["summary"]["total"])
    dear["saved"]["money"] = -0.25
    assert "0.25 USD more than without the cache" in reported(currency="USD", total=dear)


def test_the_mode_comes_first() -> None:
    """While the cache does not serve, the report begins with that, and has a forecast, with money if it has prices."""
    forecast = {**sizes(0.3, 0.5, 0.7, 0.9), "reads": 5000, "bytes": 5 << 30}
    for each in forecast["sizes"]:
        each.update(origin_reads=1234, origin_bytes=1 << 30, saved={"money": 2.5})
    text = reported(mode="observe", forecast=forecast, currency="USD")
    assert text.index("cache.mode is observe: S3 serves each read") < text.index("read by clients")
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert lines["would read from S3"][-4:] == ["1,234"] * 4
    assert lines["would save USD"][-4:] == ["2.50"] * 4
    assert "advice: 4 times the size would serve 40 % more of the bytes" in text
    assert "would save" not in reported(mode="observe", forecast=forecast)


def test_a_shadow() -> None:
    """The report has the verdicts that occurred, and each difference without a character that acts on a terminal."""
    difference = {"verdict": "bytes", "bucket": "b", "key": "a\x1b[2J", "text": "bytes 0-9 differ", "at": 1.0}
    shadow = {"verdicts": {"same": 1234, "stale": 0, "bytes": 1}, "differences": [difference]}
    text = reported(mode="shadow", shadow=shadow)
    assert "compared with S3: 1,234 same, 1 bytes" in text
    assert "bytes: b/a\\x1b[2J: bytes 0-9 differ" in text
    assert "\x1b" not in text


def test_several_mounts() -> None:
    """Several mounts have a line each, and one alone has none."""
    other = {**copy.deepcopy(MOUNT), "mount": "/videos/", "reads": 0, "hit_ratio": {"requests": None, "bytes": None}}
    assert "/videos/" in reported(mounts=[MOUNT, other])
    assert "mount" not in reported()


@each_row(
    ("ratios", "advice"),
    [
        ((0.3, 0.5, 0.7, 0.9), "4 times the size would serve 40 % more of the bytes"),
        ((0.3, 0.5, 0.7, 0.705), "2 times the size would serve 20 % more of the bytes"),
        ((0.499, 0.5, 0.505, 0.51), "half the size would do"),
        ((0.4, 0.5, 0.505, 0.51), "the size is right"),
        ((0.5, 0.5, 0.51, 0.8), "4 times the size would serve 30 % more of the bytes"),
    ],
)
def test_advice(ratios: tuple[float, ...], advice: str) -> None:
    """The advice is the largest step that is worth it."""
    assert f"advice: {advice}" in reported(sizing=sizes(*ratios))


def test_no_advice_yet() -> None:
    """After few requests there is no advice, because most of them are the first ones for their objects."""
    few = {**sizes(0.1, 0.2, 0.9, 0.9), "requests": 26}
    assert "advice: none yet" in reported(sizing=few)


def test_degraded() -> None:
    """What is degraded is at the end, with its reason and how long it has lasted."""
    reason = {"reason": "disk-failing", "name": "disk", "seconds": 75}
    assert reported(degraded=[reason]).endswith("degraded: disk-failing (disk), for 1 min 15 s")


def test_the_bus() -> None:
    """With a bus, the report has whether it works, why not, since when, and what went over it."""
    bus: dict[str, Any] = {"failure": None, "lag": 0.4, "queued": 0, "sent": 1234, "received": 56, "gaps": 0}
    assert "bus: works, in step 0 s ago, 1,234 notices sent, 56 received\n" in reported(bus=bus)
    bus |= {"failure": "no\x1b way", "lag": 75.0, "queued": 3, "gaps": 2}
    text = reported(bus=bus)
    assert "in step 1 min 15 s ago, 3 notices wait, 1,234 notices sent, 56 received, missed some 2 times" in text
    assert "bus: fails (no" in text
    assert "\x1b" not in text
    assert "bus:" not in reported()
