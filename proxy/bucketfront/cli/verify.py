"""`bucketfront verify`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from bucketfront.cli.failure import FAILED, fail
from bucketfront.cli.options import config_option, json_option, load


@click.command()
@click.option("--repair", is_flag=True, help="Repair the damage. The proxy must not run meanwhile.")
@config_option
@json_option
def verify(config: Path, *, repair: bool, as_json: bool) -> None:
    """Compare the cache's index with its files, block by block. Exit status 1 if damage remains."""
    from bucketfront.cache.storage.verification import verify as run
    from bucketfront.errors import StoreError

    settings = load(config).settings.cache
    try:
        with click.progressbar(length=1, label="reading", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

            def progress(done: int, count: int) -> None:
                bar.length = max(1, count, done)
                bar.update(done - bar.pos)

            report = run(settings.dir, settings.block_size, repair=repair, progress=progress)
    except StoreError as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        for finding in report.findings:
            blocks = f": blocks {', '.join(map(str, finding.blocks))}" if finding.blocks else ""
            click.echo(f"{finding.damage:<8} {finding.where}{blocks}")
        state = "repaired" if report.is_repaired else "found" if report.findings else "nothing found"
        count = f"{len(report.findings)} " if report.findings else ""
        click.echo(f"{report.entries} entries, {report.blocks} blocks read: {count}{state}")
    if report.findings and not report.is_repaired:
        sys.exit(FAILED)
