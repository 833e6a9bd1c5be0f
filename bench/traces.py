"""Seeded traces of requests for whole objects, as the sites of each kind send them."""

import bisect
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bucketfront.cache.entries.entry import ENTRY_BYTES

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 32 * KIB  # the default `cache.block_size`
DISK_PAGE = 4 * KIB


class Request(NamedTuple):
    """One request. `size` is what the object takes on the disk."""

    object: int
    size: int


@dataclass(frozen=True, slots=True)
class Trace:
    name: str
    what: str
    requests: tuple[Request, ...]

    @property
    def footprint(self) -> int:
        """Return the bytes of all objects that are requested at least once."""
        return sum(dict(self.requests).values())


def on_disk(count: int) -> int:
    """Return what an object of `count` bytes takes on the disk."""
    return ENTRY_BYTES + -(-count // DISK_PAGE) * DISK_PAGE


class Catalogue:
    """Objects by popularity, which follows Zipf's law: the n-th is requested in proportion to 1 / n**skew."""

    def __init__(self, chance: random.Random, count: int, skew: float, first: int = 0) -> None:
        self._chance = chance
        self._totals = list(itertools.accumulate(rank**-skew for rank in range(1, count + 1)))
        self._names = chance.sample(range(first, first + count), count)
        sizes = (int(min(max(chance.lognormvariate(11, 1.2), 2 * KIB), 4 * MIB)) for _ in range(count))
        self._sizes = {name: on_disk(size) for name, size in zip(self._names, sizes, strict=True)}

    def pick(self) -> Request:
        place = bisect.bisect(self._totals, self._chance.random() * self._totals[-1])
        return self.request(self._names[min(place, len(self._names) - 1)])

    def request(self, name: int) -> Request:
        return Request(name, self._sizes[name])

    def crawl(self) -> Iterator[Request]:
        """Yield each object once."""
        return map(self.request, sorted(self._names))


def zipf(chance: random.Random, length: int) -> Iterator[Request]:
    catalogue = Catalogue(chance, length // 4, 0.9)
    for _ in range(length):
        yield catalogue.pick()


def zipf_and_crawls(chance: random.Random, length: int) -> Iterator[Request]:
    """Yield requests of which two fifths are those of crawlers, which read an archive that no other client requests."""
    catalogue = Catalogue(chance, length // 8, 0.9)
    archive = Catalogue(chance, length // 5, 0.9, first=length)
    for _ in range(2):
        for request in archive.crawl():
            yield request
            if chance.random() < 0.5:  # the others go on meanwhile
                yield catalogue.pick()
        for _ in range(length // 5):
            yield catalogue.pick()


SEGMENT_BYTES = (400 * KIB, 1500 * KIB, 3 * MIB)  # by rendition


def hls_live(chance: random.Random, length: int) -> Iterator[Request]:
    """Yield segments of live channels: most viewers are at the edge, others watch from a while ago."""
    channels = 12
    popularity = Catalogue(chance, channels, 0.8)
    viewers = [
        (popularity.pick().object, chance.randrange(3), 0 if chance.random() < 0.8 else chance.randrange(2, 300))
        for _ in range(120)
    ]
    for now in range(length // len(viewers)):
        for channel, rendition, behind in chance.sample(viewers, len(viewers)):
            number = ((now + 300 - behind) * channels + channel) * 3 + rendition
            yield Request(number, on_disk(SEGMENT_BYTES[rendition] + number * 7919 % (64 * KIB)))


def hls_vod(chance: random.Random, length: int) -> Iterator[Request]:
    """Yield segments of titles. Each viewer plays from the first segment on, and most stop before the last one."""
    titles = Catalogue(chance, 100, 0.8)
    playing: list[Iterator[Request]] = []
    for _ in range(length):
        while True:
            if len(playing) < 60:
                playing.append(_play(chance, titles.pick().object))
            viewer = chance.randrange(len(playing))
            if (request := next(playing[viewer], None)) is not None:
                break
            playing.pop(viewer)
        yield request


def _play(chance: random.Random, title: int) -> Iterator[Request]:
    rendition = chance.randrange(3)
    for segment in range(min(600, int(chance.expovariate(1 / 120)) + 1)):
        number = (title * 600 + segment) * 3 + rendition
        yield Request(number, on_disk(SEGMENT_BYTES[rendition] + number * 7919 % (64 * KIB)))


def loop(chance: random.Random, length: int) -> Iterator[Request]:
    """Yield the same objects in the same order, again and again, as a batch job or a playout does."""
    catalogue = Catalogue(chance, length // 20, 0.9)
    yield from itertools.islice(itertools.cycle(list(catalogue.crawl())), length)


KINDS: dict[str, tuple[str, Callable[[random.Random, int], Iterator[Request]]]] = {
    "zipf": ("popularity by Zipf's law, with an exponent of 0.9", zipf),
    "zipf and crawls": ("the same, with two crawls of an archive that no other client requests", zipf_and_crawls),
    "HLS live": ("12 channels in 3 renditions; a fifth of 120 viewers watch from up to 300 segments ago", hls_live),
    "HLS VOD": ("100 titles in 3 renditions, 60 viewers at once, who watch 120 segments on average", hls_vod),
    "loop": ("all objects in the same order, 20 times", loop),
}


def traces(length: int, seed: int = 1) -> list[Trace]:
    """Return one trace of each kind, with about `length` requests."""
    return [
        Trace(name, what, tuple(make(random.Random(f"{seed} {name}"), length))) for name, (what, make) in KINDS.items()
    ]
