"""Options that several commands have, and the configuration that they name."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from bucketfront.cli.failure import WRONG_USE, fail

if TYPE_CHECKING:
    from bucketfront.config.loader import LoadedConfig
    from bucketfront.config.problems import Source

DEFAULT_CONFIG = Path("proxy.yaml")

Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "-c", "--config", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_CONFIG, show_default=True,
    envvar="BUCKETFRONT_CONFIG", show_envvar=True, help="The configuration file.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class SizeType(click.ParamType[int]):
    """A number of bytes, as sizes of the configuration are written."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from bucketfront.config.quantities import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_GIVEN = "bucketfront.settings"
_BEGINNINGS = """\
There is no {file} here, and nothing names a bucket. These are the ways to begin:
  bucketfront serve --bucket NAME   serves one bucket, read-only, to this machine
  bucketfront init                  writes {file}
  bucketfront demo                  serves an S3 in memory, without an account"""


@dataclass(frozen=True, slots=True)
class SettingOption:
    """An option for one setting. It takes precedence over the environment and the file."""

    flag: str
    loc: tuple[str | int, ...]
    metavar: str
    help: str

    def __call__(self, command: Command) -> Command:
        """Add the option to a command, whose `load` then finds it."""

        def remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
            if value is not None:
                context.meta.setdefault(_GIVEN, {})[self] = value

        option = click.option(
            self.flag, metavar=self.metavar, help=self.help, expose_value=False, callback=remember, default=None
        )
        return option(command)

    def source(self, value: str) -> "Source":
        """Return the value as a source of the configuration."""
        from bucketfront.config.problems import Source, SourceKind

        return Source(self.flag, value, SourceKind.OPTION, self.loc)


BUCKET = SettingOption("--bucket", ("mounts", 0, "bucket"), "NAME", "The bucket of the first mount.")
ENDPOINT_URL = SettingOption("--endpoint-url", ("origin", "endpoint_url"), "URL", "The S3 service, if it is not AWS.")
REGION = SettingOption("--region", ("origin", "region"), "NAME", "The region of the S3 service.")
HOST = SettingOption("--host", ("server", "host"), "ADDRESS", "Where clients connect.")
PORT = SettingOption("--port", ("server", "port"), "NUMBER", "The port for clients. 0 takes a free one.")
ADMIN_PORT = SettingOption("--admin-port", ("admin", "port"), "NUMBER", "The port for operators. 0 takes a free one.")
CACHE_DIR = SettingOption("--cache-dir", ("cache", "dir"), "FOLDER", "The cache folder.")
MAX_SIZE = SettingOption("--max-size", ("cache", "max_size"), "SIZE", "The most that the cache takes, such as 50GiB.")


def setting_options(command: Command) -> Command:
    """Add the options for the settings that a first run may need."""
    for option in reversed((BUCKET, ENDPOINT_URL, REGION, PORT, CACHE_DIR)):
        command = option(command)
    return command


def given_settings() -> "list[Source]":
    """Return the settings that the options of this command set."""
    context = click.get_current_context(silent=True)
    given: dict[SettingOption, str] = {} if context is None else context.meta.get(_GIVEN, {})
    return [option.source(value) for option, value in given.items()]


def load(path: Path, *, as_json: bool = False, needs_mounts: bool = False) -> "LoadedConfig":
    """Return the configuration, or end with its problems. With `as_json` they are printed as the results of `check`.

    The default file may be missing. Then the environment, the options and the defaults remain, which suffice to find
    the running proxy. With `needs_mounts` they must also name a bucket.
    """
    from bucketfront.errors import ConfigError, NoMounts

    try:
        loaded = reader(path, needs_mounts=needs_mounts)()
    except ConfigError as error:
        lines = str(error).splitlines()
        if isinstance(error, NoMounts):
            missing = "mounts: "  # the message about beginnings says the same
            lines = [line for line in lines if not line.startswith(missing)] + [_BEGINNINGS.format(file=path)]
        if as_json:
            from bucketfront.checks.result import failed

            click.echo(json.dumps([failed("configuration", line, str(path)).as_dict() for line in lines]))
            sys.exit(WRONG_USE)
        fail("\n".join(lines), WRONG_USE)
    else:
        return loaded


def reader(path: Path, *, needs_mounts: bool = False) -> "Callable[[], LoadedConfig]":
    """Return what reads the configuration as `load` does, also in other threads. It raises ConfigError."""
    import os

    from bucketfront.config.loader import LoadedConfig, load_with_places

    options, may_be_missing = given_settings(), _is_default(path)

    def read() -> LoadedConfig:
        found = None if may_be_missing and not path.exists() else path
        return load_with_places(found, os.environ, options, needs_mounts=needs_mounts)

    return read


def _is_default(path: Path) -> bool:
    """Return whether neither an option nor a variable names the file."""
    context = click.get_current_context(silent=True)
    source = None if context is None else context.get_parameter_source("config")
    return path == DEFAULT_CONFIG and source is ParameterSource.DEFAULT
