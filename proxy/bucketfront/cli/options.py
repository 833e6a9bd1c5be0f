"""Options that several commands have, and the configuration that they name."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bucketfront.cli.failure import WRONG_USE, fail

if TYPE_CHECKING:
    from bucketfront.config.loader import LoadedConfig

DEFAULT_CONFIG = Path("proxy.yaml")

config_option = click.option(
    "-c", "--config", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_CONFIG, show_default=True,
    envvar="BUCKETFRONT_CONFIG", show_envvar=True, help="The configuration file.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load(path: Path, *, as_json: bool = False) -> "LoadedConfig":
    """Return the configuration, or end with its problems. With `as_json` they are printed as the results of `check`."""
    import os

    from bucketfront.config.loader import load_with_places
    from bucketfront.errors import ConfigError

    try:
        loaded = load_with_places(path, os.environ)
    except ConfigError as error:
        if as_json:
            from bucketfront.checks.result import failed

            lines = str(error).splitlines()
            click.echo(json.dumps([failed("configuration", line, str(path)).as_dict() for line in lines]))
            sys.exit(WRONG_USE)
        fail(str(error), WRONG_USE)
    else:
        return loaded
