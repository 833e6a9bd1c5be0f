"""The new process's side of a take-over, which `messages` describes."""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from bucketfront.descriptor_channel import BadMessage, ChannelClosed, DescriptorChannel, Message, connect
from bucketfront.errors import ProxyError
from bucketfront.server.http1.inherited_sockets import InheritedSockets
from bucketfront.takeover.messages import (
    RELEASE_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    SOCKET_NAME,
    VERSION,
    Step,
    message,
    step_of,
)

log = logging.getLogger("bucketfront")


class TakeOverFailed(ProxyError):
    """The running process goes on, and this one cannot start."""


class Successor:
    """The conversation with the running process. `begin` makes one. Close it at the end in any case.

    Once the running process has died, its methods do nothing, because there is nothing to wait for.
    """

    def __init__(self, channel: DescriptorChannel) -> None:
        self._channel: DescriptorChannel | None = channel
        self.process = channel.peer.process
        self.inherited = InheritedSockets()
        self.has_died = False

    @classmethod
    async def begin(cls, folder: Path) -> "Successor | None":
        """Return the conversation, with the sockets of the running process. Returns None if none runs.

        `folder` is that of the cache. Raises TakeOverFailed.
        """
        try:
            fd = os.open(folder, os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            channel = connect(fd, SOCKET_NAME)
        finally:
            os.close(fd)
        if channel is None:
            return None
        successor = cls(channel)
        try:
            await successor._greet(channel)
        except BaseException:
            successor.close()
            raise
        return None if successor.has_died else successor

    async def _greet(self, channel: DescriptorChannel) -> None:
        found: list[tuple[str, tuple[int, ...]]] = []
        try:
            await channel.send(message(Step.HELLO, version=VERSION))
            while (reply := await self._reply(channel, REPLY_TIMEOUT_S, Step.SOCKETS)).fields.get("name") is not None:
                found.append((str(reply.fields["name"]), reply.descriptors))
        except ChannelClosed:
            self._note_death()
        finally:
            self.inherited = InheritedSockets(found)

    async def request_release(self) -> None:
        """Return once the running process accepts no connections and has unlocked the cache. Raises TakeOverFailed."""
        channel = self._channel
        if channel is None:
            return
        try:
            await channel.send(message(Step.RELEASE))
            await self._reply(channel, RELEASE_TIMEOUT_S, Step.RELEASED)
        except ChannelClosed:
            self._note_death()

    async def report_serving(self) -> None:
        """Have the running process end. Call it once connections are accepted. Raises TakeOverFailed."""
        channel = self._channel
        if channel is None:
            return
        try:
            await channel.send(message(Step.SERVING))
            await self._reply(channel, REPLY_TIMEOUT_S, Step.DONE)
        except ChannelClosed:
            self._note_death()

    async def _reply(self, channel: DescriptorChannel, timeout: float, wanted: Step) -> Message:  # noqa: ASYNC109
        """Return the next message, of the step `wanted`. Raises TakeOverFailed, ChannelClosed."""
        try:
            async with asyncio.timeout(timeout):
                reply = await channel.receive()
        except TimeoutError as error:
            raise TakeOverFailed(f"process {self.process} has not answered within {timeout:g} s: try again") from error
        except BadMessage as error:
            raise TakeOverFailed(f"process {self.process} is no bucketfront of this version: {error}") from error
        with suppress(BadMessage):
            if step_of(reply.fields) is wanted:
                return reply
        reply.close()
        reason = reply.fields.get("reason", "it goes on serving")
        raise TakeOverFailed(f"process {self.process} does not hand over: {reason}")

    def _note_death(self) -> None:
        log.warning("process %d has ended: this one starts without it", self.process)
        self.has_died = True
        self._close_channel()

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """End the conversation. Without a report, the running process serves as before."""
        self._close_channel()
        self.inherited.close(removes_files=False)
