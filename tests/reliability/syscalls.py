"""strace on one thread of a running process: count its calls, and make one of them fail, wait, or be its last.

strace is attached to the thread alone, so what other threads do is neither counted nor slowed down.
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

# Those that a disk answers. Locks and offsets are the kernel's, not the disk's; and a close that fails has closed all
# the same, which an injection cannot do. Those are only ever the last call before a kill.
FALLIBLE = (
    "access", "faccessat", "faccessat2", "fallocate", "fdatasync", "fstat", "fstatfs", "fsync", "ftruncate",
    "getdents64", "link", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv2",
    "pwrite64", "read", "rename", "renameat", "renameat2", "rmdir", "sendfile", "stat", "statfs", "statx", "unlink",
    "unlinkat", "write",
)  # fmt: skip
ALL = (*FALLIBLE, "close", "fcntl", "flock", "lseek")
_CALL = re.compile(r"([a-z_0-9]+)\(")


@dataclass(frozen=True, slots=True)
class Point:
    """The `nth` call of that name that a thread makes, from 1; as strace saw it once."""

    call: str
    nth: int
    seen: str

    def __str__(self) -> str:
        return f"{self.call} {self.nth}"


def names_of(calls: tuple[str, ...]) -> str:
    """As strace takes them; one that an architecture does not have is no error."""
    return ",".join(f"?{name}" for name in calls)


def points(seen: str, folder: Path) -> list[Point]:
    """Those of what strace saw that are about this folder, in order."""
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
    """Attached inside the block. `fault`: what strace's `inject` takes, as in `pwrite64:error=EIO:when=3`.

    All of `calls` are traced, whichever of them is to fail: what is slowed down in a count is slowed down then, too.
    """

    def __init__(self, thread: int, log: Path, calls: tuple[str, ...] = ALL, fault: str = "") -> None:
        self._log = log
        inject = ["-e", f"inject={fault}"] if fault else []
        self._command = ["strace", "-p", str(thread), "-y", "-e", f"trace={names_of(calls)}", *inject, "-o", str(log)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert "attached" in said, said + self._process.stderr.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # detaches
        self._process.communicate(timeout=20)

    def wait(self) -> None:
        """Until the process has died, and strace has noted it."""
        self._process.wait(timeout=20)

    @property
    def text(self) -> str:
        """What was seen. Complete after the block."""
        return self._log.read_text(errors="replace")

    @property
    def has_struck(self) -> bool:
        return "(INJECTED)" in self.text or "(DELAYED)" in self.text or "killed by SIGKILL" in self.text


@functools.cache
def why_not() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        command = ["strace", "-p", str(child.pid), "-e", "trace=none"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            tracer.send_signal(signal.SIGINT)
        assert child.stdin is not None
        child.stdin.close()
    return "" if "attached" in said else f"strace may not attach: {said.strip()}"


def need_strace() -> None:
    if reason := why_not():
        pytest.skip(f"not run: {reason}")
