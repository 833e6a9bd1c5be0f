"""How much may be fetched behind ranges with an end, on the chance that a client requests it next. Pure.

Readers of file formats find an index, for example a footer at the object's end, and then the places that it names. Some
of these are neighbours by chance, and look like a walk (see `walk`). What is fetched behind such a walk is seldom
requested. So the blocks that were fetched ahead are counted, and those of them that ranges requested later. A reader
that requests what was fetched ahead gets more. One that does not gets a little, which shows whether that changes.
"""

from dataclasses import dataclass

from bucketfront.cache.storage import blocks
from bucketfront.http.ranges import Span

UNUSED_SHARE = 8  # one block in so many that were requested may be ahead and unused; the blocks at both ends cost more
PROBE_SHARE = 32  # one in so many may be in any case


@dataclass(slots=True)
class AheadCredit:
    """The blocks of one object that ranges requested, and those that were fetched behind ranges."""

    block_size: int
    _requested: int = 0
    _requested_count: int = 0  # blocks
    _unused: int = 0  # fetched ahead, and not requested since
    _used_count: int = 0  # blocks that were fetched ahead, and requested later

    def note_request(self, span: Span) -> None:
        """Note that a client requested these bytes, and will read all of them."""
        run = blocks.covering(span, self.block_size)
        used = blocks.within(self._unused, run)
        self._used_count += used.bit_count()
        self._unused ^= used << run.start
        self._requested_count += len(run) - blocks.within(self._requested, run).bit_count()
        self._requested |= blocks.mask(run)

    def note_fetch(self, run: range) -> None:
        """Note that these blocks are being fetched. Those that no range has requested are fetched ahead."""
        ahead = blocks.within(self._requested, run) ^ ((1 << len(run)) - 1)
        self._unused |= ahead << run.start

    def left(self, span: Span, claimed: int) -> int:
        """Return how many bytes of `span` may be ahead and unused, with those that are by now.

        `claimed` blocks are present or being fetched. Others that were fetched ahead are lost, and no longer count.
        """
        self._unused &= claimed
        here = blocks.within(self._unused, blocks.covering(span, self.block_size))
        elsewhere = self._unused.bit_count() - here.bit_count()
        most = min(self._requested_count // UNUSED_SHARE, self._requested_count // PROBE_SHARE + self._used_count)
        return max(0, most - elsewhere) * self.block_size
