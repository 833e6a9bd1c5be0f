"""Which process owns the cache folder: this one, or one that has taken it over while this one ends its responses."""

from collections.abc import Awaitable, Callable, Sequence

from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey

Forward = Callable[[Sequence[ObjectKey]], Awaitable[None]]
"""Has the owner invalidate keys. Raises StoreError."""


class Ownership:
    """Owned from the start on. All parts of one cache share it, in the event loop.

    While another process is the owner, nothing in the folder may change from here, because the other one would not know
    of it. Open files stay readable.
    """

    def __init__(self) -> None:
        self._forward: Forward | None = None

    @property
    def is_held(self) -> bool:
        """Return whether this process is the owner."""
        return self._forward is None

    def require(self) -> None:
        """Raise StoreError unless this process is the owner."""
        if self._forward is not None:
            raise StoreError("another process owns the cache now")

    def release(self, forward: Forward) -> None:
        """Give the folder up. `forward` has the next owner invalidate keys that this process still writes."""
        self._forward = forward

    def retake(self) -> None:
        """Own the folder again."""
        self._forward = None

    async def forward(self, keys: Sequence[ObjectKey]) -> None:
        """Have the owner invalidate keys, unless this process is the owner again. Raises StoreError."""
        if self._forward is not None:
            await self._forward(keys)
