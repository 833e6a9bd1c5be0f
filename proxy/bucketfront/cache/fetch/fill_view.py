"""What an operator sees of a fill: frozen values, taken at one moment."""

from dataclasses import dataclass

from bucketfront.keys import ObjectKey

MAX_READERS = 64  # of one fill that are listed; `reader_count` has all of them
MAX_PARTS = 64  # more than the part fetches of one object at once
MAX_RUNS = 256  # of blocks; an object with more gaps shows its first ones


@dataclass(frozen=True, slots=True)
class PartView:
    """A part fetch of the bytes [start, stop). Those before `mark` are in the file. `seconds` is how long it runs."""

    start: int
    mark: int
    stop: int
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ReaderView:
    """A reader of the bytes [start, stop). It is at `offset`, and may wait for the byte there.

    `is_background` is true for a fill that goes on without a client.
    """

    start: int
    offset: int
    stop: int
    is_waiting: bool
    is_background: bool


@dataclass(frozen=True, slots=True)
class FillView:
    """A fill at one moment. Sizes are in bytes, and `rate` is in bytes per second.

    `runs` are the first MAX_RUNS runs of present blocks, each from its first block up to the one behind its last.
    `present` counts the bytes in the file, those of running part fetches included. `seconds` is how long part fetches
    have run without a pause.
    """

    key: ObjectKey
    etag: str
    size: int
    present: int
    block_size: int
    runs: tuple[tuple[int, int], ...]
    rate: float
    seconds: float
    parts: tuple[PartView, ...]
    part_count: int
    readers: tuple[ReaderView, ...]
    reader_count: int
