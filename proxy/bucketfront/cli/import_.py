"""`bucketfront import`."""

from pathlib import Path

import click

from bucketfront.cli.options import config_option, json_option, load
from bucketfront.cli.warm import detach_option, parallel_option, rate_option
from bucketfront.cli.warm_progress import bodies_of, run_jobs, wanted_in


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@rate_option
@parallel_option
@detach_option
@config_option
@json_option
def import_(file: Path, rate: int | None, parallel: int, config: Path, *, detach: bool, as_json: bool) -> None:
    """Fill the cache of the running proxy with what a FILE of `export` names, the most used objects first.

    The bytes come from S3. It is `warm --manifest FILE --no-follow`, and goes on in the same way if it is repeated.
    """
    settings = load(config).settings
    options = {"rate": rate, "parallel": parallel, "follow": False}
    run_jobs(settings, bodies_of(wanted_in(file), options), detach=detach, as_json=as_json)
