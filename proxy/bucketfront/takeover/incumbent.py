"""The running process's side of a take-over, which `messages` describes."""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from bucketfront.descriptor_channel import (
    IS_POSSIBLE,
    BadMessage,
    ChannelClosed,
    ChannelListener,
    DescriptorChannel,
    connect,
)
from bucketfront.errors import ProxyError, StoreError
from bucketfront.keys import ObjectKey
from bucketfront.takeover.messages import (
    CHECK_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    SERVE_TIMEOUT_S,
    SOCKET_NAME,
    VERSION,
    Step,
    invalidations,
    keys_of,
    message,
    step_of,
)
from bucketfront.task_set import TaskSet

FORWARD_TIMEOUT_S = 8.0  # for the owner to invalidate keys, also while it starts again
RETRY_S = 0.05  # between two attempts to reach the owner, or to lock the folder
SERVE_UNCACHED_AFTER_S = 2.0  # without the lock, after which connections are accepted again all the same

log = logging.getLogger("bucketfront")


class Estate(Protocol):
    """What passes to another process. `takeover.tenure.Tenure` is the implementation."""

    @property
    def folder(self) -> int:
        """Return the descriptor of the cache folder."""

    @property
    def refusal(self) -> str | None:
        """Return why nothing can pass now. Returns None if it can."""

    def sockets(self) -> list[tuple[str, list[int]]]:
        """Return the listening sockets, by the names of their places."""

    def pause(self) -> None:
        """Accept no connections."""

    def resume(self) -> None:
        """Accept connections as before."""

    async def release(self, forward: "Forward") -> None:
        """Leave the folder, and all in it, to the next owner. Raises ProxyError; `take_back` is due then."""

    async def take_back(self) -> None:
        """Own the folder again. Raises StoreError, also while another process has locked it."""

    def give_away(self) -> None:
        """Close the listening sockets for good."""

    async def invalidate(self, keys: Sequence[ObjectKey]) -> None:
        """Invalidate keys in the cache. Raises StoreError."""


class Incumbent:
    """Listens for the process that takes over. `has_handed_over` is set once that one serves."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._listener: ChannelListener | None = None
        self._forwarding: Forwarding | None = None
        self._tasks = TaskSet()
        self._at_rest = asyncio.Event()  # no take-over runs
        self._at_rest.set()
        self.has_handed_over = asyncio.Event()

    def start(self) -> None:
        """Listen. A folder that takes no socket only prevents take-overs."""
        if not IS_POSSIBLE:
            return
        try:
            self._listener = ChannelListener(self._estate.folder, SOCKET_NAME, self._begin)
        except OSError as error:
            log.warning("no process can take over from this one, because of the cache folder: %s", error.strerror)

    async def stop(self) -> None:
        """Let a take-over that runs come to its end, then listen no more."""
        await self._at_rest.wait()
        await self._tasks.close()
        self._unlisten()

    def _unlisten(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _begin(self, channel: DescriptorChannel) -> None:
        self._tasks.start(self._converse(channel), name="conversation with another process")

    async def _converse(self, channel: DescriptorChannel) -> None:
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                received = await channel.receive()
            received.close()
            match step_of(received.fields):
                case Step.INVALIDATE:
                    await self._invalidate(channel, keys_of(received.fields))
                case Step.HELLO:
                    await self._meet(channel, received.fields.get("version"))
        except (ChannelClosed, BadMessage, TimeoutError) as error:
            log.warning("process %d began to talk to this one, and stopped: %s", channel.peer.process, error)
        finally:
            channel.close()

    async def _invalidate(self, channel: DescriptorChannel, keys: Sequence[ObjectKey]) -> None:
        with suppress(StoreError):  # memory has forgotten the objects, as after any write
            await self._estate.invalidate(keys)
        await channel.send(message(Step.INVALIDATED))

    # --- a take-over ---------------------------------------------------------------------------------------

    async def _meet(self, channel: DescriptorChannel, version: object) -> None:
        refusal = self._estate.refusal
        if version != VERSION:
            refusal = f"the running process takes version {VERSION} of a take-over, and was asked for {version}"
        elif not self._at_rest.is_set():
            refusal = "another process is taking over"
        if refusal is not None:
            await channel.send(message(Step.REFUSED, reason=refusal))
            return
        self._at_rest.clear()
        try:
            await self._hand_over(channel)
        finally:
            self._at_rest.set()

    async def _hand_over(self, channel: DescriptorChannel) -> None:
        for name, descriptors in self._estate.sockets():
            await channel.send(message(Step.SOCKETS, name=name), descriptors)
        await channel.send(message(Step.SOCKETS, name=None))
        await _expect(channel, Step.RELEASE, CHECK_TIMEOUT_S)
        began = asyncio.get_running_loop().time()
        self._estate.pause()
        try:
            self._unlisten()
            await self._release(channel)
            await _expect(channel, Step.SERVING, SERVE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, this process has to serve
            log.warning("process %d has not taken over (%s): this one goes on", channel.peer.process, error)
            with suppress(ProxyError):
                await channel.send(message(Step.WITHDRAWN))
            channel.close()
            await self._take_back()
            return
        self._estate.give_away()
        seconds = asyncio.get_running_loop().time() - began
        log.warning("process %d has taken over within %.2f s", channel.peer.process, seconds)
        self.has_handed_over.set()
        with suppress(ChannelClosed):
            await channel.send(message(Step.DONE))

    async def _release(self, channel: DescriptorChannel) -> None:
        """Leave the folder to the next owner. Raises ProxyError."""
        self._forwarding = self._forwarding or Forwarding(self._estate.folder)
        try:
            await self._estate.release(self._forwarding)
        except StoreError as error:
            await channel.send(message(Step.REFUSED, reason=str(error)))
            raise
        await channel.send(message(Step.RELEASED))

    async def _take_back(self) -> None:
        """Own the folder again, as soon as the other process has unlocked it."""
        loop = asyncio.get_running_loop()
        began, is_paused = loop.time(), True
        while True:
            try:
                await self._estate.take_back()
                break
            except StoreError as error:
                if is_paused and loop.time() - began > SERVE_UNCACHED_AFTER_S:
                    is_paused = False
                    log.warning("this process serves without its cache until it has that again: %s", error)
                    self._estate.resume()
                await asyncio.sleep(RETRY_S)
        if is_paused:
            self._estate.resume()
        self.start()


class Forward(Protocol):
    """Has the owner of the folder invalidate keys. Raises StoreError."""

    async def __call__(self, keys: Sequence[ObjectKey]) -> None: ...


class Forwarding:
    """Has the owner of the folder invalidate keys. `folder` is copied, because the owner's descriptor is closed."""

    def __init__(self, folder: int) -> None:
        self._folder = os.dup(folder)

    async def __call__(self, keys: Sequence[ObjectKey]) -> None:
        """Return once the owner has invalidated the keys. Raises StoreError after FORWARD_TIMEOUT_S."""
        try:
            async with asyncio.timeout(FORWARD_TIMEOUT_S):
                while not await self._forward(keys):  # noqa: ASYNC110 - the owner may be starting
                    await asyncio.sleep(RETRY_S)
        except (OSError, TimeoutError) as error:
            raise StoreError("the process that owns the cache does not answer, and may serve old versions") from error

    async def _forward(self, keys: Sequence[ObjectKey]) -> bool:
        for each in invalidations(keys):
            channel = connect(self._folder, SOCKET_NAME)
            if channel is None:
                return False
            try:
                await channel.send(each)
                await channel.receive()
            except (ChannelClosed, BadMessage):
                return False
            finally:
                channel.close()
        return True


async def _expect(channel: DescriptorChannel, step: Step, timeout: float) -> None:  # noqa: ASYNC109 - of a message
    """Wait for a message. Raises ChannelClosed, BadMessage, TimeoutError."""
    async with asyncio.timeout(timeout):
        received = await channel.receive()
    received.close()
    if step_of(received.fields) is not step:
        raise BadMessage(f"it sent {step_of(received.fields).value} in place of {step.value}")
