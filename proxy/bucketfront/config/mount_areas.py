"""Which mount a key belongs to: the name under which requests and bytes of the origin are counted."""

from collections.abc import Iterable

from bucketfront.config.mount_settings import MountSettings
from bucketfront.keys import ObjectKey

NO_MOUNT = ""  # of requests that concern no key of a mount


class MountAreas:
    """The mounts by their buckets and prefixes."""

    def __init__(self, mounts: Iterable[MountSettings]) -> None:
        self.adopt(mounts)

    def adopt(self, mounts: Iterable[MountSettings]) -> None:
        """Count by these mounts from now on."""
        # Of equal prefixes, the first mount of the configuration counts: sorting keeps their order.
        self._mounts = sorted(mounts, key=lambda mount: -len(mount.prefix))

    def mount_of(self, key: ObjectKey) -> str:
        """Return the path of the mount with the longest prefix of the key, NO_MOUNT if no mount has it."""
        for mount in self._mounts:
            if mount.bucket == key.bucket and key.key.startswith(mount.prefix):
                return mount.path
        return NO_MOUNT
