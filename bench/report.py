"""A run's figures as a table: on the terminal, as JSON, and in docs/performance.md."""

import json
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scenarios import Figure

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"

_HEAD = """\
# Performance

Written by `make bench` ({date}). `bench/run.py --only 2` runs one scenario and leaves this page alone.

Machine: {machine}. Everything ran on it at once: proxy, origin and clients.
bucketfront ran as `bucketfront serve` with default settings; nginx: {nginx}.

"""

_TAIL = """
What the rows mean:

- **1** One object that nobody has yet, and everybody wants. *Origin bytes* are those that the origin's sockets took, as
  a multiple of the object's size. *Blocks asked again*: blocks of 256 KiB that were in more than one request to the
  origin, less one each. Each client compares each byte with what it has to be. Memory is `VmRSS`, sampled every 50 ms,
  against the freshly started process; *anonymous* is `RssAnon`, without the pages of files.
- **2** Time from before the connection is made to the first byte of the body. The second client's offsets: 0, a random
  one that is present, just ahead of the running parts, inside a running part ahead of what is written, and 10, 50,
  75 and 99 % of the object. For nginx one round of each, all at once; for bucketfront {rounds} rounds, one by one.
- **3** What the origin sent until nothing more came. nginx without slices fetches the whole object.
- **4** One client, three cold objects one after the other (nginx: one); the goal is held
  against the median and the worst of them alike.
- **5** No goal: reported for comparison.
- **6** What the origin's sockets took until nothing more came, over what the client read: 2 MiB at the head, the tail,
  and 20 random offsets, one after the other, each on a connection of its own with a receive buffer of 256 KiB.
  *Closed*: `bytes=a-b`, as Safari, ExoPlayer and DASH on-demand send them. *Open-ended*: `bytes=a-`, and the client
  leaves after 2 MiB, as Chromium and ffmpeg do; here the origin sends 50 MB/s a connection, so that what is on its way
  when the client leaves is what a real network would hold.

nginx, whole: `proxy_cache` with `proxy_cache_lock`; slice: `slice 1m` as well. One worker process, with
`open_file_cache`: without it 100 clients of slices run out of descriptors.
Figures, with details of each, are in `bench/results/latest.json`.
"""


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = os.cpu_count()
    return f"{model}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def _shown(figure: Figure) -> str:
    value = figure.value
    if math.isinf(value):
        return "never"
    if value == int(value) and not figure.unit:
        return str(int(value))
    digits = 3 if figure.unit in ("x", "MiB") and value < 10 else 1
    return f"{value:.{digits}f} {figure.unit}".strip().replace(" x", "")


def _verdict(figure: Figure) -> str:
    return {None: "", True: "met", False: "**missed**"}[figure.is_met]


def _rows(figures: list[Figure]) -> Iterator[list[str]]:
    proxies = list(dict.fromkeys(figure.proxy for figure in figures))
    yield ["", "goal", *proxies, ""]
    scenario = None
    for figure in sorted(figures, key=lambda each: each.scenario):
        if figure.proxy != proxies[0]:
            continue
        if figure.scenario != scenario:
            scenario = figure.scenario
            yield [f"**{scenario}**", *[""] * (len(proxies) + 2)]
        same = {each.proxy: each for each in figures if (each.scenario, each.what) == (scenario, figure.what)}
        cells = [_shown(same[proxy]) if proxy in same else "" for proxy in proxies]
        yield [figure.what, figure.goal or "", *cells, _verdict(figure)]


def table(figures: list[Figure]) -> str:
    """As Markdown, padded so that it is readable as it is."""
    rows = list(_rows(figures))
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(figures: list[Figure], facts: dict[str, Any], rounds: int) -> None:
    """The run's files, both committed."""
    told = [asdict(figure) for figure in figures]
    for each in told:
        if math.isinf(each["value"]):
            each["value"] = None
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**facts, "figures": told}, indent=1, default=str) + "\n")
    PAGE.write_text(_HEAD.format(**facts) + table(figures) + "\n" + _TAIL.format(rounds=rounds))
