"""The command line, one module for each command. Heavy imports stay inside the commands, so that `--help` takes less
than 150 ms.
"""

import click

from bucketfront import __version__
from bucketfront.cli import check, explain, export, import_, purge, reload, serve, sign, stats, verify, warm


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bucketfront")
def main() -> None:
    """bucketfront: a caching reverse proxy for S3.

    Exit status: 0 fine, 1 failed, 2 wrong use or configuration.
    """


main.add_command(check.check)
main.add_command(explain.explain)
main.add_command(export.export)
main.add_command(import_.import_)
main.add_command(purge.purge)
main.add_command(reload.reload)
main.add_command(serve.serve)
main.add_command(sign.sign)
main.add_command(stats.stats)
main.add_command(verify.verify)
main.add_command(warm.warm)
