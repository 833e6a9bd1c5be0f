"""`bucketfront reload`."""

import json
import sys
from pathlib import Path

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import FAILED, WRONG_USE
from bucketfront.cli.options import config_option, json_option, load

_REFUSALS = (409, 422, 500, 503)
_ENDINGS = {"invalid": WRONG_USE, "needs-restart": FAILED, "failed": FAILED, "stopping": FAILED}


@click.command()
@config_option
@json_option
def reload(config: Path, *, as_json: bool) -> None:
    """Have the running proxy read its configuration again. All of it applies, or none.

    The proxy reads the file and the environment that it was started with. -c only shows this command where its admin
    port is. Exit status 1 if a change needs a restart or fails, and 2 if the configuration is invalid.
    """
    settings = load(config, as_json=as_json).settings
    response = call_admin(settings, "POST", "/api/v1/reload", {}, refusals=_REFUSALS)
    if as_json:
        click.echo(json.dumps(response))
    else:
        _print(response)
    if not response.get("reloaded"):
        sys.exit(_ENDINGS.get(response.get("result", ""), FAILED))


def _print(response: dict[str, object]) -> None:
    def lines(name: str) -> list[str]:
        found = response.get(name)
        return [str(line) for line in found] if isinstance(found, list) else []

    for line in (*lines("warnings"), *lines("problems"), *([str(response["error"])] if "error" in response else [])):
        click.echo(line, err=True)
    if not response.get("reloaded"):
        click.echo("not reloaded: the configuration before goes on", err=True)
        return
    changed = lines("changed")
    click.echo(
        f"reloaded, with other values of {', '.join(changed)}" if changed else "reloaded, no setting has changed"
    )
