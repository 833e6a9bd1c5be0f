"""`bucketfront explain`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import config_option, json_option, load

BAR_CELLS = 40
_BASES = {"configured": "freshness.default_ttl", "unknown": "a mark as stale, until it is validated"}
_COLOURS = {"hit": "green", "stale": "yellow", "partial": "yellow", "revalidate": "yellow", "refused": "red"}


@click.command()
@click.argument("path")
@click.option("--accept-encoding", help="The client's Accept-Encoding, for mounts with precompressed objects.")
@config_option
@json_option
def explain(path: str, accept_encoding: str | None, config: Path, *, as_json: bool) -> None:
    """Show what the cache has of PATH, which rules apply, and what the next GET gets.

    PATH is that of a URL, percent-encoded. Nothing changes: no request goes to S3, and no use is counted.
    """
    query = {"path": path} | ({} if accept_encoding is None else {"accept_encoding": accept_encoding})
    found = call_admin(load(config).settings, "GET", f"/api/v1/explain?{urlencode(query)}", refusals={400})
    if "error" in found:
        fail(f"{path}: {found['error']}", WRONG_USE)
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in lines_of(found):
        click.echo(line)  # without colours unless it is a terminal


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an explanation, with colours."""
    yield click.style(found["path"], bold=True)
    decision = found["next"]["decision"]
    yield _line("next GET", f"{click.style(decision, fg=_COLOURS.get(decision))}: {found['next']['why']}")
    if (last := found["last"]) is not None:
        fault = f", {last['fault']}" if last["fault"] else ""
        yield _line("last", f"{last['method']} {last['status']} {last['cache']}{fault}, {_date(last['at'])}")
    for mount in found["mounts"]:
        yield _line("mount", f"{mount['path']} is bucket {mount['bucket']}, prefix {mount['prefix']!r}")
        yield _line("access", "all clients may read" if mount["public"] else f"one of {', '.join(mount['read'])}")
    for candidate in found["candidates"]:
        yield ""
        yield from _lines_of_candidate(candidate)


def _lines_of_candidate(candidate: dict[str, Any]) -> Iterator[str]:
    mark = "*" if candidate["decides"] else " "
    traits = [name for name in ("optional", "fallback") if candidate[name]]
    version = f" version {candidate['version']}" if candidate["version"] else ""
    name = f"{candidate['bucket']}/{candidate['key']!a}{version}"
    yield f"{mark} {click.style(name, bold=candidate['decides'])}{' (' + ', '.join(traits) + ')' if traits else ''}"
    yield _line("next GET", f"{candidate['next']}: {candidate['why']}")
    if candidate["entry"] is not None:
        yield from _lines_of_entry(candidate, candidate["entry"])
    yield _line("lifetime", _lifetime(candidate["lifetime"]))
    yield _line("stale", _stale(candidate["lifetime"]))
    if (blocks := candidate["blocks"]) is not None and blocks["count"]:
        yield _line(
            "blocks", f"{bar(blocks['runs'], blocks['count'])} {blocks['percent']} % of {blocks['count']} blocks"
        )
        if blocks["unverified"]:
            yield _line("", f"{blocks['unverified']} are compared with their checksums before they are sent")
    if (fill := candidate["fill"]) is not None:
        rate = f"{fill['rate'] / 1e6:.1f} MB/s"
        yield _line("fill", f"{fill['part_count']} parts, {fill['reader_count']} readers, {rate}")
        for part in fill["parts"]:
            yield _line("", f"bytes {part['start']:,} to {part['stop']:,}, at {part['mark']:,}, {part['state']}")
    if candidate["looked_up"]:
        yield _line("lookup", "a request to S3 is under way, and others wait for it")
    if candidate["refused"]:
        yield _line("refused", "S3 refused it a short while ago, so other objects are tried first")
    if (removal := candidate["removal"]) is not None:
        yield _line("before", removal["text"])


def _lines_of_entry(candidate: dict[str, Any], entry: dict[str, Any]) -> Iterator[str]:
    yield _line("object", f"{entry['size']:,} bytes, {entry['type'] or 'no type'}, ETag {entry['etag']}")
    yield _line("stored", _date(entry["stored_at"]))
    validated = entry["validated_at"]
    age = f"age {_for(candidate['age'])}"
    yield _line("validated", "marked stale" if validated is None else f"{_date(validated)}, {age}")
    yield _line("last use", _date(entry["accessed_at"]) + _uses(candidate))


def _line(name: str, text: str) -> str:
    return f"  {name:<10} {text}"


def _for(seconds: float) -> str:
    from bucketfront.config.quantities import rounded_duration

    return rounded_duration(seconds)


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _uses(candidate: dict[str, Any]) -> str:
    pins = f", in use by {candidate['pins']}" if candidate["pins"] else ""
    return pins if candidate["uses"] is None else f", in memory{pins}"


def _lifetime(lifetime: dict[str, Any]) -> str:
    basis, rule = lifetime["basis"], lifetime["rule"]
    if rule is not None:
        kind = "the built-in rule" if lifetime["builtin"] else "the rule"
        by = f"{kind} {rule!r}"
    elif lifetime["header"] is not None:
        by = f"{basis} of its {lifetime['header']}"
    else:
        by = _BASES.get(basis, basis)
    return f"{_for(lifetime['ttl'])}, by {by}; a 404 is remembered for {_for(lifetime['negative_ttl'])}"


def _stale(lifetime: dict[str, Any]) -> str:
    if lifetime["must_revalidate"]:
        return "never served without a validation"
    window = lifetime["stale_while_revalidate"]
    revalidated = "up to 1 min" if window is None else _for(window)
    return (
        f"served for {revalidated} while it is revalidated, {_for(lifetime['stale_if_error'])} if S3 fails, "
        f"{_for(lifetime['outage'])} if S3 is out of reach"
    )


def bar(runs: list[tuple[int, int]], count: int) -> str:
    """Return a bar of the blocks. A cell is filled if all its blocks are present, and half filled if some are."""
    cells = min(BAR_CELLS, count)
    text = ""
    for cell in range(cells):
        start, stop = cell * count // cells, (cell + 1) * count // cells
        present = sum(max(0, min(stop, last) - max(start, first)) for first, last in runs)
        text += "#" if present == stop - start else "-" if present else "."
    return f"[{text}]"
