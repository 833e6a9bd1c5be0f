"""Which blocks of an object are present, as arithmetic on integers: bit n set means block n is present.

A block is `block_size` bytes, aligned; the last one of an object may be shorter. An int is immutable, so a set
can be handed along and compared without copying, and its operations run at memory speed.
"""

from collections.abc import Iterator

from bucketfront.http.ranges import Span

# The file system's unit: a block of n bytes takes n rounded up to this on the disk.
ALLOCATION_UNIT = 4096


def block_count(size: int, block_size: int) -> int:
    return -(-size // block_size)


def all_blocks(size: int, block_size: int) -> int:
    return (1 << block_count(size, block_size)) - 1


def covering(span: Span, block_size: int) -> range:
    """The blocks that hold the bytes of `span`; empty for an empty span."""
    if span.start >= span.stop:
        return range(0)
    return range(span.start // block_size, -(-span.stop // block_size))


def span_of(blocks: range, size: int, block_size: int) -> Span:
    """The bytes of a run of blocks, cut at the object's end."""
    return Span(min(blocks.start * block_size, size), min(blocks.stop * block_size, size))


def mask(blocks: range) -> int:
    """The set of these consecutive blocks."""
    return ((1 << len(blocks)) - 1) << blocks.start


def first_absent(present: int, start: int, stop: int) -> int:
    """The first block in [start, stop) that is not in the set, or `stop`."""
    absent = ~(present >> start) & ((1 << (stop - start)) - 1)
    return start + _lowest(absent) if absent else stop


def first_present(present: int, start: int, stop: int) -> int:
    """The first block in [start, stop) that is in the set, or `stop`."""
    return first_absent(~present, start, stop)


def missing(present: int, blocks: range) -> Iterator[range]:
    """The runs of blocks within `blocks` that are not in the set, in order."""
    at = blocks.start
    while (start := first_absent(present, at, blocks.stop)) < blocks.stop:
        at = first_present(present, start, blocks.stop)
        yield range(start, at)


def present_spans(present: int, size: int, block_size: int) -> list[Span]:
    """The bytes of the blocks in the set, as runs in order."""
    everything = range(block_count(size, block_size))
    return [span_of(run, size, block_size) for run in missing(~present, everything)]


def members(blocks: int) -> Iterator[int]:
    """The blocks in the set, in order."""
    while blocks:
        yield _lowest(blocks)
        blocks &= blocks - 1


def allocated(blocks: int, size: int, block_size: int) -> int:
    """Bytes that this set of blocks takes on the disk."""
    count = blocks.bit_count()
    if not count:
        return 0
    last = block_count(size, block_size) - 1
    if blocks >> last & 1:
        tail = size - last * block_size
        return (count - 1) * block_size + -(-tail // ALLOCATION_UNIT) * ALLOCATION_UNIT
    return count * block_size


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
