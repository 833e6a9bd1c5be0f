"""`bucketfront config`: the configuration in force, and its schema."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bucketfront.cli.options import config_option, json_option, load, setting_options
from bucketfront.cli.yaml_text import flow

if TYPE_CHECKING:
    from bucketfront.config.effective import EffectiveSetting

_INDENT = "  "
_MAX_COMMENT_COLUMN = 60  # a longer line has its comment right behind it


@click.group()
def config() -> None:
    """Print the configuration in force, or its schema.

    Exit status: 0 fine, 2 wrong use or configuration.
    """


@config.command()
@config_option
@setting_options
@click.option("--sources", is_flag=True, help="Print where each value comes from.")
@json_option
def show(config: Path, *, sources: bool, as_json: bool) -> None:
    """Print all settings in force, as `serve` would have them. Secrets are masked.

    Options take precedence over the environment, that over the file, and the file over the defaults. With --sources,
    each setting has its source: default, the place in the file, the variable, or the option. GET
    /api/v1/config has those of a running proxy, which may be of an earlier file.
    """
    settings = load(config, needs_mounts=True).effective
    if not as_json:
        click.echo("\n".join(_yaml(settings, with_sources=sources)))
    elif sources:
        click.echo(json.dumps({"settings": [setting.as_dict() for setting in settings]}, ensure_ascii=False))
    else:
        click.echo(json.dumps(_nested(settings), ensure_ascii=False))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors.

    A file names it by a comment in its first line: # yaml-language-server: $schema=proxy.schema.json
    """
    from bucketfront.config.schema import schema as settings_schema

    click.echo(json.dumps(settings_schema(), indent=2, ensure_ascii=False))


def _nested(settings: Sequence["EffectiveSetting"]) -> dict[str, Any]:
    """Return the settings as a file would have them."""
    tree: dict[str, Any] = {}
    for setting in settings:
        container: Any = tree
        for part, following in zip(setting.loc, setting.loc[1:], strict=False):
            empty: Any = [] if isinstance(following, int) else {}
            if isinstance(part, int):
                container.extend([empty] if part == len(container) else [])
                container = container[part]
            else:
                container = container.setdefault(part, empty)
        container[setting.loc[-1]] = setting.value
    return tree


def _yaml(settings: Sequence["EffectiveSetting"], *, with_sources: bool) -> Iterator[str]:
    """Yield the lines of a file with the settings. With `with_sources`, comments have the source of each."""
    before: tuple[str | int, ...] = ()
    for setting in settings:
        loc = setting.loc
        common = next((end for end, pair in enumerate(zip(loc, before, strict=False)) if pair[0] != pair[1]), 0)
        dash = False
        for depth, part in enumerate(loc[common:], common):
            if isinstance(part, int):
                dash = True
                continue
            indent = _INDENT * (depth - 1) + "- " if dash else _INDENT * depth
            dash = False
            if depth < len(loc) - 1:
                yield f"{indent}{part}:"
            else:
                line = f"{indent}{part}: {flow(setting.value)}"
                source = setting.place or setting.source.value
                yield f"{line:<{_MAX_COMMENT_COLUMN}} # {source}" if with_sources else line
        before = loc
