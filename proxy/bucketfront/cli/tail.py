"""`bucketfront tail`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from bucketfront.cli.event_stream import Event, admin_events
from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import config_option, load
from bucketfront.cli.units import milliseconds, printable, size
from bucketfront.errors import AdminFailed, AdminRefused

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings

RECONNECT_S = 1.0  # between two attempts to find the proxy again

_COLOURS = {"hit": "green", "stale": "yellow", "miss": "cyan", "partial": "cyan"}


@click.command()
@click.option("--path", metavar="GLOB", help="Only paths that match, such as '/live/**' or '*.m3u8'.")
@click.option("--status", metavar="LIST", help="Only these, such as 404 or 5xx,404.")
@click.option("--cache", metavar="LIST", help="Only these decisions, such as hit or miss,stale.")
@click.option("--slow", metavar="DURATION", help="Only requests that took as long, such as 500ms or 1s.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the lines of the access log, as JSON.")
def tail(config: Path, *, as_json: bool, **conditions: str | None) -> None:
    """Print each request of the running proxy as it ends, with the cache's decision.

    Ends at Ctrl-C. If the proxy goes away, waits until it is back. A flood is not printed in full: at most 1,000
    requests a second come, and a line has the number of the others.
    """
    settings = load(config).settings
    query = urlencode({"kinds": "request", **{name: value for name, value in conditions.items() if value is not None}})
    try:
        _follow(settings, f"/api/v1/events?{query}", as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(0)
    except BrokenPipeError:  # the reader has enough, as `head` after ten lines
        _end_quietly()
    except OSError as error:
        _silence()
        fail(f"cannot print any more: {error.strerror}")


def _follow(settings: "Settings", path: str, *, as_json: bool) -> None:
    """Print events until the user or the reader ends that. Raises KeyboardInterrupt, OSError."""
    import time

    was_connected = is_lost = False
    while True:
        try:
            for events in admin_events(settings, path):
                if is_lost:
                    click.echo("the proxy is back", err=True)
                was_connected, is_lost = True, False
                _print(events, as_json=as_json)
                _check_reader()
            reason = "the proxy has stopped"
        except AdminRefused as error:
            if not was_connected or error.status != 503:
                fail(str(error), WRONG_USE if error.status == 400 else 1)
            reason = str(error)
        except AdminFailed as error:
            if not was_connected:
                fail(str(error))
            reason = str(error)
        if not is_lost:
            click.echo(f"{reason}; waiting until it is back", err=True)
            is_lost = True
        _check_reader()
        time.sleep(RECONNECT_S)


def _print(events: list[Event], *, as_json: bool) -> None:
    lines = []
    for kind, data in events:
        if kind == "request":
            lines.append(data if as_json else line_of(json.loads(data)))
        elif kind == "dropped":
            count = json.loads(data)["events"]
            click.echo(
                f"{count:,} requests came too fast to print; --path, --status, --cache and --slow select", err=True
            )
    if lines:
        click.echo("\n".join(lines), color=None if "NO_COLOR" not in os.environ else False)


def line_of(request: dict[str, Any]) -> str:
    """Return one request in columns: time, status, decision, duration, bytes, client, method, path, failure."""
    decision = decision_of(request)
    status = request["status"]
    colour = "red" if status >= 500 else "magenta" if status >= 400 else _COLOURS.get(decision)
    facts = f"{request['time'][11:]} {status} {decision:<8} {milliseconds(request['ms']):>8} {size(request['sent']):>9}"
    what = f"{request['client']:<15} {request['method']:<4} {request['path']}"
    failure = " ".join(str(request[name]) for name in ("fault", "cause") if name in request)
    line = f"{click.style(facts, fg=colour)}  {printable(what)}"
    return f"{line}  {click.style(printable(failure), fg='red')}" if failure else line


def decision_of(request: dict[str, Any]) -> str:
    """Return the cache's decision on a request of the access log: hit, or why it was forwarded."""
    first = str(request["cache"]).partition(";")[0]
    return first.removeprefix("fwd=")


def _check_reader() -> None:
    """Raise BrokenPipeError if standard output is a pipe or a terminal whose other end has gone."""
    import select

    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(1, 0)  # errors are always reported
    if any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0)):
        raise BrokenPipeError


def _end_quietly() -> None:
    _silence()
    sys.exit(0)


def _silence() -> None:
    """Let the interpreter's last flush of standard output go nowhere, because it would report the error once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
