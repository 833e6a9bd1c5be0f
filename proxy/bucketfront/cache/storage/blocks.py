"""Block sets: which blocks of an object are present, as an int in which bit n stands for block n.

Blocks are aligned and `block_size` bytes long; the last one of an object may be shorter. An int is immutable, so a set
can be handed along and compared without a copy, and its operations run at the speed of memory.
"""

from collections.abc import Iterator

from bucketfront.http.ranges import Span

ALLOCATION_UNIT = 4096  # bytes: the file system rounds the space of a block up to this

_WORD_BYTES = 4096  # of a large set that is taken in words
_WORD_BITS = 8 * _WORD_BYTES


def block_count(size: int, block_size: int) -> int:
    """Return the number of blocks of an object of `size` bytes."""
    return -(-size // block_size)


def all_blocks(size: int, block_size: int) -> int:
    """Return the set of all blocks of an object of `size` bytes."""
    return (1 << block_count(size, block_size)) - 1


def are_all(blocks: int, size: int, block_size: int) -> bool:
    """Return whether a set has all blocks of an object of `size` bytes, and no others.

    Most sets that are not complete lack the last block. To count the others takes no copy of a large set.
    """
    count = block_count(size, block_size)
    return blocks.bit_length() == count and blocks.bit_count() == count


def covering(span: Span, block_size: int) -> range:
    """Return the blocks that hold the bytes of `span`. An empty span has none."""
    if span.start >= span.stop:
        return range(0)
    return range(span.start // block_size, -(-span.stop // block_size))


def whole_below(stop: int, size: int, block_size: int) -> int:
    """Return how many blocks of an object of `size` bytes end at `stop` or before it."""
    return block_count(size, block_size) if stop == size else stop // block_size


def span_of(blocks: range, size: int, block_size: int) -> Span:
    """Return the bytes of a run of blocks, up to the object's end."""
    return Span(min(blocks.start * block_size, size), min(blocks.stop * block_size, size))


def mask(blocks: range) -> int:
    """Return the set of these consecutive blocks."""
    return ((1 << len(blocks)) - 1) << blocks.start


def within(present: int, blocks: range) -> int:
    """Return those of `blocks` that are in the set, as a set in which bit 0 is the first of them.

    It copies the set once. A complement of a large set would take several times as long.
    """
    return (present >> blocks.start) & ((1 << len(blocks)) - 1)


def first_absent(present: int, start: int, stop: int) -> int:
    """Return the first block in [start, stop) that is not in the set, else `stop`."""
    absent = within(present, range(start, stop)) ^ ((1 << (stop - start)) - 1)
    return start + _lowest(absent) if absent else stop


def first_present(present: int, start: int, stop: int) -> int:
    """Return the first block in [start, stop) that is in the set, else `stop`."""
    found = within(present, range(start, stop))
    return start + _lowest(found) if found else stop


def missing(present: int, blocks: range) -> Iterator[range]:
    """Yield the runs of blocks within `blocks` that are not in the set, in order."""
    at = blocks.start
    while (start := first_absent(present, at, blocks.stop)) < blocks.stop:
        at = first_present(present, start, blocks.stop)
        yield range(start, at)


def present_spans(present: int, size: int, block_size: int) -> list[Span]:
    """Return the bytes of the blocks in the set, as runs in order."""
    everything = range(block_count(size, block_size))
    return [span_of(run, size, block_size) for run in missing(~present, everything)]


def first_runs(present: int, limit: int) -> tuple[tuple[int, int], ...]:
    """Return the first `limit` runs of blocks in the set, each from its first block up to the one behind its last.

    It takes the set in words, because each operation on a set of millions of blocks takes as long as all of them.
    """
    found: list[tuple[int, int]] = []
    start: int | None = None  # of the run that is not at its end yet
    octets = present.to_bytes(present.bit_length() // 8 + 1, "little")
    for at in range(0, len(octets), _WORD_BYTES):
        word = int.from_bytes(octets[at : at + _WORD_BYTES], "little")
        base, place = at * 8, 0
        while True:
            if start is None:
                place = first_present(word, place, _WORD_BITS)
                if place == _WORD_BITS:
                    break
                if len(found) == limit:
                    return tuple(found)
                start = base + place
            place = first_absent(word, place, _WORD_BITS)
            if place == _WORD_BITS:
                break
            found.append((start, base + place))
            start = None
    return tuple(found)


def members(blocks: int) -> Iterator[int]:
    """Yield the blocks in the set, in order."""
    while blocks:
        yield _lowest(blocks)
        blocks &= blocks - 1


def allocated(blocks: int, size: int, block_size: int) -> int:
    """Return the bytes that this set of blocks takes on the disk."""
    count = blocks.bit_count()
    if not count:
        return 0
    last = block_count(size, block_size) - 1
    if blocks >> last & 1:
        tail = size - last * block_size
        return (count - 1) * block_size + rounded(tail)
    return count * block_size


def byte_count(blocks: int, size: int, block_size: int) -> int:
    """Return the bytes of the object in this set of blocks."""
    count = blocks.bit_count() * block_size
    last = block_count(size, block_size) - 1
    return count - (last + 1) * block_size + size if blocks and blocks >> last & 1 else count


def rounded(count: int) -> int:
    """Return the bytes that the file system takes for so many bytes."""
    return -(-count // ALLOCATION_UNIT) * ALLOCATION_UNIT


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
