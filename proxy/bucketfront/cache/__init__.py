"""The disk cache. Other packages use what this module exports, and nothing else of it.

`open_cache` runs a cache in a folder. `Cache.lookup` takes a key and returns a `Reader`: metadata, an open descriptor,
and how far its bytes are readable. `Cache.lease` permits a response without a lookup. The cache itself fetches through
an `Origin`.
"""

from bucketfront.cache.adoption import AdoptionRefusal
from bucketfront.cache.assembly import CacheAssembly, CacheOptions, open_cache
from bucketfront.cache.cache import NULL_VERSION, Cache
from bucketfront.cache.clock import CacheClock, boottime
from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.decision import Decision
from bucketfront.cache.entries.freshness_bound import UNBOUNDED, FreshnessBound
from bucketfront.cache.entries.id_set import IdSet
from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.entries.negative_cache import Absence, Refusal
from bucketfront.cache.entries.removals import AGE_BOUNDS_S, Removal, RemovalFigures, RemovalReason, StorageRefusal
from bucketfront.cache.fetch.fill_view import FillView, PartView, ReaderView
from bucketfront.cache.fetch.traffic import Waste
from bucketfront.cache.handover import hand_over, take_back
from bucketfront.cache.held import Held, Present
from bucketfront.cache.lookup_flow import Absent, Shown
from bucketfront.cache.mode import CacheMode
from bucketfront.cache.observed import Observed
from bucketfront.cache.origin import NotModified, Origin, OriginResponse
from bucketfront.cache.reader import Reader
from bucketfront.cache.shadow import Difference, Shadow, Verdict
from bucketfront.cache.snapshot import Snapshot
from bucketfront.cache.statistics import Statistics
from bucketfront.cache.storage import page_cache
from bucketfront.cache.storage.boot import boot_id
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.folder_inspection import FolderFacts, inspect
from bucketfront.cache.storage.storage import Region
from bucketfront.cache.upkeep.announcements import Announcer, Cause, Invalidation
from bucketfront.cache.upkeep.purge import Purged, PurgeMode
from bucketfront.cache.upkeep.purge_selection import KeyRange, PathGlob, PurgeSelection
from bucketfront.cache.upkeep.spared_version import DeletedVersion, SparedVersion, WrittenVersion
from bucketfront.cache.upload import Upload
from bucketfront.cache.views import BlockView, EntryView, KeyView

__all__ = [
    "AGE_BOUNDS_S",
    "NULL_VERSION",
    "UNBOUNDED",
    "Absence",
    "Absent",
    "AdoptionRefusal",
    "Announcer",
    "BlockView",
    "Budget",
    "Cache",
    "CacheAssembly",
    "CacheClock",
    "CacheMode",
    "CacheOptions",
    "Cause",
    "Decision",
    "DeletedVersion",
    "Difference",
    "EntryView",
    "FillView",
    "Folder",
    "FolderFacts",
    "FreshnessBound",
    "Held",
    "IdSet",
    "Invalidation",
    "KeyRange",
    "KeyView",
    "Lease",
    "NotModified",
    "Observed",
    "Origin",
    "OriginResponse",
    "PartView",
    "PathGlob",
    "Present",
    "PurgeMode",
    "PurgeSelection",
    "Purged",
    "Reader",
    "ReaderView",
    "Refusal",
    "Region",
    "Removal",
    "RemovalFigures",
    "RemovalReason",
    "Shadow",
    "Shown",
    "Snapshot",
    "SparedVersion",
    "Statistics",
    "StorageRefusal",
    "Upload",
    "Verdict",
    "Waste",
    "WrittenVersion",
    "boot_id",
    "boottime",
    "hand_over",
    "inspect",
    "open_cache",
    "page_cache",
    "take_back",
]
