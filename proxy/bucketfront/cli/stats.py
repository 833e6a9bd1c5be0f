"""`bucketfront stats`."""

import json
from pathlib import Path

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.options import config_option, json_option, load


@click.command()
@config_option
@json_option
def stats(config: Path, *, as_json: bool) -> None:
    """Print the counters of the running proxy."""
    response = call_admin(load(config).settings, "GET", "/api/v1/stats")
    if as_json:
        click.echo(json.dumps(response))
        return
    endings = response.pop("endings")
    for name, value in {
        **response,
        **{f"flights {ending}": count for ending, count in endings.items()},
    }.items():
        click.echo(f"{name.replace('_', ' '):<20} {value}")
