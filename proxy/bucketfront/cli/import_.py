"""`bucketfront import`."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bucketfront.cli.failure import FAILED, WRONG_USE, fail
from bucketfront.cli.options import config_option, json_option, load
from bucketfront.cli.warm import detach_option, parallel_option, rate_option
from bucketfront.cli.warm_progress import MAX_SHOWN_FAILURES, bodies_of, run_jobs, wanted_of

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings

_OF_MANIFESTS = ("rate", "parallel", "detach")


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@rate_option
@parallel_option
@detach_option
@config_option
@json_option
def import_(file: Path, rate: int | None, parallel: int, config: Path, *, detach: bool, as_json: bool) -> None:
    """Fill the cache of the running proxy with what a FILE of `export` has, the most used objects first.

    Of a manifest, the bytes come from S3: it is `warm --manifest FILE --no-follow`. Of an archive (`export
    --with-bytes`), S3 only confirms with a HEAD that each version is current. Both go on where they ended if they are
    repeated. `-` is standard input.
    """
    from bucketfront.cli.archive_transfer import read_begin
    from bucketfront.warm.archive import UNIT, is_archive

    settings = load(config).settings
    try:
        with click.open_file(str(file), "rb") as content:
            begin = read_begin(content, UNIT)
            if is_archive(begin):
                _import_archive(settings, content, begin, as_json=as_json)
                return
            options = {"rate": rate, "parallel": parallel, "follow": False}
            bodies = bodies_of(wanted_of(_lines(content, begin), file), options)
            run_jobs(settings, bodies, detach=detach, as_json=as_json)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", WRONG_USE)


def _lines(content: IO[bytes], begin: bytes) -> Iterator[str]:
    """Yield the lines of a text of which the first bytes were read. Raises UnicodeDecodeError."""
    yield from (begin + content.readline()).decode().splitlines()
    for line in content:
        yield line.decode()


def _import_archive(settings: "Settings", content: IO[bytes], begin: bytes, *, as_json: bool) -> None:
    """Import an archive, show what came of it, and end the command with 1 if objects failed or are missing."""
    from bucketfront.cli.archive_transfer import is_terminal, rest_of, upload

    context = click.get_current_context()
    given = [name for name in _OF_MANIFESTS if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        fail(f"--{given[0]} is for manifests, and this is an archive", WRONG_USE)
    whole = _size_of(content)
    report = upload(settings, rest_of(content, begin), whole, is_shown=is_terminal() and not as_json)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show(report)
    if report["state"] != "done" or report["failed"] or report["damaged"]:
        sys.exit(FAILED)


def _size_of(content: IO[bytes]) -> int | None:
    """Return the size of a file in bytes, None for a pipe."""
    try:
        found = os.fstat(content.fileno())
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _show(report: dict[str, Any]) -> None:
    from bucketfront.cli.units import size

    others = {
        "changed": "changed at S3 since",
        "gone": "gone from S3",
        "not_stored": "not stored by rule, header or size",
        "outside": "below no mount",
        "failed": "failed",
    }
    parts = [
        f"{report['imported']} imported ({size(report['bytes'])})",
        f"{report['present']} present already",
        *(f"{report[name]} {text}" for name, text in others.items() if report[name]),
    ]
    click.echo(", ".join(parts))
    for failure in report["failures"][:MAX_SHOWN_FAILURES]:
        click.echo(f"{failure['path']}: {failure['reason']}", err=True)
    if report["damaged"]:
        click.echo(f"{report['damaged']} pieces of the archive are damaged, and were left out", err=True)
    if report["state"] != "done":
        click.echo(f"{report['state']}: {report['message']}", err=True)
