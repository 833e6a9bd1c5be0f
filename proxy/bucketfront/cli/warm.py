"""`bucketfront warm`."""

from pathlib import Path
from typing import Any

import click

from bucketfront.cli.options import SizeType, config_option, json_option, load
from bucketfront.cli.warm_progress import bodies_of, run_jobs, wanted_in

rate_option = click.option("--rate", type=SizeType(), metavar="SIZE", help="Bytes a second at most, for example 50MB.")
parallel_option = click.option(
    "--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="Objects to fill at once."
)
detach_option = click.option("--detach", is_flag=True, help="Let the job go on in the proxy, and print its id.")


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--prefix", help="Fill all that S3 lists below this path.")
@click.option(
    "--manifest", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="A file with a path on each line, or one that `export` wrote; - reads standard input.",
)  # fmt: skip
@rate_option
@parallel_option
@click.option(
    "--follow/--no-follow", default=True, show_default=True,
    help="Fill also what HLS and DASH playlists and sitemaps name.",
)  # fmt: skip
@click.option("--host", "hosts", multiple=True, help="A name of this proxy in absolute URLs of playlists. Repeatable.")
@detach_option
@config_option
@json_option
def warm(
    paths: tuple[str, ...],
    prefix: str | None,
    manifest: Path | None,
    rate: int | None,
    parallel: int,
    hosts: tuple[str, ...],
    config: Path,
    *,
    follow: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Fill the cache of the running proxy ahead of use: PATHS, a prefix, a manifest.

    What is fresh and complete is skipped, so that the same command goes on after an interruption. Ctrl-C cancels the
    job. Exit status 1 if an object failed, or if the cache is full.
    """
    if sum(bool(given) for given in (paths or prefix, manifest)) != 1:
        raise click.UsageError("name PATHS or --prefix, or else --manifest")
    settings = load(config).settings
    options: dict[str, Any] = {"rate": rate, "parallel": parallel, "follow": follow, "hosts": hosts}
    if manifest is not None:
        bodies = bodies_of(wanted_in(manifest), options)
    else:
        bodies = iter([{**options, "paths": paths, "prefix": prefix}])
    run_jobs(settings, bodies, detach=detach, as_json=as_json)
