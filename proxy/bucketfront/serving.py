"""Runs the proxy until its end: a stop that an operator requests, or another process that takes over."""

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bucketfront.app import HANDED_OVER_TIMEOUT_S, App
from bucketfront.config.loader import LoadedConfig
from bucketfront.server.http1 import descriptors
from bucketfront.server.http1.passed_sockets import PassedSockets
from bucketfront.task_set import TaskSet

PROGRESS_INTERVAL_S = 60.0  # between two lines about them

log = logging.getLogger("bucketfront")


@dataclass(frozen=True, slots=True)
class Signals:
    """What operators request of a running proxy. Each event may be set at any time, also in the start and the stop."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reopen: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)


async def serve(
    read: Callable[[], LoadedConfig],
    loaded: LoadedConfig,
    announce: Callable[[App], None],
    signals: Signals,
    passed: PassedSockets | None = None,
    *,
    takes_over: bool = False,
) -> None:
    """Run until `signals.stop` is set, or until another process has taken over. Sets `signals.stop` then as well.

    Calls `announce` once the proxy serves requests. Reopens the access log each time that `reopen` is set. Each time
    that `reload` is, the configuration that `read` returns takes the place of `loaded`. `takes_over`: takes the place
    of the process that serves now.
    """
    descriptors.raise_limit()
    app = App(loaded.settings, passed=passed, read=read, loaded=loaded, takes_over=takes_over)
    tasks = TaskSet()
    tasks.start(_obey(signals.reopen, app.reopen_log), name="reopen the access log")
    tasks.start(_reload(signals.reload, app), name="reload")
    try:
        if not await _start(app, signals.stop if takes_over else asyncio.Event()):
            return
        try:
            # Modules and settings live as long as the process. Without this, each collection holds the loop for 40 ms.
            gc.collect()
            gc.freeze()
            announce(app)
            await _first_of(signals.stop, app.incumbent.has_handed_over)
            if app.incumbent.has_handed_over.is_set():
                await _end_responses(app, signals.stop)
                signals.stop.set()
        finally:
            await app.__aexit__(None, None, None)
    finally:
        await tasks.close()


async def _start(app: App, stop: asyncio.Event) -> bool:
    """Start the proxy. Returns False if `stop` was set before it serves."""
    starting, stopping = asyncio.create_task(app.__aenter__()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await asyncio.wait({starting})
    finally:
        stopping.cancel()
    if starting.cancelled():
        return False
    await starting
    return True


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _end_responses(app: App, stop: asyncio.Event) -> None:
    """Wait for the responses and uploads that another process has left to this one, or until a stop is requested."""
    app.listener.on_progress = _show_left
    drains = [asyncio.create_task(one.drain(HANDED_OVER_TIMEOUT_S, PROGRESS_INTERVAL_S)) for one in app.listeners]
    if app.front_ends is not None:
        drains.append(asyncio.create_task(app.front_ends.ended()))
    ended, stopping = asyncio.create_task(_all(drains)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*drains, stopping):
            task.cancel()
        await asyncio.gather(*drains, stopping, return_exceptions=True)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> bool:
    await asyncio.wait(tasks)
    return True


def _show_left(busy: int) -> None:
    log.warning("another process serves now; this one ends %d running response%s", busy, "" if busy == 1 else "s")


async def _reload(requested: asyncio.Event, app: App) -> None:
    """Reload each time that the event is set. Requests that come during a reload are one more."""
    while True:
        await requested.wait()
        requested.clear()
        await app.reload("SIGHUP")


async def _obey(requested: asyncio.Event, act: Callable[[], None]) -> None:
    """Act each time that the event is set."""
    while True:
        await requested.wait()
        requested.clear()
        act()
