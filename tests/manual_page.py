"""Write proxy/bucketfront.1, the manual page, from the commands themselves: `make man`."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from bucketfront.cli import main

PAGE = Path(__file__).parent.parent / "proxy" / "bucketfront.1"

_HEAD = r"""
.\" Made by `make man` from the commands. Edit those, not this page.
.TH BUCKETFRONT 1 "" "bucketfront" "User Commands"
.SH NAME
bucketfront \- a caching reverse proxy for S3
.SH SYNOPSIS
.B bucketfront
.I COMMAND
.RI [ OPTIONS "] [" ARGUMENTS ]
.SH DESCRIPTION
"""
_TAIL = r"""
.SH FILES
.TP
.I proxy.yaml
The configuration, in the working directory, unless
.B \-c
or BUCKETFRONT_CONFIG names another file.
.SH ENVIRONMENT
.TP
.B BUCKETFRONT_CONFIG
The configuration file. It must exist.
.TP
.B BUCKETFRONT_A__B
The setting a.b. It takes precedence over the file, and an option over it.
BUCKETFRONT_MOUNTS__0__BUCKET is the bucket of the first mount.
.TP
.B _BUCKETFRONT_COMPLETE
bash_source, zsh_source or fish_source: print the script for completion in that shell.
.SH EXIT STATUS
.TP
.B 0
fine
.TP
.B 1
failed
.TP
.B 2
wrong use or configuration
"""


def page() -> str:
    """Return the whole page as roff (man(7))."""
    return "".join(
        [
            _HEAD.lstrip(),
            *_paragraphs(main.help or ""),
            ".SH COMMANDS\n",
            *_commands(main, ("bucketfront",)),
            _TAIL.lstrip(),
        ]
    )


def _commands(group: click.Group, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the sections of all commands of a group, in the order of their names."""
    for name, command in sorted(group.commands.items()):
        path = (*names, name)
        if isinstance(command, click.Group):
            yield from _commands(command, path)
            continue
        parent = click.Context(main, **main.context_settings)  # which has the names of the help option
        context = click.Context(command, parent, info_name=" ".join(path))
        yield f".SS {_text(' '.join((*path, *command.collect_usage_pieces(context))))}\n"
        yield from _paragraphs(command.help or "")
        for parameter in command.get_params(context):
            if (record := parameter.get_help_record(context)) is not None:
                yield f".TP\n.B {_text(record[0])}\n{_text(' '.join(record[1].split()))}\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield f".PP\n{_text(' '.join(paragraph.split()))}\n"


def _text(text: str) -> str:
    """Return a line of plain text, which roff would else take for requests, quotes and hyphens."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    sys.stdout.write(page())
