"""What `top` and `tail` print is bounded by the terminal, and acts on it in no way (I28)."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cli.tail import line_of
from bucketfront.cli.top_frame import Sort, frame_lines
from bucketfront.cli.units import milliseconds, printable, rate, ratio, size

FIGURES = (
    "requests", "sent_bytes", "received_bytes", "client_errors", "server_errors", "cut", "lookups", "part_fetches",
    "evicted",
)  # fmt: skip


def request(path: str = "/x", **facts: Any) -> dict[str, Any]:
    line = {"time": "2026-09-21T14:13:20.123Z", "client": "127.0.0.1", "method": "GET", "path": path, "status": 200,
            "sent": 1234567, "ms": 12.5, "cache": "hit; ttl=3"}  # fmt: skip
    return {**line, **facts}


def frame(hot: int = 2, slow: int = 2, fills: int = 2) -> dict[str, Any]:
    figure = {"total": 12345, "per_s": 1.5}
    rows = [{"path": f"/hot/{n}", "requests_per_s": 9.0 - n, "bytes_per_s": 10.0 * n} for n in range(hot)]
    fill = {"percent": 12.5, "size": 1 << 30, "readers": 3, "rate": 1 << 20, "seconds_left": 3.5}
    return {
        "time": "2026-09-21T14:13:20.123Z",
        "rate_s": 5.0,
        "figures": dict.fromkeys(FIGURES, figure),
        "decisions": {name: {"requests": figure, "bytes": figure} for name in ("hit", "miss")},
        "hit_ratio": 0.987,
        "byte_hit_ratio": None,
        "fetches_running": 4,
        "fills": [{"path": f"/fill/{n}", **fill} for n in range(fills)],
        "connections": {"open": 3, "limit": 1000},
        "cache": {"entries": 1_000_000, "bytes_used": 1 << 30, "bytes_limit": 1 << 31},
        "hottest": {"by_requests": rows, "by_bytes": rows[::-1]},
        "slowest": [request(f"/slow/{n}") for n in range(slow)],
        "degraded": ["disk-failing"],
    }


def test_a_whole_frame() -> None:
    """With room enough, a frame has rates, ratios, decisions, fills, hottest objects, slowest requests and troubles."""
    text = "\n".join(line.text for line in frame_lines(frame(), Sort.REQUESTS, 200))
    for part in ("degraded: disk-failing", "98.7 %", "1,000,000 objects", "/fill/1", "12.5 %", "/hot/1", "/slow/1"):
        assert part in text, part
    assert text.index("/hot/0") < text.index("/hot/1")


@each_row(("sort", "first"), [(Sort.REQUESTS, "/hot/0"), (Sort.BYTES, "/hot/2"), (Sort.PATH, "/hot/0")])
def test_sort(sort: Sort, first: str) -> None:
    """The hottest objects are those by requests or by bytes, and the heading names the order."""
    lines = [line.text for line in frame_lines(frame(hot=3), sort, 200)]
    (heading,) = (number for number, text in enumerate(lines) if "HOTTEST" in text)
    assert f"by {sort}" in lines[heading]
    assert lines[heading + 1].endswith(first)


@given(
    st.integers(0, 30), st.integers(0, 10), st.integers(0, 20), st.integers(0, 200), st.integers(0, 80),
    st.sampled_from(Sort),
)  # fmt: skip
def test_a_frame_fits(hot: int, slow: int, fills: int, width: int, height: int, sort: Sort) -> None:
    """A frame never has more lines or columns than the terminal, however small it is."""
    lines = frame_lines(frame(hot, slow, fills), sort, width, height)
    assert len(lines) <= height
    assert all(len(line.text) <= width for line in lines)


def test_each_section_keeps_a_row() -> None:
    """On a usual terminal each section that has rows shows one at least, also if others have many."""
    text = "\n".join(line.text for line in frame_lines(frame(30, 10, 20), Sort.REQUESTS, 80, 23))
    assert all(part in text for part in ("hit ", "/fill/0", "/hot/0", "/slow/0"))


@each_row(
    ("shown", "text"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1024), "1 KiB"),
        (size(1_500_000), "1.43 MiB"),
        (size(123 << 20), "123 MiB"),
        (size(1 << 62), "4096 PiB"),
        (rate(0), "0"),
        (rate(0.25), "0.25"),
        (rate(12345.6), "12,346"),
        (ratio(None), "-"),
        (ratio(0.9876), "98.8 %"),
        (milliseconds(0.421), "0.421 ms"),
        (milliseconds(120), "120 ms"),
        (milliseconds(12500), "12.5 s"),
    ],
)
def test_units(shown: str, text: str) -> None:
    """Numbers have three or four digits and their unit."""
    assert shown == text


@given(st.text(max_size=30))
def test_nothing_acts_on_the_terminal(text: str) -> None:
    """A line of `tail` has no control character of a client, whatever it sent, except the colours of our own (I28)."""
    shown = line_of(json.loads(json.dumps(request(text, fault=text, cause=text, method=text, client=text))))
    for colour in ("\x1b[32m", "\x1b[31m", "\x1b[0m"):
        shown = shown.replace(colour, "")
    assert shown.isprintable()
    assert printable("/a b/ü") == "/a b/ü"


@each_row(
    ("facts", "parts"),
    [
        ({}, ("14:13:20.123Z 200 hit ", "12.5 ms", "1.18 MiB", "127.0.0.1", "GET  /x")),
        ({"cache": "fwd=miss; stored"}, ("200 miss ",)),
        (
            {"status": 502, "fault": "OriginRefused", "cause": "check origin.credentials"},
            ("502", "OriginRefused check"),
        ),
    ],
)
def test_line(facts: dict[str, Any], parts: tuple[str, ...]) -> None:
    """A line has time, status, decision, duration, size, client, method, path, and what failed."""
    shown = line_of(request(**facts))
    assert all(part in shown for part in parts), shown
