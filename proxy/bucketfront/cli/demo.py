"""`bucketfront demo`."""

from pathlib import Path

import click

from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import ADMIN_PORT, CACHE_DIR, PORT, given_settings
from bucketfront.cli.serve import block_signals, run, verbose_option

_CONFIG = Path(__file__).with_name("demo.yaml")


@click.command()
@PORT
@ADMIN_PORT
@verbose_option
def demo(*, verbose: bool) -> None:
    """Serve an S3 in memory with example media, to try bucketfront out. It needs no account and leaves no files.

    It takes reads, uploads and deletes of this machine. Needs the extra: pip install 'bucketfront[demo]'.

    Exit status: 0 after a stop in order, 1 if the start failed, 2 for a wrong setting in the environment.
    """
    block_signals()
    import os
    import tempfile

    from bucketfront.config.loader import LoadedConfig, load_with_places
    from bucketfront.errors import ConfigError
    from bucketfront.s3.embedded import launcher

    if not launcher.is_installed():
        fail(launcher.CURE)
    with tempfile.TemporaryDirectory(prefix="bucketfront-demo-", ignore_cleanup_errors=True) as folder:
        options = [CACHE_DIR.source(folder), *given_settings()]

        def read() -> LoadedConfig:
            return load_with_places(_CONFIG, os.environ, options)

        try:
            loaded = read()
        except ConfigError as error:
            fail(str(error), WRONG_USE)
        run(loaded, read, verbose=verbose)
