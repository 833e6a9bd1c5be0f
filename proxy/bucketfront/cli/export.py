"""`bucketfront export`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from bucketfront import __version__
from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import fail
from bucketfront.cli.options import config_option, json_option, load

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@config_option
@json_option
def export(file: Path, config: Path, *, as_json: bool) -> None:
    """Write which objects the cache of the running proxy holds to FILE, the most used first. `-` is standard output.

    `import` fills another cache by this manifest. It has no bytes of objects.
    """
    from bucketfront.warm import manifest

    settings = load(config).settings
    count = 0
    try:
        with click.open_file(str(file), "w", encoding="utf-8", atomic=str(file) != "-") as output:
            output.write(manifest.header(__version__) + "\n")
            for found in _objects(settings):
                output.write(manifest.Wanted(found["path"], found["range"]).line() + "\n")
                count += 1
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
    if as_json:
        click.echo(json.dumps({"objects": count}), err=str(file) == "-")
    else:
        click.echo(f"{count} objects written to {file}", err=True)


def _objects(settings: "Settings") -> Iterator[dict[str, Any]]:
    """Yield what the cache holds, and then again what was used meanwhile, because it may have moved past the pages."""
    newest: float | None = None
    for found in _pages(settings):
        newest = found["accessed_at"] if newest is None else newest
        yield found
    for found in _pages(settings):
        if newest is None or found["accessed_at"] <= newest:
            return
        yield found


def _pages(settings: "Settings") -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        page = call_admin(settings, "GET", f"/api/v1/export{f'?cursor={quote(cursor)}' if cursor else ''}")
        yield from page["objects"]
        cursor = page["cursor"]
