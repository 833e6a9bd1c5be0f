"""The bus on a server of Redis or Valkey, from release 7 on.

`PREFIX:stream` is the stream, trimmed by age whenever something is added. `PREFIX:nodes` is a hash with one JSON value
for each node. All times are by the clock of the server, so the clocks of nodes do not matter.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError

from bucketfront.config.bus_settings import BusSettings
from bucketfront.config.secret_file import current
from bucketfront.fleet.bus import MAX_ENTRIES, Batch, BusError, EntryId, Member, Position, StreamEntry
from bucketfront.fleet.redis_failures import TOO_OLD, explaining, reason

CALL_TIMEOUT_S = 2.0  # of one call, and of a connection; a bus on the same network takes a millisecond
MAX_STREAM_ENTRIES = 1_000_000  # whatever their age, so that a flood takes some 100 MiB of the server
FORGOTTEN_AFTER_MS = 3_600_000  # a node of the register that has not been seen for so long
CONNECTIONS = 4  # one waits, one adds, and two are for all else
_SENDER, _NOTICE = b"from", b"notice"


class _Credentials(CredentialProvider):
    """The user and the password. That of a file is read for each connection, so that it can change."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        settings = self._settings
        try:
            password = "" if settings.password is None else current(settings.password)
        except ValueError as error:
            raise AuthenticationError(str(error)) from None
        return (password,) if settings.username is None else (settings.username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()  # that of the client does the same, with a warning for each connection


class RedisBus:
    """Implements `Bus`. The constructor connects to nothing."""

    def __init__(self, settings: BusSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = f"{settings.prefix}:stream"
        self._nodes = f"{settings.prefix}:nodes"
        self._keep_ms = int(settings.keep * 1000)
        self._monotonic = monotonic
        self._offset_ms: float | None = None  # of the server's clock
        has_credentials = settings.username is not None or settings.password is not None
        tls: dict[str, Any] = {}
        if settings.url.startswith("rediss:"):
            files = {
                "ssl_ca_certs": settings.ca_bundle, "ssl_certfile": settings.certificate, "ssl_keyfile": settings.key,
            }  # fmt: skip
            tls = {name: str(path) for name, path in files.items() if path is not None}
        self._redis: Redis = Redis.from_url(
            settings.url,
            credential_provider=_Credentials(settings) if has_credentials else None,
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the fleet repeats by itself, and reports each failure
            max_connections=CONNECTIONS,
            client_name="bucketfront",
            **tls,
        )

    @explaining
    async def append(self, sender: str, notices: Sequence[bytes]) -> EntryId:
        oldest = f"{max(0, await self._now_ms() - self._keep_ms)}-0"
        pipeline = self._redis.pipeline(transaction=False)
        for notice in notices:
            pipeline.xadd(self._stream, {_SENDER: sender, _NOTICE: notice}, minid=oldest, approximate=True)
        pipeline.xtrim(self._stream, maxlen=MAX_STREAM_ENTRIES, approximate=True)
        replies = await _piped(pipeline)
        return _id(replies[-2])

    @explaining
    async def read(self, after: EntryId) -> Batch:
        # In two steps and no transaction, which a server without memory refuses. What is added between the two is left
        # out, and what is trimmed between them shows as a gap.
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.xinfo_stream(self._stream)
        try:
            time_of_server, facts = await _piped(pipeline)
        except BusError as error:
            if "no such key" not in str(error).lower():
                raise
            return Batch((), Position(EntryId(), 0))
        self._note_time(time_of_server)
        added = facts.get("entries-added")
        if added is None:
            raise BusError(TOO_OLD)
        end = Position(_id(facts["last-generated-id"]), int(added))
        if end.at <= after:
            return Batch((), end)
        found = await _called(self._redis.xrange(self._stream, min=f"({after}", max=str(end.at), count=MAX_ENTRIES))
        return Batch(tuple(_entry(at, fields) for at, fields in found), end)

    @explaining
    async def wait(self, after: EntryId, seconds: float) -> None:
        block = max(1, int(seconds * 1000))
        await _called(self._redis.xread({self._stream: str(after)}, count=1, block=block), CALL_TIMEOUT_S + seconds)

    @explaining
    async def register(self, member: Member, seconds: float) -> None:
        until = int(await self._now_ms() + seconds * 1000)
        facts = json.dumps({"name": member.name, "at": str(member.at), "until": until})
        await _called(self._redis.hset(self._nodes, member.node, facts))

    @explaining
    async def leave(self, node: str) -> None:
        await _called(self._redis.hdel(self._nodes, node))

    @explaining
    async def members(self) -> list[Member]:
        """Return the live nodes, and remove those from the register that were live long ago."""
        found = await _called(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(self._nodes)))
        now = await self._now_ms()
        members, forgotten = [], []
        for node, value in found.items():
            try:
                member, until = _member(node, value)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                forgotten.append(node)
                continue
            if until > now:
                members.append(member)
            elif until < now - FORGOTTEN_AFTER_MS:
                forgotten.append(node)
        if forgotten:
            await _called(self._redis.hdel(self._nodes, *cast("list[str]", forgotten)))
        return sorted(members, key=lambda member: member.name)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._redis.aclose()
        except (RedisError, OSError, TimeoutError):
            pass  # the connections are of no use any more

    async def _now_ms(self) -> int:
        """Return the time by the server's clock."""
        if self._offset_ms is None:
            self._note_time(await _called(self._redis.time()))
        assert self._offset_ms is not None
        return int(self._monotonic() * 1000 + self._offset_ms)

    def _note_time(self, found: tuple[int, int]) -> None:
        seconds, microseconds = found
        self._offset_ms = seconds * 1000 + microseconds / 1000 - self._monotonic() * 1000


async def _piped(pipeline: Pipeline) -> list[Any]:
    """Return the replies to the commands of a pipeline. Raises BusError for the first that is an error."""
    # With `raise_on_error` the message would have the command, and with it names of objects.
    replies = cast("list[Any]", await _called(pipeline.execute(raise_on_error=False)))
    for reply in replies:
        if isinstance(reply, Exception):
            raise BusError(reason(reply)) from reply
    return replies


async def _called(call: Awaitable[Any], seconds: float = 2 * CALL_TIMEOUT_S) -> Any:
    """Return what a call of the client returns. Raises TimeoutError after a time, and what the client raises."""
    task = asyncio.current_task()
    assert task is not None
    cancellations = task.cancelling()
    try:
        async with asyncio.timeout(seconds):
            return await call
    finally:
        # The client sends with `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes as it returns.
        # Without this, a stop would wait for a task that goes on, and a purge for longer than its time.
        if task.cancelling() > cancellations:
            raise asyncio.CancelledError


def _id(text: bytes) -> EntryId:
    return EntryId.parsed(text.decode() if isinstance(text, bytes) else text)


def _entry(at: bytes, fields: dict[bytes, bytes]) -> StreamEntry:
    sender = fields.get(_SENDER)
    return StreamEntry(_id(at), None if sender is None else sender.decode(errors="replace"), fields.get(_NOTICE))


def _member(node: bytes, value: bytes) -> tuple[Member, int]:
    """Return a node of the register, and until when it counts as live."""
    facts = json.loads(value)
    return Member(node.decode(), str(facts["name"]), EntryId.parsed(facts["at"])), int(facts["until"])
