"""The settings of the files on the local disk."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from bucketfront.config.checked_text import Folder, TagHeader
from bucketfront.config.quantities import GIB, KIB, MIB, Duration, Percent, Share, Size, format_size
from bucketfront.config.section import Section

_MIN_BLOCK_BYTES, _MAX_BLOCK_BYTES = 16 * KIB, 16 * MIB
_MIN_BLOCKS = 4  # a smaller cache evicts what it is filling


MODE_NOTICES = {
    "observe": "cache.mode is observe: S3 serves each read, and nothing is cached",
    "shadow": "cache.mode is shadow: S3 serves each read, and the cache is only compared with it",
}


class CacheSettings(Section):
    """The files on the local disk, and the memory beside them.

    A cache folder belongs to one process. It survives restarts and `kill -9`. After each start, bucketfront compares
    every block with its checksum before it sends the first byte of it. If the disk fails or fills up, requests continue
    uncached.
    """

    dir: Folder = Path("cache")
    """The cache folder, relative to the working directory."""
    block_size: Size = 32 * KIB
    """The unit in which bytes are present or missing: a power of two, 16KiB to 16MiB. A read of a few bytes at a random
    place costs one block. Where clients read little of large files, 16KiB costs fewer bytes and a little more CPU: see
    [data-readers.md](data-readers.md). If it changes, the cache starts empty."""
    max_size: Size = Field(default=10 * GIB, examples=["100GiB"])
    """Bytes on disk at most, all files of the folder included. It must be at least 4 blocks."""
    min_free: Share = Percent(5)
    """How much of the disk stays free, in bytes or percent. The same share of its inodes stays free, if the file system
    has a fixed number of them."""
    idle_timeout: Annotated[Duration, Field(gt=0)] = 3600.0
    """How long an object stays in the cache after its last use. Time in which the proxy is stopped does not count."""
    eviction: Literal["lru", "s3-fifo"] = "lru"
    """Which object leaves if space is needed. In both cases an object is on probation until it is requested again, and
    objects on probation push each other out once they take a tenth of `cache.max_size`. So a crawl does not flush what
    is popular. Of the other objects, `lru` removes the one whose last use is longest ago. `s3-fifo` removes the oldest
    one that was not requested since its last turn; it forgets the turns at a restart. See
    [the comparison](eviction.md)."""
    memory: Size = 64 * MIB
    """Bytes of objects of up to 16 KiB that are kept in memory as well, the most recently used ones. 0 keeps none."""
    after_disconnect: Literal["finish", "stop", "auto"] = "auto"
    """What happens to a download when its last client leaves. `finish` fetches what that client requested, `stop` ends
    the download at once. `auto` ends the running parts with the block that they are in. If what the object lacks is at
    most an eighth of what is present, and at most `cache.read_ahead_max`, `auto` fetches it."""
    read_ahead_max: Size = 64 * MIB
    """Bytes that are fetched ahead of one reader at most. It is also at most a quarter of what that reader has read, or
    half of what a download in ranges side by side has requested. It is less for ranges without an end, which players
    drop at each seek. Two parts of `origin.part_size` are fetched ahead of a download in any case."""
    durability: Literal["process", "power"] = "process"
    """What the cache outlives: the end of the process, `kill -9` included, or a loss of power as well. `power` syncs
    data before the index claims it, and purges before their response. After a loss of power in `process` mode,
    bucketfront checks blocks and revalidates versions before it uses them."""

    tag_headers: tuple[TagHeader, ...] = (
        "x-amz-meta-cache-tag",
        "x-amz-meta-surrogate-key",
        "Cache-Tag",
        "Surrogate-Key",
    )
    """The headers of objects that name their tags, for `bucketfront purge --tag`. S3 stores `x-amz-meta-` headers; some
    S3-alikes store `Cache-Tag` and `Surrogate-Key` as well. A list has commas or spaces between the tags. If this
    changes, the next start reads the tags of all cached objects again, in the background."""
    mode: Literal["serve", "observe", "shadow"] = "serve"
    """Whether the cache serves clients. With `observe` and `shadow`, each of their reads goes to S3. `observe` stores
    nothing, and forecasts what `serve` would give. `shadow` runs the cache beside S3, and compares what it would have
    served with what S3 sends, which costs more requests to S3 than no cache. See [modes.md](modes.md)."""

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if not _MIN_BLOCK_BYTES <= size <= _MAX_BLOCK_BYTES or size & (size - 1):
            bounds = f"{format_size(_MIN_BLOCK_BYTES)} to {format_size(_MAX_BLOCK_BYTES)}"
            raise ValueError(f"must be a power of two from {bounds}")
        return size

    @field_validator("max_size")
    @classmethod
    def _has_enough_blocks(cls, size: int, info: ValidationInfo) -> int:
        block = info.data.get("block_size")
        if block is not None and size < _MIN_BLOCKS * block:
            least = format_size(_MIN_BLOCKS * block)
            raise ValueError(f"must be at least {_MIN_BLOCKS} times cache.block_size, that is {least}")
        return size

    @property
    def mode_notice(self) -> str | None:
        """Return what an operator must not forget about `mode`. Returns None if the cache serves."""
        return MODE_NOTICES.get(self.mode)

    def free_floor(self, disk: int) -> int:
        """Return the bytes that stay free on a disk of `disk` bytes."""
        return self.min_free.of(disk) if isinstance(self.min_free, Percent) else self.min_free
