"""`bucketfront top`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bucketfront.cli.admin_client import call_admin
from bucketfront.cli.event_stream import admin_events
from bucketfront.cli.failure import FAILED, fail
from bucketfront.cli.options import config_option, json_option, load
from bucketfront.cli.top_frame import Sort, frame_lines
from bucketfront.errors import AdminFailed

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings

PRINTED_WIDTH = 1 << 16  # of a frame that is printed: whole paths, for programs
PATH = "/api/v1/top"


@click.command()
@click.option("--once", is_flag=True, help="Print one frame, as without a terminal.")
@click.option("--sort", type=click.Choice([sort.value for sort in Sort]), default=Sort.REQUESTS.value,
              show_default=True, help="Sort the hottest objects by this.")  # fmt: skip
@click.option("--interval", type=click.FloatRange(min=1.0), default=1.0, show_default=True,
              help="Seconds between two frames.")  # fmt: skip
@config_option
@json_option
def top(config: Path, sort: str, interval: float, *, once: bool, as_json: bool) -> None:
    """Show what the running proxy does: rates, hit ratios, the hottest objects, the slowest requests.

    Keys: q quits, r, b and p sort the hottest objects by requests, bytes and path, space pauses.
    """
    settings = load(config).settings
    if as_json:
        click.echo(json.dumps(call_admin(settings, "GET", PATH)))
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        frame = call_admin(settings, "GET", PATH)
        click.echo("\n".join(line.text for line in frame_lines(frame, Sort(sort), PRINTED_WIDTH)))
    else:
        _watch(settings, Sort(sort), interval)


def _watch(settings: "Settings", sort: Sort, interval: float) -> None:
    """Show frames until the user quits."""
    call_admin(settings, "GET", PATH)  # ends with the reason if the proxy does not respond
    try:
        from bucketfront.cli.top_screen import Screen, UnusableTerminal
    except ImportError:
        fail("this Python has no curses, which the live view needs; use --once", FAILED)
    frames = Frames(settings)
    frames.start()
    try:
        Screen(frames, sort, interval).run()
    except KeyboardInterrupt:
        sys.exit(0)
    except UnusableTerminal as error:
        fail(f"{error}; use --once", FAILED)


class Frames:
    """Receives the frames of the running proxy in a thread, and connects again if it goes away.

    `latest` is the last frame, and `problem` is set while there is no connection. Each is replaced as a whole.
    """

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self.latest: dict[str, Any] | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to receive. The thread ends with the process."""
        import threading

        threading.Thread(target=self._receive, name="frames", daemon=True).start()

    def _receive(self) -> None:
        import time

        while True:
            try:
                for events in admin_events(self._settings, "/api/v1/events?kinds=figures"):
                    self.problem = None
                    for kind, data in events:
                        if kind == "figures":
                            self.latest = json.loads(data)
                self.problem = "the proxy has stopped"
            except AdminFailed as error:
                self.problem = str(error)
            time.sleep(1.0)  # before the next attempt
