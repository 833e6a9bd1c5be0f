"""Systems without Linux's own calls: on macOS the proxy runs for development, and on Windows it says why not."""

import http.client
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment_of_process, invoke, started
from stopwatch import HANG_S

from bucketfront.s3.embedded import launcher

# What Python has on Linux only, or the C library there.
LIKE_MACOS = """\
import ctypes, os, select, selectors, socket, sys, time

import aiohttp, aiobotocore.session, pydantic.types, urllib.request  # they look for what only a real macOS has
sys.platform = "darwin"
for module, names in (
    (os, ("fdatasync", "posix_fadvise", "POSIX_FADV_DONTNEED", "RWF_NOWAIT", "sched_getaffinity", "pidfd_open")),
    (select, ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP")),
    (selectors, ("EpollSelector",)),
    (socket, ("TCP_INFO", "TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT", "SO_PEERCRED")),
    (time, ("CLOCK_BOOTTIME",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
selectors.DefaultSelector = selectors.PollSelector


class Library:
    def __init__(self, *arguments, **options):
        pass


ctypes.CDLL = Library
from bucketfront.cli import main

main(sys.argv[1:], prog_name="bucketfront")
"""


def test_macos(tmp_path: Path) -> None:
    """Without epoll and the other calls that only Linux has, a proxy starts, serves from its cache, and stops."""
    with subprocess.Popen(
        [sys.executable, "-c", LIKE_MACOS, "demo", "--port", "0", "--admin-port", "0"],
        cwd=tmp_path,
        env=environment_of_process(TMPDIR=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            running = started(process, "browser")
            sample = (launcher.EXAMPLES / "sample.mp4").read_bytes()
            for _ in range(2):  # a miss, then a hit
                assert running.get("/sample.mp4") == (200, sample)
            connection = http.client.HTTPConnection(running.clients, timeout=HANG_S)
            connection.request("GET", "/sample.mp4", headers={"Range": "bytes=1000-1999"})
            response = connection.getresponse()
            assert response.status == 206
            assert response.read() == sample[1000:2000]
            assert "hit" in str(response.headers["Cache-Status"])
            connection.request("PUT", "/a.txt", b"data")
            assert connection.getresponse().read() == b'{"key": "a.txt"}\n'
            connection.close()
            assert running.get("/a.txt") == (200, b"data")
            assert running.get("/readyz", running.admin) == (200, b"ready\n")
        finally:
            process.terminate()
            _, rest = process.communicate(timeout=HANG_S)
    assert process.returncode == 0
    assert "Traceback" not in rest


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows each command ends with status 1 and one sentence."""
    monkeypatch.setattr(sys, "platform", "win32")
    result = invoke("serve", "--bucket", "media")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "WSL 2" in result.stderr
