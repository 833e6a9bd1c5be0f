"""The archives that are written and read now: one of each at a time, because each takes much of the disk's time."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from bucketfront.cache import Cache
from bucketfront.errors import ProxyError
from bucketfront.keys import ObjectKey
from bucketfront.warm.archive_export import ArchiveExport
from bucketfront.warm.archive_import import ArchiveImport, ImportState


class TransferRuns(ProxyError):
    """Another transfer of that kind runs."""


class Transfers:
    """Begins transfers, and knows the last import. It outlives reloads."""

    def __init__(self, cache: Cache, version: str) -> None:
        """`version` is that of this bucketfront, for the archives that it writes."""
        self._cache = cache
        self._version = version
        self._is_exporting = False
        self.last_import: ArchiveImport | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether no transfer runs."""
        return not self._is_exporting and not self._is_importing

    @property
    def _is_importing(self) -> bool:
        return self.last_import is not None and self.last_import.state is ImportState.RUNNING

    @contextmanager
    def export(self, path_of: Callable[[ObjectKey], str | None], limit: int | None) -> Iterator[ArchiveExport]:
        """Have an archive written within the block. Raises TransferRuns."""
        if self._is_exporting:
            raise TransferRuns("an export runs already")
        self._is_exporting = True
        try:
            yield ArchiveExport(self._cache, path_of, limit, self._version)
        finally:
            self._is_exporting = False

    def begin_import(
        self, key_of: Callable[[str], ObjectKey], read: Callable[[int], Awaitable[bytes]]
    ) -> ArchiveImport:
        """Return a new import. The caller runs it. Raises TransferRuns."""
        if self._is_importing:
            raise TransferRuns("an import runs already")
        self.last_import = ArchiveImport(self._cache, key_of, read)
        return self.last_import
