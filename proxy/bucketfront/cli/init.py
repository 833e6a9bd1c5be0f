"""`bucketfront init`."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import (
    BUCKET,
    CACHE_DIR,
    DEFAULT_CONFIG,
    ENDPOINT_URL,
    HOST,
    MAX_SIZE,
    PORT,
    REGION,
    SettingOption,
    given_settings,
)
from bucketfront.cli.yaml_text import flow

if TYPE_CHECKING:
    from bucketfront.config.problems import Source

# Each option with the prompt for it and the answer that Enter gives.
_PROMPTS: Sequence[tuple[SettingOption, str, str | None]] = (
    (BUCKET, "Bucket", None),
    (ENDPOINT_URL, "URL of the S3 service (null: AWS)", "null"),
    (REGION, "Region", "us-east-1"),
    (HOST, "Address for clients (127.0.0.1: this machine only)", "127.0.0.1"),
    (PORT, "Port for clients", "8080"),
    (CACHE_DIR, "Cache folder", "./cache"),
    (MAX_SIZE, "Size of the cache at most", "10GiB"),
)

_TEMPLATE = """\
# yaml-language-server: $schema={schema}
#
# bucketfront's configuration. All other keys have their defaults: `bucketfront config show` prints them, and
# docs/configuration.md explains them. Try this file with `bucketfront check`.
#
# Any key can come from the environment: BUCKETFRONT_CACHE__MAX_SIZE=20GiB. Secrets may be file:/absolute/path.

server: # The listener for clients.
  host: {host} # 127.0.0.1 is this machine only, "*" all addresses.
  port: {port}
  # hosts: [media.example.com] # Names of this server. Writes need one, besides addresses and localhost.

admin: # The listener for operators: health, metrics, purge.
  host: 127.0.0.1
  port: 8081
  # token: file:/run/secrets/admin-token # Needed if host is not a loopback address.

origin: # The S3 service.
  endpoint_url: {endpoint_url} # null: AWS. Else http(s)://host:port.
  region: {region}
  # default is the AWS chain: environment, profile, web identity, instance role. Or anonymous, {{profile: name}}, or
  # {{access_key_id: "file:/a", secret_access_key: "file:/b"}}.
  credentials: default

mounts: # URL path -> bucket and key prefix.
  - path: /
    bucket: {bucket}
    prefix: "" # For example public/, which clients do not see.
    methods: [GET, HEAD] # PUT, POST and DELETE let clients write. Beyond loopback, `write` says which clients.

cache: # The files on the local disk.
  dir: {cache_dir}
  max_size: {max_size}
  idle_timeout: 1h # How long an object stays after its last use.

freshness: # How long an object is used without a request to S3. Its own Cache-Control comes first.
  default_ttl: 5m

access_log: # One line a request.
  format: json # json or text.
  path: "-" # "-" is standard output.
"""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_CONFIG)
@BUCKET
@ENDPOINT_URL
@REGION
@HOST
@PORT
@CACHE_DIR
@MAX_SIZE
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def init(file: Path, *, force: bool) -> None:
    """Write a configuration with comments to FILE (proxy.yaml), and its schema for editors beside it.

    Without --bucket it asks for each value that no option gives, if it runs on a terminal. It replaces no file
    without --force.

    Exit status: 0 written, 1 FILE exists or cannot be written, 2 wrong use or a value that is not valid.
    """
    from bucketfront.config.schema import schema as settings_schema

    schema = file.with_suffix(".schema.json")
    schema_text = json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"
    if not force:
        _leave_alone(file)
        _leave_alone(schema, schema_text)
    answers = _answers()
    if problem := _problem(answers):
        fail(problem, WRONG_USE)
    values = {source.name.removeprefix("--").replace("-", "_"): _scalar(source) for source in answers}
    _write(file, _TEMPLATE.format(schema=schema.name, **values), replace=force)
    _write(schema, schema_text, replace=True)
    named = "" if file == DEFAULT_CONFIG else f" -c {shlex.quote(str(file))}"
    click.echo(
        f"wrote {file}, and {schema} for editors\n"
        f"  bucketfront check{named}   tries all that it names\n"
        f"  bucketfront serve{named}   runs the proxy"
    )


def _leave_alone(path: Path, text: str | None = None) -> None:
    """End the command if there is a file with another text."""
    if path.exists() and (text is None or path.read_text(encoding="utf-8", errors="replace") != text):
        fail(f"{path} exists: name another file, or replace it with --force")


def _answers() -> "list[Source]":
    """Return a value for each prompt: that of its option, the answer to the prompt, or the one that Enter gives."""
    given = {source.name: source for source in given_settings()}
    asks = BUCKET.flag not in given
    if asks and not sys.stdin.isatty():
        raise click.UsageError("name the bucket with --bucket")
    answers = []
    for option, prompt, default in _PROMPTS:
        if (source := given.get(option.flag)) is None:
            text = click.prompt(prompt, default=default, value_proc=_checked(option)) if asks else default
            source = option.source(str(text))
        answers.append(source)
    return answers


def _checked(option: SettingOption) -> Callable[[str], str]:
    """Return what takes the answer to a prompt. It raises UsageError, after which the prompt comes again."""

    def check(text: str) -> str:
        if problem := _problem([option.source(text)]):
            raise click.UsageError(problem)
        return text

    return check


def _problem(sources: "Sequence[Source]") -> str:
    """Return what is wrong with the answers, or an empty text."""
    from bucketfront.config.loader import load_with_places
    from bucketfront.errors import ConfigError

    try:
        load_with_places(None, {}, sources, needs_mounts=False)
    except ConfigError as error:
        return str(error)
    return ""


def _scalar(source: "Source") -> str:
    """Return an answer as YAML."""
    from types import NoneType

    from bucketfront.config.fields import types_at

    kinds, text = types_at(source.loc), source.text
    if (int in kinds and text.isdecimal()) or (NoneType in kinds and text == "null"):
        return text
    return flow(text)


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Write a whole file or none. Without `replace` it must not exist."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}") if replace else path
    try:
        file = fresh.open("x", encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    try:
        with file:
            file.write(text)
        if replace:
            fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        fail(f"cannot write {path}: {error.strerror}")
