"""The process that forks front ends, as its owner sees it. `__main__` is what runs there."""

import asyncio
import select
import socket
import subprocess  # nosec B404
import sys

from bucketfront.errors import UnusableSetting
from bucketfront.front_end.channel import channel_pair

READY_TIMEOUT_S = 60  # for the imports, on a machine with much other work


def check_system(workers: int) -> None:
    """Raise UnusableSetting if this system cannot have so many front ends."""
    if workers and sys.platform != "linux":
        raise UnusableSetting("server.workers needs Linux to be more than 1", ("server", "workers"))


class Nursery:
    """A running nursery. It ends with the thread that has started it, or by `close`."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._commands, theirs = channel_pair()
        with theirs:
            # No part of the command is from outside.
            command = [sys.executable, "-m", "bucketfront.front_end"]
            self._process = subprocess.Popen(command, stdin=theirs.fileno())  # noqa: S603  # nosec B603

    async def is_ready(self) -> bool:
        """Wait until it forks without a delay. Returns False if it has ended before, or needs too long."""

        def wait() -> bool:
            octet = select.poll()
            octet.register(self._commands, select.POLLIN)
            try:
                # The octet stays, so that any number of callers find it.
                return bool(octet.poll(READY_TIMEOUT_S * 1000)) and bool(self._commands.recv(1, socket.MSG_PEEK))
            except ConnectionResetError:
                return False

        return await asyncio.to_thread(wait)

    def fork(self, channel: socket.socket) -> None:
        """Have a front end forked that has this end of a channel. Raises OSError if no nursery starts."""
        try:
            self._command(channel)
        except OSError:  # it was killed, and with it all that it had forked
            self.close()
            self._start()
            self._command(channel)

    def _command(self, channel: socket.socket) -> None:
        socket.send_fds(self._commands, [b"\0"], (channel.fileno(),))

    @property
    def process(self) -> int:
        """Return its process id."""
        return self._process.pid

    def close(self) -> None:
        """End the nursery, and wait for that. The kernel ends the front ends that are left."""
        self._commands.close()
        self._process.wait()
