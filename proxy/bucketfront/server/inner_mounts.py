"""Which mounts decide on a key, by whatever path the key arrives (docs/invariants.md#one-door-to-a-key)."""

from collections import defaultdict
from collections.abc import Iterable

from bucketfront.config.mount_settings import MountSettings, UploadSettings, places_of_uploads


class InnerMounts:
    """All mounts, by their buckets and prefixes.

    The mount of the request's path always decides. If another mount of its bucket has a longer prefix of the key, that
    one decides as well. So its settings hold for requests by the upload route or a mount above it too.
    """

    def __init__(self, mounts: Iterable[MountSettings], uploads: UploadSettings | None = None) -> None:
        mounts = tuple(mounts)
        self._places_of_uploads = places_of_uploads(mounts, uploads)
        buckets = defaultdict[str, list[tuple[bytes, MountSettings]]](list)
        for mount in mounts:
            buckets[mount.bucket].append((mount.prefix.encode(), mount))
        # Of equal prefixes, the first mount of the configuration decides: sorting keeps their order.
        self._by_bucket = {bucket: sorted(pairs, key=lambda pair: -len(pair[0])) for bucket, pairs in buckets.items()}
        self.has_any = any(self._has_any(pairs) for pairs in self._by_bucket.values())

    @staticmethod
    def _has_any(pairs: list[tuple[bytes, MountSettings]]) -> bool:
        return any(len(inner) > len(outer) and inner.startswith(outer) for inner, _ in pairs for outer, _ in pairs)

    def of(self, mount: MountSettings, key: bytes) -> MountSettings | None:
        """Return the mount with the longest prefix of `key`, or None if no prefix is longer than that of `mount`."""
        length = len(mount.prefix.encode())
        for prefix, other in self._by_bucket.get(mount.bucket, ()):
            if len(prefix) <= length:
                return None
            if key.startswith(prefix):
                return other
        return None

    def inline_types(self, mount: MountSettings, key: bytes) -> frozenset[str] | None:
        """Return the active types of `key` that browsers may show, None for all."""
        mount = self.of(mount, key) or mount
        if mount.inline_types is not None:
            return frozenset(mount.inline_types)
        return frozenset() if mount.place in self._places_of_uploads else None

    def below(self, mount: MountSettings) -> tuple[MountSettings, ...]:
        """Return the mounts that may decide on some key of `mount` as well."""
        outer = mount.prefix.encode()
        return tuple(
            other
            for prefix, other in self._by_bucket.get(mount.bucket, ())
            if len(prefix) > len(outer) and prefix.startswith(outer)
        )
