"""How a command ends that cannot do its work."""

import sys
from typing import NoReturn

import click

FAILED, WRONG_USE = 1, 2


def fail(message: str, status: int = FAILED) -> NoReturn:
    """Print the message to standard error, and end with that exit status."""
    click.echo(message, err=True)
    sys.exit(status)
