"""`bucketfront purge`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import FAILED
from bucketfront.cli.options import config_option, json_option, load

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings

TIMEOUT_S = 330.0  # somewhat longer than the admin port takes for any purge
BATCH_PATHS = 500  # of a file, in one request; the body of a request has room for as many of the longest
MAX_BAD_LINES = 20  # that are printed


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--prefix", help="Purge all that any mount shows at paths with this begin.")
@click.option("--glob", help="Purge the paths that match, as '/live/**/*.ts'. Patterns are those of freshness.rules.")
@click.option("--tag", "tags", multiple=True, help="Purge the objects that have this tag. Several may be named.")
@click.option("--all", "everything", is_flag=True, help="Purge the whole cache.")
@click.option(
    "--file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"),
    help="Purge the paths in a file, one a line. - is standard input.",
)  # fmt: skip
@click.option("--soft", is_flag=True, help="Mark stale instead of removing: the next request revalidates.")
@click.option("--wait", is_flag=True, help="Wait until all live proxies of the bus have applied it, and name those.")
@click.option("--dry-run", is_flag=True, help="Print what would be purged, and change nothing.")
@config_option
@json_option
def purge(
    paths: tuple[str, ...],
    prefix: str | None,
    glob: str | None,
    tags: tuple[str, ...],
    file: TextIO | None,
    config: Path,
    *,
    everything: bool,
    soft: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove PATHS from the cache of the running proxy. Prints how many objects it removed or marked stale.

    In a file, empty lines and lines that begin with # do not count. A line that names no object is reported with its
    number, and the others are purged; the exit status is 1 then. So it is if --wait finds that a live proxy of the bus
    has not applied the purge within 5 seconds.
    """
    selected: dict[str, Any] = {"paths": paths} if paths else {}
    selected |= {name: value for name, value in (("prefix", prefix), ("glob", glob)) if value is not None}
    selected |= {name: value for name, value in (("tags", tags), ("all", everything)) if value}
    if not selected and file is None:
        raise click.UsageError("name PATHS, --prefix, --glob, --tag, --all or --file")
    _check(glob, tags)
    settings, flags = load(config).settings, {"soft": soft, "dry_run": dry_run}
    waits = {"wait": True} if wait else {}
    outcome = _Outcome()
    if selected:
        outcome.add(call_admin(settings, "POST", "/api/v1/purge", selected | flags | waits, timeout=TIMEOUT_S))
    if file is not None:
        _purge_file(settings, file, flags | waits, outcome)
    _print(outcome, soft=soft, dry_run=dry_run, as_json=as_json)
    if outcome.bad_count or outcome.unacknowledged:
        sys.exit(FAILED)


def _check(glob: str | None, tags: tuple[str, ...]) -> None:
    """End the command if no path can match the glob, or no object can have one of the tags."""
    from bucketfront.errors import BadPath
    from bucketfront.http.cache_tags import is_tag
    from bucketfront.http.glob import glob_of

    for tag in tags:
        if not is_tag(tag):
            raise click.UsageError(f"an object cannot have the tag {tag[:80]!r}: it has commas or spaces, or no text")
    try:
        if glob is not None:
            glob_of(glob)
    except BadPath as error:
        raise click.UsageError(str(error)) from error


@dataclass(slots=True)
class _Outcome:
    """The sum of all responses, and the first lines of a file that name no object."""

    purged: int = 0
    objects: list[dict[str, Any]] = field(default_factory=list)
    bad_lines: list[dict[str, Any]] = field(default_factory=list)
    bad_count: int = 0
    acknowledged: set[str] = field(default_factory=set)
    unacknowledged: set[str] = field(default_factory=set)

    def add(self, response: dict[str, Any]) -> None:
        self.purged += response["purged"]
        self.objects += response.get("objects", ())
        self.acknowledged |= set(response.get("acknowledged") or ())
        self.unacknowledged |= set(response.get("unacknowledged") or ())

    def add_bad(self, number: int, error: str) -> None:
        self.bad_count += 1
        if len(self.bad_lines) < MAX_BAD_LINES:
            self.bad_lines.append({"line": number, "error": error})


def _purge_file(settings: "Settings", file: TextIO, flags: dict[str, bool], outcome: _Outcome) -> None:
    is_terminal = sys.stderr.isatty()
    # What is not removed would count again in a later batch.
    seen = set[str]() if flags["soft"] or flags["dry_run"] else None
    done = "marked stale" if flags["soft"] else "purged"
    for first, last, paths in _batches(settings, file, outcome, seen):
        try:
            outcome.add(call_admin(settings, "POST", "/api/v1/purge", {"paths": paths} | flags, timeout=TIMEOUT_S))
        except SystemExit:
            click.echo(f"stopped at the lines {first} to {last}; those before are done", err=True)
            raise
        if is_terminal:
            click.echo(f"\r{last} lines, {outcome.purged} {done}", nl=False, err=True)
    if is_terminal:
        click.echo("", err=True)


def _batches(
    settings: "Settings", file: TextIO, outcome: _Outcome, seen: set[str] | None
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the paths of a file in batches, each with the numbers of its first and last line.

    Paths in `seen` are skipped, and those that are yielded come into it.
    """
    from bucketfront.admin.purge_paths import PurgePaths
    from bucketfront.errors import BadPath, NoSuchMount

    known = PurgePaths(settings.mounts)
    first, last, batch = 1, 0, list[str]()
    for last, line in enumerate(file, 1):
        path = line.strip()
        if not path or path.startswith("#"):
            continue
        try:
            known.keys(path)
        except (BadPath, NoSuchMount) as error:
            outcome.add_bad(last, str(error))
            continue
        if seen is not None:
            if path in seen:
                continue
            seen.add(path)
        batch.append(path)
        if len(batch) == BATCH_PATHS:
            yield first, last, batch
            first, batch = last + 1, []
    if batch:
        yield first, last, batch


def _print(outcome: _Outcome, *, soft: bool, dry_run: bool, as_json: bool) -> None:
    if as_json:
        _print_json(outcome, dry_run=dry_run)
    else:
        _print_text(outcome, soft=soft, dry_run=dry_run)
    for name in sorted(outcome.unacknowledged):
        click.echo(f"not applied yet by {name}", err=True)
    for bad in outcome.bad_lines:
        click.echo(f"line {bad['line']}: {bad['error']}", err=True)
    if outcome.bad_count > len(outcome.bad_lines):
        click.echo(f"... and {outcome.bad_count - len(outcome.bad_lines)} more lines", err=True)


def _print_json(outcome: _Outcome, *, dry_run: bool) -> None:
    shown: dict[str, Any] = {"purged": outcome.purged}
    if dry_run:
        shown |= {"dry_run": True, "objects": outcome.objects}
    if outcome.acknowledged or outcome.unacknowledged:
        shown |= {"acknowledged": sorted(outcome.acknowledged), "unacknowledged": sorted(outcome.unacknowledged)}
    if outcome.bad_count:
        shown |= {"bad_lines": outcome.bad_lines}
    click.echo(json.dumps(shown))


def _print_text(outcome: _Outcome, *, soft: bool, dry_run: bool) -> None:
    for each in outcome.objects:
        version = "" if each["version"] is None else f"  version {each['version']}"
        click.echo((each["path"] or f"{each['bucket']} {each['key']!r}") + version)
    if dry_run and outcome.purged > len(outcome.objects):
        click.echo(f"... and {outcome.purged - len(outcome.objects)} more")
    nothing = "" if outcome.purged else ": nothing cached matches"
    done = "marked stale" if soft else "purged"
    click.echo(f"{outcome.purged} {'would be ' if dry_run else ''}{done}{nothing}")
    if outcome.acknowledged:
        click.echo(f"applied by {', '.join(sorted(outcome.acknowledged))}")
