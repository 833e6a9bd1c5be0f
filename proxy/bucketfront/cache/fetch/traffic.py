"""The bytes of objects that came from the origin, by the mount of the object and by their cause."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from bucketfront.keys import ObjectKey


class Cause(StrEnum):
    """Why bytes came from the origin. The value is its label in metrics."""

    FILL = "fill"  # a client requested them, or the whole blocks around its range
    READ_AHEAD = "read-ahead"  # no client had requested them yet
    PASS_THROUGH = "pass-through"  # noqa: S105 - no password; a client requested them, and the cache could not store them


@dataclass(slots=True)
class Account:
    """The bytes of one mount's objects, by cause."""

    received: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))

    def add(self, cause: Cause, count: int) -> None:
        self.received[cause] += count


class Traffic:
    """The accounts of all mounts. `mount_of` names the mount of a key, from a closed set."""

    def __init__(self, mount_of: Callable[[ObjectKey], str]) -> None:
        self._mount_of = mount_of
        self.accounts: dict[str, Account] = {}

    def of(self, key: ObjectKey) -> Account:
        """Return the account of the mount of `key`."""
        mount = self._mount_of(key)
        account = self.accounts.get(mount)
        if account is None:
            account = self.accounts[mount] = Account()
        return account
