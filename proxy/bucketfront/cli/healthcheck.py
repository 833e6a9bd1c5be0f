"""`bucketfront healthcheck`."""

import json
import sys
from pathlib import Path

import click

from bucketfront.cli.failure import FAILED
from bucketfront.cli.options import config_option, json_option, load

TIMEOUT_S = 2.5  # orchestrators give a probe 1 to 3 seconds as a whole


@click.command()
@click.option("--ready", is_flag=True, help="Ask whether requests are served (/readyz), not only whether it runs.")
@config_option
@json_option
def healthcheck(config: Path, *, ready: bool, as_json: bool) -> None:
    """Ask the admin port whether the proxy that runs with this configuration is healthy.

    It needs no token, and no proxy of the environment. For HEALTHCHECK of a container, and probes of Kubernetes that
    run a command.

    Exit status: 0 healthy, 1 not healthy or out of reach, 2 wrong use or configuration.
    """
    from bucketfront.cli.admin_client import probe

    is_healthy, text = probe(load(config).settings, "/readyz" if ready else "/healthz", TIMEOUT_S)
    click.echo(
        json.dumps({"healthy": is_healthy, "message": text}) if as_json else text, err=not (is_healthy or as_json)
    )
    if not is_healthy:
        sys.exit(FAILED)
