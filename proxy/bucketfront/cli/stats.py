"""`bucketfront stats`."""

import json
from pathlib import Path
from typing import Any

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.options import config_option, json_option, load
from bucketfront.cli.units import printable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_WORTHWHILE = 0.02  # a hit ratio that rises by less is not worth another disk
_MIN_REQUESTS = 1000  # fewer show what is new, and not what is requested again


@click.command()
@click.option("--counters", is_flag=True, help="Print all counters of the cache as well.")
@config_option
@json_option
def stats(config: Path, *, counters: bool, as_json: bool) -> None:
    """Print the figures of the running proxy: hit ratios, what S3 sends, money, sizes, what is degraded."""
    response = call_admin(load(config).settings, "GET", "/api/v1/stats")
    if as_json:
        click.echo(json.dumps(response))
        return
    for line in report(response):
        click.echo(line)
    if counters:
        click.echo()
        endings = {f"flights {ending}": count for ending, count in response["endings"].items()}
        others = {name: value for name, value in response.items() if name not in ("endings", "summary")}
        for name, value in {**others, **endings}.items():
            click.echo(f"{name.replace('_', ' '):<20} {value}")


def report(figures: dict[str, Any]) -> list[str]:
    """Return the lines of the report."""
    summary = figures["summary"]
    total, currency = summary["total"], summary["currency"]
    lines = [f"bucketfront {figures['version']}, for {_lasted(summary['seconds'])}", ""]
    if summary["mode"] != "serve":
        from bucketfront.config.cache_settings import MODE_NOTICES

        lines += [MODE_NOTICES[summary["mode"]], ""]
    lines += _table(
        [
            ("", "requests", "bytes"),
            ("read by clients", f"{total['reads']:,}", _bytes(total["bytes"])),
            ("hit ratio", *(_percent(total["hit_ratio"][by]) for by in ("requests", "bytes"))),
            ("read from S3", f"{total['origin_reads']:,}", _bytes(total["origin_bytes"])),
            *([("of no use", "", _bytes(wasted))] if (wasted := sum(total["origin_wasted"].values())) else []),
            ("saved", f"{total['saved']['requests']:,}", _bytes(total["saved"]["bytes"])),
            ("written to S3", f"{total['origin_writes']:,}", ""),
        ]
    )
    if currency is not None:
        lines += ["", f"S3 costs {total['money_spent']:.2f} {currency}, {_saved(total['saved']['money'], currency)}"]
    if len(summary["mounts"]) > 1:
        lines += ["", *_mounts(summary["mounts"], currency)]
    lines += ["", *_cache(figures)]
    if summary["sizing"] is not None:
        lines += ["", *_sizes(summary["sizing"])]
    if summary["forecast"] is not None:
        lines += ["", *_forecast(summary["forecast"], currency)]
    if summary["shadow"] is not None:
        lines += ["", *_shadow(summary["shadow"])]
    if summary["bus"] is not None:
        lines += ["", _bus(summary["bus"])]
    return [*lines, "", *_degraded(summary["degraded"])]


def _saved(amount: float, currency: str) -> str:
    """Return what the cache saves, for a report on costs."""
    if amount >= 0:
        return f"{amount:.2f} {currency} less than without the cache"
    return f"{-amount:.2f} {currency} more than without the cache: it reads more of S3 than its clients do"


def _mounts(mounts: list[dict[str, Any]], currency: str | None) -> list[str]:
    rows = [("mount", "reads", "hits", "bytes", "from S3", *(() if currency is None else (f"saved {currency}",)))]
    for mount in mounts:
        money = mount["saved"]["money"]
        rows.append(
            (
                mount["mount"] or "(no mount)",
                f"{mount['reads']:,}",
                _percent(mount["hit_ratio"]["requests"]),
                _bytes(mount["bytes"]),
                _bytes(mount["origin_bytes"]),
                *(() if currency is None else ("" if money is None else f"{money:.2f}",)),
            )
        )
    return _table(rows)


def _cache(figures: dict[str, Any]) -> list[str]:
    used, limit = figures["bytes_used"], figures["bytes_limit"]
    removed = [f"{count:,} {reason}" for reason, count in figures["summary"]["removals"].items() if count]
    refused = [f"{count:,} {reason}" for reason, count in figures["summary"]["refusals"].items() if count]
    return [
        f"cache: {figures['entries']:,} objects, {_bytes(used)} of {_bytes(limit)} ({_percent(used / limit)})",
        f"removed: {', '.join(removed) or 'nothing'}",
        *([f"not stored: {', '.join(refused)}"] if refused else []),
    ]


def _sizes(sizing: dict[str, Any]) -> list[str]:
    sizes = sizing["sizes"]
    rows = [
        ("a cache of", *(_bytes(each["bytes"]) for each in sizes)),
        ("would hit", *(_percent(each["hit_ratio"]["requests"]) for each in sizes)),
        ("of the bytes", *(_percent(each["hit_ratio"]["bytes"]) for each in sizes)),
    ]
    few = sizing["requests"] < _MIN_REQUESTS
    advice = "advice: none yet, after so few requests" if few else _advice(sizes)
    return [*_table(rows), f"estimated from {sizing['requests']:,} requests for {sizing['objects']:,} objects", advice]


def _forecast(forecast: dict[str, Any], currency: str | None) -> list[str]:
    """Return what the cache would give if it served."""
    sizes = forecast["sizes"]
    rows = [
        ("a cache of", *(_bytes(each["bytes"]) for each in sizes)),
        ("would hit", *(_percent(each["hit_ratio"]["requests"]) for each in sizes)),
        ("of the bytes", *(_percent(each["hit_ratio"]["bytes"]) for each in sizes)),
        ("would read from S3", *(f"{each['origin_reads']:,}" for each in sizes)),
        ("in bytes", *(_bytes(each["origin_bytes"]) for each in sizes)),
    ]
    if currency is not None:
        rows.append((f"would save {currency}", *(f"{each['saved']['money']:.2f}" for each in sizes)))
    few = forecast["reads"] < _MIN_REQUESTS
    advice = "advice: none yet, after so few requests" if few else _advice(sizes)
    of = f"forecast from {forecast['reads']:,} reads of {_bytes(forecast['bytes'])}, {forecast['objects']:,} objects"
    return [*_table(rows), of, advice]


def _shadow(shadow: dict[str, Any]) -> list[str]:
    """Return how the cache compares with S3."""
    found = [f"{count:,} {verdict}" for verdict, count in shadow["verdicts"].items() if count]
    lines = [f"compared with S3: {', '.join(found) or 'nothing yet'}"]
    return lines + [
        printable(f"  {each['verdict']}: {each['bucket']}/{each['key']}: {each['text']}")
        for each in shadow["differences"]
    ]


def _bus(bus: dict[str, Any]) -> str:
    """Return how the bus is, and what went over it."""
    parts = [
        "bus: works" if bus["failure"] is None else printable(f"bus: fails ({bus['failure']})"),
        f"in step {_lasted(bus['lag'])} ago",
        *([f"{bus['queued']:,} notices wait"] if bus["queued"] else []),
        f"{bus['sent']:,} notices sent",
        f"{bus['received']:,} received",
        *([f"missed some {bus['gaps']:,} times"] if bus["gaps"] else []),
    ]
    return ", ".join(parts)


def _advice(sizes: list[dict[str, Any]]) -> str:
    """Return which size of the cache to choose: the largest step whose gain is worth it."""
    by_factor = {each["factor"]: each for each in sizes}
    now = by_factor[1.0]["hit_ratio"]["bytes"] or 0.0
    for factor in (4.0, 2.0):
        gain = (by_factor[factor]["hit_ratio"]["bytes"] or 0.0) - now
        less = (by_factor[factor / 2]["hit_ratio"]["bytes"] or 0.0) - now
        if gain - less >= _WORTHWHILE:
            return f"advice: {factor:g} times the size would serve {100 * gain:.0f} % more of the bytes"
    if now - (by_factor[0.5]["hit_ratio"]["bytes"] or 0.0) < _WORTHWHILE:
        return "advice: half the size would do"
    return "advice: the size is right"


def _degraded(reasons: list[dict[str, Any]]) -> list[str]:
    if not reasons:
        return ["nothing is degraded"]
    return [f"degraded: {each['reason']} ({each['name']}), for {_lasted(each['seconds'])}" for each in reasons]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the rows with their columns under each other, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            (row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
        )
        for row in rows
    ]


def _bytes(count: float) -> str:
    size, unit = abs(float(count)), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = 0 if unit == 0 or size >= 100 else 1
    return f"{'-' if count < 0 else ''}{size:.{digits}f} {_UNITS[unit]}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _lasted(seconds: float) -> str:
    parts: list[str] = []
    for length, name in _TIMES:
        count, seconds = divmod(seconds, length)
        if count or (name == "s" and not parts):
            parts.append(f"{int(count)} {name}")
    return " ".join(parts[:2])
