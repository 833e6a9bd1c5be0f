"""The live view of `bucketfront top` on a terminal."""

import contextlib
import curses
import locale
import select
import signal
import sys
import time
from types import FrameType
from typing import Any, Protocol

from bucketfront.cli.top_frame import Sort, frame_lines

POLL_MS = 100  # between two looks at the keys and at what has come
KEYS = "q quit   r b p sort by requests, bytes, path   space pause"

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL

_SORTS = {ord("r"): Sort.REQUESTS, ord("b"): Sort.BYTES, ord("p"): Sort.PATH}


class UnusableTerminal(Exception):
    """curses cannot use the terminal."""


class FrameSource(Protocol):
    """Has the last frame, and why there is no newer one."""

    latest: dict[str, Any] | None
    problem: str | None


class Screen:
    """Draws frames until the user quits. Bold type and reverse video are all it needs of a terminal."""

    def __init__(self, frames: FrameSource, sort: Sort, interval: float) -> None:
        self._frames = frames
        self._sort = sort
        self._interval = interval
        self._shown: dict[str, Any] | None = None
        self._next = 0.0  # when another frame is due
        self._is_paused = False

    def run(self) -> None:
        """Show frames until the user quits or the terminal is gone. Raises UnusableTerminal, KeyboardInterrupt.

        The terminal is as before afterwards, also after SIGTERM and SIGHUP.
        """
        locale.setlocale(locale.LC_ALL, "")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _exit)
        try:
            curses.wrapper(self._loop)
        except curses.error as error:
            raise UnusableTerminal(f"this terminal has no screen for the live view: {error}") from error

    def _loop(self, window: curses.window) -> None:
        with contextlib.suppress(curses.error):  # a terminal that cannot hide its cursor shows it
            curses.curs_set(0)
        window.nodelay(True)
        keyboard = select.poll()
        keyboard.register(sys.stdin, select.POLLIN)
        self._draw(window)
        # Of a terminal that is gone, getch returns at once, again and again.
        while not any(event & _GONE for _, event in keyboard.poll(POLL_MS)):
            key = window.getch()
            if key == ord("q"):
                return
            if key in _SORTS:
                self._sort = _SORTS[key]
            elif key == ord(" "):
                self._is_paused = not self._is_paused
            if key != -1:
                window.clear()  # any key, and a resize, repairs a screen that other programs wrote to
            if key != -1 or self._is_due():
                self._draw(window)

    def _is_due(self) -> bool:
        return time.monotonic() >= self._next

    def _draw(self, window: curses.window) -> None:
        if self._is_due():
            self._next = time.monotonic() + self._interval
            if not self._is_paused:
                self._shown = self._frames.latest
        height, width = window.getmaxyx()
        window.erase()
        if self._shown is not None:
            for number, line in enumerate(frame_lines(self._shown, self._sort, width - 1, height - 1)):
                window.addstr(number, 0, line.text, curses.A_BOLD if line.is_heading else curses.A_NORMAL)
        footer = self._frames.problem or ("paused   " if self._is_paused else "") + KEYS
        # curses fails after it has written the last cell of the screen.
        window.insstr(height - 1, 0, footer[: width - 1].ljust(width - 1), curses.A_REVERSE)
        window.refresh()


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
