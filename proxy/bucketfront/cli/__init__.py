"""The command line, one module for each command. Heavy imports stay inside the commands, so that `--help` takes less
than 150 ms.
"""

import sys

import click

from bucketfront.cli import (
    check,
    config,
    demo,
    explain,
    export,
    healthcheck,
    import_,
    init,
    purge,
    reload,
    serve,
    sign,
    stats,
    tail,
    top,
    verify,
    warm,
)
from bucketfront.cli.failure import fail


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - as click calls it
    if wanted and not context.resilient_parsing:
        from bucketfront import __version__

        click.echo(f"bucketfront, version {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """bucketfront: a caching reverse proxy for S3.

    To begin: `bucketfront serve --bucket NAME`, `bucketfront init` or `bucketfront demo`.

    Exit status: 0 fine, 1 failed, 2 wrong use or configuration.
    """
    if sys.platform == "win32":
        fail("bucketfront does not run on Windows itself: run it in WSL 2 or in a Linux container")


main.add_command(check.check)
main.add_command(config.config)
main.add_command(demo.demo)
main.add_command(explain.explain)
main.add_command(export.export)
main.add_command(healthcheck.healthcheck)
main.add_command(import_.import_)
main.add_command(init.init)
main.add_command(purge.purge)
main.add_command(reload.reload)
main.add_command(serve.serve)
main.add_command(sign.sign)
main.add_command(stats.stats)
main.add_command(tail.tail)
main.add_command(top.top)
main.add_command(verify.verify)
main.add_command(warm.warm)
