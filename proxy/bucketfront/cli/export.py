"""`bucketfront export`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import SizeType, config_option, json_option, load

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--with-bytes", is_flag=True, help="Write an archive, which has the bytes of the objects as well.")
@click.option(
    "--limit", type=SizeType(), metavar="SIZE", help="With --with-bytes: the most that FILE may take, as 50GiB."
)
@config_option
@json_option
def export(file: Path, config: Path, *, with_bytes: bool, limit: int | None, as_json: bool) -> None:
    """Write which objects the cache of the running proxy holds to FILE, the most used first. `-` is standard output.

    `import` fills another cache by this manifest, with bytes of S3. An archive (--with-bytes) has the bytes, so that
    the other host fetches no object: S3 only confirms that each version is current. It is a tar file.
    """
    if limit is not None and not with_bytes:
        fail("--limit is for --with-bytes; a manifest takes little space", WRONG_USE)
    settings = load(config).settings
    try:
        count = (
            _write_archive(settings, file, limit, as_json=as_json) if with_bytes else _write_manifest(settings, file)
        )
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
    if as_json:
        click.echo(json.dumps(count), err=str(file) == "-")
    else:
        from bucketfront.cli.units import size

        of_bytes = f", {size(count['bytes'])}," if with_bytes else ""
        click.echo(f"{count['objects']} objects{of_bytes} written to {file}", err=True)


def _write_archive(settings: "Settings", file: Path, limit: int | None, *, as_json: bool) -> dict[str, int]:
    """Write an archive, and return how many objects and bytes of them it has. Raises OSError."""
    from bucketfront.cli.archive_transfer import download, is_terminal

    with click.open_file(str(file), "wb", atomic=str(file) != "-") as output:
        end = download(settings, output, limit, is_shown=is_terminal() and not as_json)
    return {"objects": end.objects, "bytes": end.bytes}


def _write_manifest(settings: "Settings", file: Path) -> dict[str, int]:
    """Write a manifest, and return how many objects it has. Raises OSError."""
    from bucketfront import __version__
    from bucketfront.warm import manifest

    count = 0
    with click.open_file(str(file), "w", encoding="utf-8", atomic=str(file) != "-") as output:
        output.write(manifest.header(__version__) + "\n")
        for found in _objects(settings):
            output.write(manifest.Wanted(found["path"], found["range"]).line() + "\n")
            count += 1
    return {"objects": count}


def _objects(settings: "Settings") -> Iterator[dict[str, Any]]:
    """Yield what the cache holds, and then again what was used meanwhile, because it may have moved past the pages."""
    began: float | None = None
    for page in _pages(settings):
        if began is None:
            began = max((found["accessed_at"] for found in page), default=0.0)
        yield from page
    for page in _pages(settings):
        newer = [found for found in page if began is None or found["accessed_at"] > began]
        yield from newer
        if len(newer) < len(page):
            return


def _pages(settings: "Settings") -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = ""
    while cursor is not None:
        page = call_admin(settings, "GET", f"/api/v1/export{f'?cursor={quote(cursor)}' if cursor else ''}")
        yield page["objects"]
        cursor = page["cursor"]
