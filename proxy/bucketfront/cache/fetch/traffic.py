"""The bytes of objects that came from the origin, by the mount of the object and by their cause."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from bucketfront.cache.entries.removals import Reason, RemovalReason
from bucketfront.keys import ObjectKey


class Cause(StrEnum):
    """Why bytes came from the origin. The value is its label in metrics."""

    FILL = "fill"  # a client requested them, or the whole blocks around its range
    READ_AHEAD = "read-ahead"  # no client had requested them yet
    PASS_THROUGH = "pass-through"  # noqa: S105 - no password; a client requested them, and the cache could not store them


class Waste(StrEnum):
    """Why bytes that came from the origin were of no use. The value is its label in metrics."""

    UNREAD = "unread"  # the object was removed for space or idleness before a client read them
    OUTDATED = "outdated"  # a write, a purge or another version came before a client read them
    TWICE = "twice"  # another request brought the same bytes
    CUT_OFF = "cut-off"  # of a block that did not come whole, or outside of the part that was wanted


# A file that is lost, and bytes that do not fit a checksum, cost a second fetch, as another version does.
_WASTE_OF = dict.fromkeys(RemovalReason, Waste.OUTDATED) | dict.fromkeys(
    (RemovalReason.SPACE, RemovalReason.IDLE), Waste.UNREAD
)


@dataclass(slots=True)
class Account:
    """The bytes of one mount's objects: all that came by cause, and those of no use among them."""

    received: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    wasted: dict[Waste, int] = field(default_factory=lambda: dict.fromkeys(Waste, 0))

    def waste(self, waste: Waste, count: int) -> None:
        self.wasted[waste] += count

    def add(self, cause: Cause, count: int) -> None:
        self.received[cause] += count


class Traffic:
    """The accounts of all mounts. `mount_of` names the mount of a key, from a closed set."""

    def __init__(self, mount_of: Callable[[ObjectKey], str]) -> None:
        self._mount_of = mount_of
        self.accounts: dict[str, Account] = {}

    def note_unread(self, key: ObjectKey, reason: Reason, count: int) -> None:
        """Count bytes of an entry that was removed for that reason, and that no client has read."""
        self.of(key).waste(_WASTE_OF[reason] if isinstance(reason, RemovalReason) else Waste.OUTDATED, count)

    def of(self, key: ObjectKey) -> Account:
        """Return the account of the mount of `key`."""
        mount = self._mount_of(key)
        account = self.accounts.get(mount)
        if account is None:
            account = self.accounts[mount] = Account()
        return account
