"""A headless browser that a test drives: Debian's Chromium or Firefox, by npm's puppeteer-core."""

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import installs
import pytest
from programs import Program, installed

PACKAGE = "puppeteer-core@24.43.1"  # the last major version that runs on node 20
BRIDGE = Path(__file__).with_name("browser_bridge.mjs")
DEADLINE_S = 180.0  # seconds for one call, with other work on the machine
READ_SIZE = 64 << 10

_CHROMIUM, _FIREFOX = ("chromium", "chrome"), ("firefox-esr", "firefox")
_BROWSERS = {"Chromium": _CHROMIUM, "Firefox": _FIREFOX}
"""Name -> Debian's command, and puppeteer's name."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a page printed on its console (`kind` is `error`, `warn` or `log`), or a `status` of 400 or more."""

    kind: str
    text: str


class Browser:
    """A running browser. One call at a time."""

    def __init__(self, program: Program, process: "subprocess.Popen[bytes]") -> None:
        self.program = program
        self._process = process
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._messages: dict[int, list[Message]] = {}

    @contextlib.contextmanager
    def page(self, url: str) -> "Iterator[Page]":
        """Open a page in a context of its own: it has no cache or storage of another page."""
        number = next(self._numbers)
        page = Page(self, number, self._messages.setdefault(number, []))
        self.call("open", page=number, url=url)
        yield page
        self.call("close", page=number)

    def call(self, call: str, **arguments: object) -> Any:
        """Return the result of a call of browser_bridge.mjs. Fails the test if it fails, or is late."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "call": call, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            line = self._line(deadline)
            if line is None:
                pytest.fail(f"{self.program.name} did not finish {call} {arguments}; pages printed {self._messages}")
            received = json.loads(line)
            if "kind" in received:
                self._messages[received["page"]].append(Message(received["kind"], received["text"]))
            elif received["reply"] == number:
                assert "failure" not in received, f"{call} {arguments}: {received['failure']}; {self._messages}"
                return received["result"]

    def _line(self, deadline: float) -> bytes | None:
        """Return the next line of the bridge, None if there is none in time or it has ended."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), READ_SIZE) if readable else b""
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Page:
    """An open page. `messages` grow while calls run."""

    def __init__(self, browser: Browser, number: int, messages: list[Message]) -> None:
        self._browser = browser
        self._number = number
        self.messages = messages

    @property
    def errors(self) -> list[Message]:
        """Return the errors on the console, uncaught exceptions, and responses with a status of 400 or more."""
        return [message for message in self.messages if message.kind in ("error", "status")]

    def evaluate(self, script: str, argument: object = None) -> Any:
        """Return what a JavaScript function returns or resolves to."""
        return self._browser.call("evaluate", page=self._number, script=script, argument=argument)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        self._browser.call("choose", page=self._number, selector=selector, file=str(file))

    def view(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page in pixels, and whether the reader prefers dark pages."""
        self._browser.call("view", page=self._number, width=width, height=height, dark=dark)

    def screenshot(self, file: Path) -> None:
        """Write what is seen of the page as a PNG."""
        self._browser.call("screenshot", page=self._number, file=str(file))

    def press(self, *keys: str) -> None:
        """Press keys, such as `Tab`, one after another."""
        self._browser.call("press", page=self._number, keys=keys)

    def reload(self) -> None:
        self._browser.call("reload", page=self._number)


@contextlib.contextmanager
def browser(name: str) -> Iterator[Browser]:
    """Run `Chromium` or `Firefox`, or skip the test. Raises NotInstallable."""
    command, engine = _BROWSERS[name]
    found = installed(command)
    packages = installs.npm(PACKAGE)
    folder = Path(tempfile.mkdtemp(prefix="browser-"))
    with (folder / "stderr").open("w+b") as errors:
        process = subprocess.Popen(
            ("node", str(BRIDGE), engine, found.path, str(folder / "profile"), str(packages)),
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield Browser(Program(name, found.path, found.version), process)
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let the bridge close its browser, and kill what is left of the process group."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(DEADLINE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
