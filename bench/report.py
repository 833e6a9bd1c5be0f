"""A run's figures as a table: on the terminal, as JSON, and in docs/performance.md."""

import json
import math
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import OURS, Figure
from picture import svg

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
NOTES = ROOT / "docs" / "performance-notes.md"

_HEAD = """\
# Performance

Written by `make bench` ({date}, {seconds} s). `bench/run.py --only 2` runs one scenario and leaves this page alone.

Machine: {machine}. Everything ran on it at once: proxy, origin and clients; all proxies were up, and took turns.
bucketfront ran as `bucketfront serve` with default settings, its access log in a file; nginx {nginx} with one worker,
`sendfile`, `open_file_cache` and its access log in a file: *whole* with `proxy_cache_lock`, *slice 1m* with the slice
module as well; Varnish {varnish} with its cache in memory and its log in shared memory.

![Each measure as a multiple of the best of nginx and Varnish](performance.svg)

"""

_TAIL = """
What the rows mean. Medians of three rounds; *ratio* is bucketfront's to the best of the others.

- **1** `wrk`, one thread; cookies, addresses, request ids and browsers differ from request to request. 16 objects up to
  100 KiB, 4 of 1 MiB, 2 of 10 MiB. p50 and p99 are in the JSON.
- **2** Ranges at any offset. `wrk` cannot read answers to HEAD: these come from a slower client, so what counts is the
  proxy's CPU for each.
- **3** Each client compares each byte with what it has to be.
- **4, 5** A cold object each time; of 5 fifteen rounds, three of those who fetch the whole object.
- **6** User and system time of all processes of a proxy while it served 1.
- **7** Two clients read one cold GiB after the other while `wrk` asks for small objects. *Beside another's fills*:
  nginx fills, and bucketfront only answers hits: what is due to the machine, which has more to do than it has cores.
- **8** Time from before the connection is made to the first byte of the body, at offsets of every kind: present, just
  ahead of the running parts, inside one, and at 10 to 99 % of the object.
- **9** 2 MiB at the head, the tail and 20 random offsets, one after the other. *Closed*: `bytes=a-b`, as Safari,
  ExoPlayer and DASH send them. *Open-ended*: `bytes=a-`, and the client leaves after 2 MiB, as Chromium and ffmpeg do.
- **cost** User and system time of each request, of a slower client that all proxies can serve.
- **server.workers** The purge waits for four front ends that have leases. Two workers run beside two of nginx. `wrk`
  takes a part of the same cores, so the CPU of a hit counts as well.
- **S3 clients** boto3, a client that does nothing but sign, and DuckDB, each in a process of its own, take turns at
  SeaweedFS and at bucketfront's S3 endpoint in front of it. *CPU of the server* is what a GET costs the one that
  responds. Requests and bytes to the origin are counted between bucketfront and SeaweedFS.
- **uploads** bucketfront and the AWS command line {awscli} take turns, and what S3 has afterwards is compared with
  what was sent. No other cache here takes uploads for S3: nginx and Varnish cannot sign them.

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
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    versions = f"Linux {platform.release()} with TCP {congestion}, {python_build()}"
    return f"{model}, {cores} cores, {memory:.0f} GiB, {versions}"


def is_optimised() -> bool:
    """Return whether this Python was built with profile-guided optimisation, as those of distributions are."""
    return sys.base_prefix == "/usr" or "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


def python_build() -> str:
    kind = "with" if is_optimised() else "without"
    return f"Python {platform.python_version()} {kind} profile-guided optimisation"


def version(executable: str | None, flag: str) -> str:
    """Return the version as in `1.22.1`."""
    if executable is None:
        return "not installed"
    output = subprocess.run([executable, flag], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+\.\d+", output.stderr + output.stdout)
    return found[0] if found else "unknown"


def _shown(figure: Figure) -> str:
    value = figure.value
    if not math.isfinite(value):
        return "never"
    if not figure.unit and value == int(value):
        return str(int(value))
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    text = f"{value:.{digits}f} {figure.unit}".strip().removesuffix(" x")
    return text + (" (faults)" if figure.detail.get("faults") else "")


def _verdict(figure: Figure) -> str:
    return {None: "", True: "met", False: "**missed**"}[figure.is_met]


def _rows(figures: list[Figure]) -> Iterator[list[str]]:
    proxies = list(dict.fromkeys(figure.proxy for figure in figures))
    proxies.sort(key=lambda name: name != OURS)
    yield ["", *proxies, "ratio", "goal", ""]
    scenario = None
    for figure in figures:
        if figure.proxy != OURS:
            continue
        if figure.scenario != scenario:
            scenario = figure.scenario
            yield [f"**{scenario}**", *[""] * (len(proxies) + 3)]
        same = {each.proxy: each for each in figures if (each.scenario, each.what) == (scenario, figure.what)}
        cells = [_shown(same[proxy]) if proxy in same else "" for proxy in proxies]
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        goal = "" if figure.goal is None else figure.goal.text(figure.better)
        yield [figure.what, *cells, ratio, goal, _verdict(figure)]


def table(figures: list[Figure]) -> str:
    """Return a Markdown table, padded so that its source is readable."""
    rows = list(_rows(figures))
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(figures: list[Figure], facts: dict[str, Any]) -> None:
    """Write the run's files, which are all committed. The hand-written text comes last."""
    rows = [asdict(figure) for figure in figures]
    for each in rows:
        each["value"] = round(each["value"], 4) if math.isfinite(each["value"]) else None
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**facts, "figures": rows}, indent=1, default=str) + "\n")
    PICTURE.write_text(svg(figures))
    PAGE.write_text(_HEAD.format(**facts) + table(figures) + "\n" + _TAIL.format(**facts) + NOTES.read_text())
