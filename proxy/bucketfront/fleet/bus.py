"""What a node needs of a bus: a stream of notices in one order for all nodes, and a register of the live ones.

`fleet.redis_bus` is the implementation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_ENTRIES = 500  # of one batch


class BusError(Exception):
    """The bus cannot be reached, or refuses a call. The message has the reason, and no secret."""


@dataclass(frozen=True, slots=True, order=True)
class EntryId:
    """The place of an entry in the stream: milliseconds by the clock of the bus, and a number among those."""

    milliseconds: int = 0
    number: int = 0

    @classmethod
    def parsed(cls, text: str) -> "EntryId":
        """Return the id that `str` wrote. Raises ValueError."""
        milliseconds, _, number = text.partition("-")
        return cls(int(milliseconds), int(number))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.number}"


@dataclass(frozen=True, slots=True)
class Position:
    """Until where a node has read: the last entry, and how many had ever been added to the stream by then."""

    at: EntryId
    added: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry. `sender` and `notice` are None if a program that is no bucketfront has added it."""

    at: EntryId
    sender: str | None
    notice: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries behind a position, at most MAX_ENTRIES, and the end of the stream as of the same moment."""

    entries: tuple[StreamEntry, ...]
    end: Position

    @property
    def is_last(self) -> bool:
        """Return whether no more entries were in the stream."""
        return len(self.entries) < MAX_ENTRIES


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the register has it. `name` is for operators, and `at` is the last entry that it has applied."""

    node: str
    name: str
    at: EntryId


class Bus(Protocol):
    """A bus. Every method raises BusError, and has a bounded time for its calls."""

    async def append(self, sender: str, notices: Sequence[bytes]) -> EntryId:
        """Add entries in their order, and return the id of the last one. If it raises, some may have been added."""

    async def read(self, after: EntryId) -> Batch:
        """Return the entries behind an id, and the end of the stream, as of one moment."""

    async def wait(self, after: EntryId, seconds: float) -> None:
        """Wait until an entry is behind an id, or for that long."""

    async def register(self, member: Member, seconds: float) -> None:
        """Note that a node lives, and that it counts as live for so many seconds."""

    async def leave(self, node: str) -> None:
        """Note that a node has ended."""

    async def members(self) -> list[Member]:
        """Return the live nodes."""

    async def close(self) -> None:
        """Close the connections. Never raises."""
