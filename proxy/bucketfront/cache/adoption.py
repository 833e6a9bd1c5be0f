"""How an object of another cache's archive comes into this one: S3 confirms the version before a byte is stored.

The lookup that does so is the one of any request. So a write or a purge that comes meanwhile prevails
(docs/invariants.md#no-stale-fill), the age counts from S3's response (docs/invariants.md#bounded-staleness), and the
archive's own metadata reaches no client (docs/invariants.md#one-source-of-metadata).
"""

from enum import Enum

from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.lookup_flow import Absent, LookupFlow
from bucketfront.cache.reader import Reader
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey


class AdoptionRefusal(Enum):
    """Why an object of an archive does not come into the cache. The values are stable, for programs."""

    GONE = "gone"  # S3 has no such object
    CHANGED = "changed"  # S3 has another version, or none that can be told from others
    NOT_STORED = "not-stored"  # a rule, its own fields, its size or the disk keep it out of the cache


class Adopter:
    """Prepares entries for bytes that other caches had."""

    def __init__(self, lookup_flow: LookupFlow, entries: EntryTable, open_files: OpenFiles) -> None:
        self._lookup_flow = lookup_flow
        self._entries = entries
        self._open_files = open_files

    async def adopt(self, key: ObjectKey, claimed: Metadata, uses: int) -> Reader | AdoptionRefusal:
        """Return a reader with a file, whose `supply` takes bytes of the claimed version. Close it.

        `uses` are requests that another cache has counted. Raises OriginErrors except ObjectNotFound.
        """
        found = await self._confirmed(key)
        if isinstance(found, Absent):
            return AdoptionRefusal.GONE
        try:
            refusal = await self._refusal(key, found, claimed, uses)
        except BaseException:
            found.close()
            raise
        if refusal is not None:
            found.close()
            return refusal
        return found

    async def _confirmed(self, key: ObjectKey) -> Reader | Absent:
        """Return the object as S3 has it: a HEAD tells, unless an entry is fresh. Raises OriginErrors."""
        found = await self._lookup_flow.lookup(key, wants_body=False)
        if not isinstance(found, Absent) and found.status.hit and (found.status.ttl or 0) <= 0:
            # It is served stale, and revalidated in the background: only the result of that counts here.
            found.close()
            found = await self._lookup_flow.lookup(key, wants_body=False, revalidate=True)
        if not isinstance(found, Absent) and found.failure is not None:
            found.close()
            raise found.failure
        return found

    async def _refusal(self, key: ObjectKey, found: Reader, claimed: Metadata, uses: int) -> AdoptionRefusal | None:
        """Return why the claimed bytes cannot be stored. Returns None once the entry has a file for them."""
        current = found.metadata
        # As for a revalidation: an ETag alone may be the same for each version.
        if not (current.is_strong and current.has_second_validator and current.is_version(claimed)):
            return AdoptionRefusal.CHANGED
        entry = self._entries.hot(key)
        if entry is None or entry.metadata is not current:
            return AdoptionRefusal.NOT_STORED
        self._entries.note_uses(entry, uses)
        if current.size:
            await self._open_files.open(entry, wants_body=True)
        return None if found.is_stored or not current.size else AdoptionRefusal.NOT_STORED
