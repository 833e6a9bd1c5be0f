"""`bucketfront check`."""

import json
import sys
from pathlib import Path

import click

from bucketfront.cli.failure import FAILED
from bucketfront.cli.options import config_option, json_option, load, setting_options

_VERDICTS = {"fine": "ok  ", "warning": "WARN", "failed": "FAIL"}


@click.command()
@config_option
@setting_options
@json_option
def check(config: Path, *, as_json: bool) -> None:
    """Try all that `serve` takes: configuration, files, ports, disk, origin, buckets. Prints one line for each.

    It leaves nothing behind. Exit status 1 if a check failed, also one of a file or folder for which `serve` ends with
    2. Exit status 2 if the configuration itself is invalid. A warning is no failure.
    """
    import asyncio
    import logging

    loaded = load(config, as_json=as_json, needs_mounts=True)
    # The results have the reason why requests fail. Only an object that is left behind is reported by its own warning.
    for name in ("botocore", "aiobotocore", "bucketfront"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("bucketfront.s3.upload").setLevel(logging.WARNING)
    from bucketfront.checks import run_checks

    results = asyncio.run(run_checks(loaded.settings, loaded.explain, loaded.warnings, config))
    if as_json:
        click.echo(json.dumps([result.as_dict() for result in results]))
    else:
        for result in results:
            click.echo(f"{_VERDICTS[result.verdict.value]} {result.title}: {result.message}")
    if not all(result.is_fine for result in results):
        sys.exit(FAILED)
