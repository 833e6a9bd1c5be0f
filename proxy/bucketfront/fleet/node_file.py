"""What a node keeps of the bus in its cache folder, so that it survives restarts: `bus.json`.

A file that is missing or damaged is no harm: all that is cached counts as stale then.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ulid import ULID

from bucketfront.errors import StoreError
from bucketfront.fleet.bus import EntryId, Position
from bucketfront.task_set import TaskSet

FILE_NAME = "bus.json"
MAX_FILE_BYTES = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeState:
    """`node` names the node to others. Until `position` all notices are applied; None if that is not known.

    With `is_indebted` some notices of this node may never have reached the bus.
    """

    node: str
    position: Position | None = None
    is_indebted: bool = False


class NodeFile:
    """The file in a folder. `folder` returns its descriptor, which changes if the folder is made anew."""

    def __init__(self, folder: Callable[[], int]) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        self._tasks = TaskSet()

    def read(self) -> NodeState:
        """Return the state. A copy of a folder is another node, because two nodes must not have one name."""
        try:
            facts = json.loads(_read(self._folder()))
            position = None
            if facts["at"] is not None:
                position = Position(EntryId.parsed(facts["at"]), int(facts["added"]))
            node = str(facts["node"]) if facts["place"] == self._place() else str(ULID())
            return NodeState(node, position, bool(facts["owes"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s of the cache folder is of no use, and begun anew: %s", FILE_NAME, error)
        return NodeState(str(ULID()))

    async def write(self, state: NodeState) -> None:
        """Replace the file, also if the caller is cancelled, so that writes keep their order. Raises StoreError."""
        await self._tasks.run(self._write(state))

    async def written(self) -> None:
        """Wait for the writes that have begun, and for their failures as well."""
        async with self._lock:
            pass

    async def _write(self, state: NodeState) -> None:
        position = state.position
        facts = {
            "node": state.node,
            "at": None if position is None else str(position.at),
            "added": 0 if position is None else position.added,
            "owes": state.is_indebted,
        }
        async with self._lock:
            try:
                facts["place"] = self._place()
                await asyncio.to_thread(_replace, self._folder(), json.dumps(facts).encode())
            except OSError as error:
                raise StoreError(f"{FILE_NAME} of the cache folder could not be written: {error.strerror}") from error

    def _place(self) -> str:
        """Return what distinguishes the folder from its copies."""
        found = os.fstat(self._folder())
        return f"{found.st_dev}:{found.st_ino}"


def _read(folder: int) -> bytes:
    # Without O_NONBLOCK, a named pipe in the place of the file would hold the start for ever: fifo(7).
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(FILE_NAME, flags, dir_fd=folder), "rb") as file:
        return file.read(MAX_FILE_BYTES)


def _replace(folder: int, data: bytes) -> None:
    """Replace the file as a whole. A loss of power may leave the old one or a damaged one, both of which do no harm."""
    fresh = f"{FILE_NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
    try:
        os.replace(fresh, FILE_NAME, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=folder)
        raise
