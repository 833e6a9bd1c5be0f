"""Attach strace to one thread of a running process.

It counts the thread's system calls, and makes one of them fail, wait or be the last one. It neither counts nor slows
down the calls of other threads.
"""

import functools
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

# Calls that a disk error can fail. Locks and offsets belong to the kernel. A failing close still closes, which an
# injection cannot imitate, so a close is only the last call before a kill.
FALLIBLE = (
    "access", "faccessat", "faccessat2", "fallocate", "fdatasync", "fstat", "fstatfs", "fsync", "ftruncate",
    "getdents64", "link", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv2",
    "pwrite64", "read", "rename", "renameat", "renameat2", "rmdir", "sendfile", "stat", "statfs", "statx", "unlink",
    "unlinkat", "write",
)  # fmt: skip
ALL = (*FALLIBLE, "close", "fcntl", "flock", "lseek")
END_TIMEOUT_S = 60.0  # seconds until strace has ended, on a slow machine
_CALL = re.compile(r"([a-z_0-9]+)\(")


@dataclass(frozen=True, slots=True)
class Point:
    """The `nth` call of that name by a thread, counted from 1, as strace recorded it."""

    call: str
    nth: int
    seen: str

    def __str__(self) -> str:
        return f"{self.call} {self.nth}"


def names_of(calls: tuple[str, ...]) -> str:
    """Return names for strace. The `?` makes it ignore a call that the architecture does not have."""
    return ",".join(f"?{name}" for name in calls)


def points(seen: str, folder: Path) -> list[Point]:
    """Return the calls of a trace that concern this folder, in order."""
    counts: Counter[str] = Counter()
    found = []
    for line in seen.splitlines():
        if (call := _CALL.match(line)) is None:
            continue
        counts[call[1]] += 1
        if str(folder) in line:
            found.append(Point(call[1], counts[call[1]], line))
    return found


class Strace:
    """strace, attached inside the block. `fault` is strace's `inject` argument, such as `pwrite64:error=EIO:when=3`.

    All of `calls` are traced even if only one of them fails, so that counting and failing runs are equally slow.
    """

    def __init__(self, thread: int, log: Path, calls: tuple[str, ...] = ALL, fault: str = "") -> None:
        self._log = log
        inject = ["-e", f"inject={fault}"] if fault else []
        self._command = ["strace", "-p", str(thread), "-y", "-e", f"trace={names_of(calls)}", *inject, "-o", str(log)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._process.stderr is not None
        output = self._process.stderr.readline()
        assert "attached" in output, output + self._process.stderr.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # strace detaches
        self._process.communicate(timeout=END_TIMEOUT_S)

    def wait(self) -> None:
        """Wait until the process has ended and strace has recorded it."""
        self._process.wait(timeout=END_TIMEOUT_S)

    @property
    def text(self) -> str:
        """Return the trace. It is complete after the block."""
        return self._log.read_text(errors="replace")

    @property
    def has_struck(self) -> bool:
        return "(INJECTED)" in self.text or "(DELAYED)" in self.text or "killed by SIGKILL" in self.text


@functools.cache
def why_not() -> str:
    """Return why strace cannot be used here, or an empty string."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        command = ["strace", "-p", str(child.pid), "-e", "trace=none"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            output = tracer.stderr.readline()
            tracer.send_signal(signal.SIGINT)
        assert child.stdin is not None
        child.stdin.close()
    return "" if "attached" in output else f"strace may not attach: {output.strip()}"


def need_strace() -> None:
    if reason := why_not():
        pytest.skip(f"not run: {reason}")
