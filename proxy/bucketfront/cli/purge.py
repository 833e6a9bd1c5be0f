"""`bucketfront purge`."""

import json
from pathlib import Path
from typing import Any

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.options import config_option, json_option, load


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--prefix", help="Purge all below this path.")
@click.option("--soft", is_flag=True, help="Mark stale instead of removing: the next request revalidates.")
@config_option
@json_option
def purge(paths: tuple[str, ...], prefix: str | None, config: Path, *, soft: bool, as_json: bool) -> None:
    """Remove PATHS from the cache of the running proxy. Prints how many objects it removed."""
    if not paths and prefix is None:
        raise click.UsageError("name PATHS or --prefix")
    body: dict[str, Any] = {"paths": paths, "soft": soft}
    if prefix is not None:
        body["prefix"] = prefix
    response = call_admin(load(config).settings, "POST", "/api/v1/purge", body)
    click.echo(json.dumps(response) if as_json else f"{response['purged']} purged")
