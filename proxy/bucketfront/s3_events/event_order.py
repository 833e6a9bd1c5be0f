"""The newest event of each key, so that an older one does no harm. No I/O here.

The claim for a key is: no request gets a version that is older than this event. So another event that is not later
needs no further invalidation. The memory is bounded. What it forgets costs a needless revalidation.
"""

from collections import OrderedDict

from bucketfront.keys import ObjectKey
from bucketfront.s3_events.event import EventKind, S3Event, is_later

MAX_KEYS = 20_000  # at some 300 bytes each; a retry or a delay of SQS takes seconds
# After the others, the entry of the key may still be of an older version.
_OF_CURRENT = (EventKind.WRITTEN, EventKind.DELETED)


class EventOrder:
    """Remembers sequencers by key."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._limit = limit
        self._newest: OrderedDict[ObjectKey, str] = OrderedDict()  # the key that was noted last is at the end

    def __len__(self) -> int:
        return len(self._newest)

    def is_outdated(self, event: S3Event) -> bool:
        """Return whether a later event of the key was applied, or this one."""
        known = self._newest.get(ObjectKey(event.bucket, event.key))
        if known is None or event.sequencer is None or event.kind not in _OF_CURRENT:
            return False
        return event.sequencer == known or is_later(known, event.sequencer) is True

    def is_before_newest(self, event: S3Event) -> bool:
        """Return whether a later event of the key was noted. The same one is not later."""
        known = self._newest.get(ObjectKey(event.bucket, event.key))
        return known != event.sequencer and self.is_outdated(event)

    def note(self, event: S3Event) -> None:
        """Note an event that was applied."""
        if event.sequencer is None or event.kind not in _OF_CURRENT or event.is_folder:
            return
        key = ObjectKey(event.bucket, event.key)
        known = self._newest.pop(key, None)
        is_older = known is not None and is_later(known, event.sequencer) is True
        self._newest[key] = known if is_older and known is not None else event.sequencer
        if len(self._newest) > self._limit:
            self._newest.popitem(last=False)
