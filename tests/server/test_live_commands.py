"""`bucketfront tail` and `bucketfront top` show a running proxy, and end as their users expect."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from held_port import held_port
from proxy_under_test import S3, Proxy, StartProxy, until
from stopwatch import HANG_S

Configure = Callable[[int], Path]
RESTORED = b"\x1b[?1049l"  # the end of the alternate screen of an xterm


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write the configuration by which a command finds the admin port."""

    def write(port: int) -> Path:
        config = tmp_path / "command.yaml"
        config.write_text(f"admin: {{port: {port}}}\nmounts: [{{path: /, bucket: any}}]\n")
        return config

    return write


def port_of(proxy: Proxy) -> int:
    return int(proxy.app.admin_address.rpartition(":")[2])


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUCKETFRONT_")}
    return {**kept, "TERM": "xterm", "PYTHONUNBUFFERED": "1"}


@asynccontextmanager
async def command(*arguments: str | Path, stdout: int = PIPE) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bucketfront.cli", *map(str, arguments),
        stdin=DEVNULL, stdout=stdout, stderr=PIPE, env=environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def line_from(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(HANG_S):
        return (await stream.readline()).decode()


async def ended(process: Process) -> tuple[int, str, str]:
    """Return exit status, and the rest of standard output and standard error."""
    async with asyncio.timeout(HANG_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (output or b"").decode(), errors.decode()


async def watched(proxy: Proxy) -> None:
    """Wait until a command has its stream."""
    await until(lambda: len(proxy.app.live_feed))


async def test_tail(proxy: Proxy, s3: S3, configure: Configure) -> None:
    """`tail` prints a line for each request, without colours in a pipe, and Ctrl-C ends it with 0."""
    s3.put("x", b"data")
    async with command("tail", "-c", configure(port_of(proxy))) as tail:
        await watched(proxy)
        await proxy.get("/x")
        line = await line_from(tail.stdout)
        assert line.split()[1:3] == ["200", "miss"]
        assert line.endswith("GET  /x\n")
        assert "\x1b" not in line
        tail.send_signal(signal.SIGINT)
        assert await ended(tail) == (0, "", "")


async def test_tail_as_json(proxy: Proxy, s3: S3, configure: Configure) -> None:
    """`tail --json` prints the lines of the access log, and the conditions select."""
    s3.put("x", b"data")
    arguments = ("--json", "--status", "4xx", "--path", "/absent*", "--cache", "miss", "--slow", "0s")
    async with command("tail", *arguments, "-c", configure(port_of(proxy))) as tail:
        await watched(proxy)
        for path in ("/x", "/other", "/absent-1"):
            await proxy.get(path)
        assert json.loads(await line_from(tail.stdout)) == proxy.log[-1]


async def test_tail_says_what_it_drops(proxy: Proxy, configure: Configure) -> None:
    """The number of requests that came too fast is on standard error."""
    async with command("tail", "-c", configure(port_of(proxy))) as tail:
        await watched(proxy)
        (subscription,) = proxy.app.live_feed._subscriptions
        subscription._dropped = 12345
        subscription.wake()
        assert "12,345 requests" in await line_from(tail.stderr)


async def test_tail_into_a_closed_pipe(proxy: Proxy, configure: Configure) -> None:
    """A reader that has enough ends `tail` with 0 and without a message, as in `tail | head`."""
    reading, writing = os.pipe()
    async with command("tail", "-c", configure(port_of(proxy)), stdout=writing) as tail:
        os.close(writing)
        await watched(proxy)
        os.close(reading)
        await proxy.get("/x")
        assert await ended(tail) == (0, "", "")


async def test_tail_without_a_proxy(configure: Configure) -> None:
    """Without a proxy, and with a malformed condition, `tail` ends at once with one sentence."""
    with held_port() as port:
        async with command("tail", "-c", configure(port)) as tail:
            status, output, errors = await ended(tail)
    assert (status, output) == (1, "")
    assert "Is the proxy running" in errors
    assert errors.count("\n") == 1


async def test_another_token(start: StartProxy, configure: Configure) -> None:
    """A command whose configuration has another token than the proxy runs with names the ways to apply a new one."""
    proxy = await start(admin={"port": 0, "token": "the-token-of-before"})
    for name in ("reload", "stats", "tail"):
        async with command(name, "-c", configure(port_of(proxy))) as refused:
            status, output, errors = await ended(refused)
        assert (status, output) == (1, ""), name
        assert "answered 401" in errors, name
        assert "SIGHUP, or run the command with the old one in BUCKETFRONT_ADMIN__TOKEN" in errors, name


async def test_tail_with_a_malformed_condition(proxy: Proxy, configure: Configure) -> None:
    """The proxy's reason is shown, with the status for wrong use."""
    async with command("tail", "--status", "20", "-c", configure(port_of(proxy))) as tail:
        status, output, errors = await ended(tail)
    assert (status, output) == (2, "")
    assert "'20' is no status: write 404 or 5xx" in errors


async def test_tail_waits_for_the_proxy(start: StartProxy, s3: S3, configure: Configure) -> None:
    """`tail` says that the proxy has stopped, waits for the next one, and goes on, as `tail -F`."""
    s3.put("x", b"data")
    with held_port() as port:
        proxy = await start(admin={"port": port})
        async with command("tail", "-c", configure(port)) as tail:
            await watched(proxy)
            await proxy.stop()
            assert "waiting" in await line_from(tail.stderr)
            proxy = await start(admin={"port": port})
            assert "is back" in await line_from(tail.stderr)
            await proxy.get("/x")
            assert "/x" in await line_from(tail.stdout)


async def test_top_without_a_terminal(proxy: Proxy, s3: S3, configure: Configure) -> None:
    """Without a terminal, `top` prints one frame and ends. `--json` prints what the path responds."""
    s3.put("x", b"data")
    await proxy.get("/x")
    proxy.app.telemetry.flush()
    config = configure(port_of(proxy))
    async with command("top", "-c", config) as top:
        status, output, errors = await ended(top)
    assert (status, errors) == (0, "")
    assert "HOTTEST, by requests" in output
    assert "/x" in output
    async with command("top", "--json", "-c", config) as top:
        status, output, _ = await ended(top)
    assert status == 0
    assert json.loads(output)["hottest"]["by_requests"][0]["path"] == "/x"


class Terminal:
    """A terminal of 24 lines with 100 columns, and what a command writes to it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 100)
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        """Press a key, and forget what was written before."""
        self.text = b""
        os.write(self.master, key)

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before and RESTORED in self.text

    def close(self) -> None:
        """Close both ends, as when the window of a terminal closes."""
        if self.master >= 0:
            asyncio.get_running_loop().remove_reader(self.master)
            os.close(self.master)
            os.close(self.slave)
            self.master = -1

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.text += os.read(self.master, 1 << 16)


@asynccontextmanager
async def live_top(config: Path) -> AsyncIterator[tuple[Process, Terminal]]:
    terminal = Terminal()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bucketfront.cli", "top", "-c", str(config),
        stdin=terminal.slave, stdout=terminal.slave, stderr=terminal.slave, env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        yield process, terminal
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        terminal.close()


async def test_top_on_a_terminal(proxy: Proxy, s3: S3, configure: Configure) -> None:
    """On a terminal, `top` shows frames, sorts at a key press, follows a resize, and `q` restores the terminal."""
    s3.put("x", b"data")
    await proxy.get("/x")
    proxy.app.telemetry.flush()
    async with live_top(configure(port_of(proxy))) as (top, terminal):
        await until(lambda: b"by requests" in terminal.text and b"/x" in terminal.text)
        terminal.press(b"b")
        await until(lambda: b"by bytes" in terminal.text)
        terminal.text = b""
        terminal.resize(10, 40)
        top.send_signal(signal.SIGWINCH)
        await until(lambda: b"bucketfront" in terminal.text)
        terminal.press(b"q")
        async with asyncio.timeout(HANG_S):
            assert await top.wait() == 0
        await until(lambda: terminal.is_restored)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0), (signal.SIGHUP, 129)])
async def test_top_restores_the_terminal(proxy: Proxy, configure: Configure, number: int, status: int) -> None:
    """A signal that ends `top` leaves the terminal as it was."""
    async with live_top(configure(port_of(proxy))) as (top, terminal):
        await until(lambda: b"requests" in terminal.text)
        top.send_signal(number)
        async with asyncio.timeout(HANG_S):
            assert await top.wait() == status
        await until(lambda: terminal.is_restored)


async def test_top_ends_with_its_terminal(proxy: Proxy, configure: Configure) -> None:
    """`top` ends if its terminal is gone without a signal, and does not go on without one."""
    async with live_top(configure(port_of(proxy))) as (top, terminal):
        await until(lambda: b"requests" in terminal.text)
        terminal.close()
        async with asyncio.timeout(HANG_S):
            await top.wait()


async def test_top_outlives_the_proxy(start: StartProxy, configure: Configure) -> None:
    """If the proxy goes away, `top` says so and shows the next one."""
    with held_port() as port:
        proxy = await start(admin={"port": port})
        async with live_top(configure(port)) as (_, terminal):
            await watched(proxy)
            await until(lambda: b"requests" in terminal.text)
            terminal.text = b""
            await proxy.stop()
            await until(lambda: b"has stopped" in terminal.text or b"no answer" in terminal.text)
            terminal.text = b""
            proxy = await start(admin={"port": port})
            await watched(proxy)
            await until(lambda: b"quit" in terminal.text)
