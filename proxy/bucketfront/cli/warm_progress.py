"""The course of warm jobs, as `warm` and `import` show it: a line that moves on a terminal, else a line at the end."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import FAILED, WRONG_USE, fail

if TYPE_CHECKING:
    from pathlib import Path

    from bucketfront.config.settings import Settings
    from bucketfront.warm.manifest import Wanted

POLL_S = 0.5
MAX_OBJECTS = 5_000  # of one job: so many paths of common length fit into one request
MAX_SHOWN_FAILURES = 10
_CANCELLED = 130  # as a shell shows the end by SIGINT: 128 + 2


def wanted_in(manifest: "Path") -> "Iterator[Wanted]":
    """Yield the objects of a manifest, of standard input for `-`. Ends the command if it is of no use."""
    try:
        with click.open_file(str(manifest), encoding="utf-8", errors="strict") as lines:
            yield from wanted_of(lines, manifest)
    except OSError as error:
        fail(f"cannot read {manifest}: {error.strerror}", WRONG_USE)


def wanted_of(lines: "Iterable[str]", manifest: "Path") -> "Iterator[Wanted]":
    """Yield the objects of the lines of a manifest. Ends the command if they are of no use."""
    from bucketfront.warm.manifest import BadManifest, read

    try:
        yield from read(lines)
    except BadManifest as error:
        fail(f"{manifest}: {error}", WRONG_USE)
    except UnicodeDecodeError:
        fail(f"cannot read {manifest}: it is not UTF-8", WRONG_USE)


def run_jobs(settings: "Settings", bodies: Iterable[dict[str, Any]], *, detach: bool, as_json: bool) -> None:
    """Run a job for each body, one after another, and end the command with 1 if objects failed.

    Ctrl-C cancels the job. With `detach`, the jobs go on in the proxy, and their ids are printed.
    """
    reports = []
    for body in bodies:
        report = call_admin(settings, "POST", "/api/v1/warm", body)
        if not detach:
            report = _followed(settings, report, as_json=as_json)
        reports.append(report)
        if report["state"] not in ("done", "running"):
            break
    if not reports:
        fail("the manifest names no objects", WRONG_USE)
    if as_json:
        click.echo(json.dumps(reports[0] if len(reports) == 1 else reports))
    elif detach:
        for report in reports:
            click.echo(report["id"])
    else:
        _show_end(reports)
    if not detach and (reports[-1]["state"] != "done" or any(report["failed"] for report in reports)):
        sys.exit(_CANCELLED if reports[-1]["state"] == "cancelled" else FAILED)


def bodies_of(objects: "Iterator[Wanted]", options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the bodies of the jobs that fill the objects of a manifest, each with a bounded number of them."""
    while batch := list(islice(objects, MAX_OBJECTS)):
        listed = [{"path": one.path, **({} if one.range is None else {"range": one.range})} for one in batch]
        yield {**options, "objects": listed}


def _followed(settings: "Settings", report: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Return the report of a job at its end. Ctrl-C cancels it."""
    path = f"/api/v1/jobs/{report['id']}"
    shows = not as_json and sys.stderr.isatty()
    try:
        while report["state"] == "running":
            if shows:
                click.echo(f"\r\x1b[K{_line(report)}", err=True, nl=False)
            time.sleep(POLL_S)
            try:
                report = call_admin(settings, "GET", path)
            except SystemExit:
                click.echo("the job ends with the proxy; run the same command again to go on", err=True)
                raise
    except KeyboardInterrupt:
        report = call_admin(settings, "POST", f"{path}/cancel", {})
    finally:
        if shows:
            click.echo("\r\x1b[K", err=True, nl=False)
    return report


def _line(report: dict[str, Any]) -> str:
    done, known = report["objects_done"], report["objects_known"]
    more = "" if report["list_is_complete"] else "+"
    left = report["seconds_left"]
    parts = [
        _bar(done, known) if report["list_is_complete"] else "",
        f"{done}/{known}{more} objects",
        f"{_size(report['bytes_done'])}, {_size(report['rate'])}/s",
        "" if left is None else f"{_duration(left)} left",
        f"{report['failed']} failed" if report["failed"] else "",
    ]
    return "  ".join(part for part in parts if part)


def _bar(done: int, known: int, width: int = 24) -> str:
    filled = width * done // known if known else width
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def _show_end(reports: list[dict[str, Any]]) -> None:
    def total(name: str) -> int:
        return sum(report[name] for report in reports)

    seconds = sum(report["seconds"] for report in reports)
    parts = [
        f"{total('filled')} filled ({_size(total('bytes_filled'))} in {_duration(seconds)})",
        f"{total('fresh')} fresh already",
        f"{total('not_stored')} not stored by rule or header" if total("not_stored") else "",
        f"{total('failed')} failed" if total("failed") else "",
    ]
    click.echo(", ".join(part for part in parts if part))
    if total("outside"):
        host = next((report["outside_example"] for report in reports if report["outside_example"]), None)
        hint = "" if host is None else f", as to {host}; if that is this proxy, give --host {host}"
        click.echo(f"{total('outside')} references lead to no mount of this proxy{hint}", err=True)
    failures = [failure for report in reports for failure in report["failures"]]
    for failure in failures[:MAX_SHOWN_FAILURES]:
        click.echo(f"{failure['path']}: {failure['reason']}", err=True)
    if total("failed") > MAX_SHOWN_FAILURES:
        click.echo(f"… and {total('failed') - MAX_SHOWN_FAILURES} more failed", err=True)
    last = reports[-1]
    if last["state"] != "done":
        click.echo(f"{last['state']}: {last['message'] or 'run the command again to go on'}", err=True)


def _size(count: float) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
