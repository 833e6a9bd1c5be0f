"""`bucketfront serve`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bucketfront.cli.failure import FAILED, WRONG_USE, fail
from bucketfront.cli.options import config_option, load, reader, setting_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from bucketfront.app import App
    from bucketfront.config.loader import LoadedConfig

STOP_TIMEOUT_S = 45.0  # for a stop, of which running requests have 25; then the process ends like after kill -9

verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Log what the cache does, to standard error: log.level is info."
)


@click.command()
@config_option
@setting_options
@verbose_option
@click.option("--take-over", "takes_over", is_flag=True, help="Take the place of the process that serves now.")
def serve(config: Path, *, verbose: bool, takes_over: bool) -> None:
    """Run the proxy until SIGINT or SIGTERM.

    SIGUSR1 reopens the access log, and SIGHUP reads the configuration again. Options take precedence over the
    environment, that over the file, and the file over the defaults. Without a file --bucket suffices.

    With --take-over the process that serves from the same cache folder hands over its listening sockets and its cache,
    and no request is lost. It ends with exit status 0 after its running responses. If the new process fails, the
    running one goes on. If none runs, this is an ordinary start.

    Exit status: 0 after a stop in order, 1 if the start failed or the stop took too long, 2 for a wrong configuration.
    """
    block_signals()
    run(load(config, needs_mounts=True), reader(config, needs_mounts=True), verbose=verbose, takes_over=takes_over)


def run(loaded: "LoadedConfig", read: "Callable[[], LoadedConfig]", *, verbose: bool, takes_over: bool = False) -> None:
    """Run the proxy until it is stopped, or end with the reason why it cannot run. Call `block_signals` before.

    `read` reads the configuration again, for a reload. `takes_over`: takes the place of the process that serves now.
    """
    import asyncio
    import logging

    from bucketfront import process_log

    process_log.apply(loaded.settings.log, is_verbose=verbose)
    for text in loaded.warnings:
        logging.getLogger("bucketfront").warning("%s", text)
    from bucketfront.errors import CannotListen, ProxyError, UnusableSetting
    from bucketfront.server.http1.event_loop import new_event_loop

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(loaded, read, takes_over=takes_over))
    except CannotListen as error:
        fail(loaded.explain(error))
    except UnusableSetting as error:
        fail(loaded.explain(error), WRONG_USE)
    except ProxyError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot start: {error}")


def block_signals() -> None:
    """Block SIGHUP, SIGUSR1 and SIGUSR2 in this thread, and in the threads and processes that it starts.

    A blocked signal ends no process, neither during the start and the stop nor in between. `_take_signals` takes them.
    """
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))


def _take_signals(reopen: "Callable[[], None]", reload: "Callable[[], None]") -> None:
    """Take the signals that `block_signals` blocks, for as long as the process runs.

    SIGUSR1 calls `reopen`, and SIGHUP `reload`.

    Call this in a thread, so that neither a flood of signals nor a stuck standard error holds the event loop.
    """
    import logging
    import signal

    log = logging.getLogger("bucketfront")
    while True:
        number = signal.sigwait((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
        if number == signal.SIGUSR1:
            log.info("SIGUSR1: the access log is reopened")
            reopen()
        elif number == signal.SIGHUP:
            reload()  # it leaves a line at its end
        else:
            log.warning("SIGUSR2 has no meaning here, and nothing has changed")


async def _serve(loaded: "LoadedConfig", read: "Callable[[], LoadedConfig]", *, takes_over: bool) -> None:
    import asyncio
    import contextlib
    import os
    import signal
    import threading

    from bucketfront.app import App
    from bucketfront.server.http1.passed_sockets import PassedSockets
    from bucketfront.serving import Signals
    from bucketfront.serving import serve as run_app

    passed = PassedSockets.take(os.environ, os.getpid())
    loop = asyncio.get_running_loop()
    signals = Signals()
    running: list[App] = []  # one, once it serves

    def begin_to_stop() -> None:
        if not signals.stop.is_set():
            signals.stop.set()
            delay = running[0].settings.server.stop_delay if running else 0.0
            overdue = threading.Timer(STOP_TIMEOUT_S + delay, _end)
            overdue.daemon = True
            overdue.start()

    def interrupt() -> None:
        if signals.stop.is_set():
            _end_at_once()
        if sys.stderr.isatty():
            click.echo("stopping, as soon as running responses have ended; Ctrl-C again ends at once", err=True)
        begin_to_stop()

    def announce(app: App) -> None:
        app.listener.on_progress = _show_progress
        running.append(app)
        _announce(app)

    def set_in_loop(event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(event.set)

    loop.add_signal_handler(signal.SIGTERM, begin_to_stop)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    handlers = (lambda: set_in_loop(signals.reopen)), (lambda: set_in_loop(signals.reload))
    threading.Thread(target=_take_signals, args=handlers, name="signals", daemon=True).start()
    await run_app(read, loaded, announce, signals, passed, takes_over=takes_over)


def _end() -> None:
    """End the process at once, because nothing else ends a thread that waits for a disk.

    The next start copes with that (docs/invariants.md#crash-only).
    """
    import os

    click.echo(f"the stop took longer than {STOP_TIMEOUT_S:g} s: ended as by kill -9", err=True)
    os._exit(FAILED)


def _end_at_once() -> None:
    """End the process, because the operator does not wait for the running responses."""
    import os

    click.echo("ended at once: running responses were cut, and the next start verifies the cache", err=True)
    os._exit(FAILED)


def _show_progress(busy: int) -> None:
    """Show how many connections a stop waits for."""
    import logging

    text = f"the stop waits for {busy} running response{'' if busy == 1 else 's'}"
    if sys.stderr.isatty():
        click.echo(text, err=True)
    else:
        logging.getLogger("bucketfront").warning("%s", text)


def _announce(app: "App") -> None:
    """Print the addresses and examples to standard error, because standard output may be the access log.

    A process log of JSON lines gets them as one of its lines.
    """
    from bucketfront import __version__, process_log
    from bucketfront.config.quantities import format_size

    if app.settings.log.format == "json":
        facts = {
            "version": __version__,
            "clients": list(app.listener.descriptions),
            "admin": list(app.admin.descriptions),
            "s3": [] if app.s3 is None else list(app.s3.listener.descriptions),
            "origin": str(app.origin.endpoint),
            "cache_mode": app.settings.cache.mode,
            "workers": 1 if app.front_ends is None else app.front_ends.workers,
        }
        click.echo(process_log.line("serving", facts), err=True)
        return
    mount = app.settings.mounts[0]
    unix = app.address.removeprefix("unix:")
    url = f"{app.address if unix == app.address else f'--unix-socket {unix} http://localhost'}{mount.path}"
    lines = [
        f"bucketfront {__version__}",
        *(f"  clients  {description}" for description in app.listener.descriptions),
        *(f"  admin    {description}" for description in app.admin.descriptions),
        *(f"  s3       {description}" for description in ([] if app.s3 is None else app.s3.listener.descriptions)),
    ]
    if sys.stderr.isatty() and app.admin.address.startswith("http"):
        lines.append(f"           the dashboard is at {app.admin.address}/")
    cache = app.settings.cache
    lines.append(f"  cache    {cache.dir.absolute()}, at most {format_size(cache.max_size)}")
    if app.front_ends is not None:
        lines.append(f"  workers  {app.front_ends.workers} processes serve hits, beside the owner of the cache")
    if (notice := cache.mode_notice) is not None:
        lines.append(f"  mode     {notice}")
    if app.embedded is not None:
        lines += [
            f"  origin   embedded S3, in memory, at {app.embedded.endpoint_url}; it has the example media",
            "try",
            f"  curl -I {url}sample.mp4",
            f"  curl -r 0-99 -o /dev/null -D - {url}sample.mp4",
            f"  curl -X PUT -H 'Content-Type: text/plain' -d hello {url}hello.txt",
        ]
        lines += [f"and in a browser {url}index.html"] if app.address.startswith("http") else []
    else:
        lines.append(f"  origin   {app.origin.endpoint}")
    public = [mount.path for mount in app.settings.mounts if mount.is_public]
    if public and not app.settings.server.is_local:
        lines.append(f"  public   all clients may read {', '.join(public)}")
    click.echo("\n".join(lines), err=True)
