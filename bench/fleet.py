"""Replay traces over simulated fleets, and write the tables of docs/fleet.md: `make fleet`.

A front's own hashing (`rings.py`) chooses the node, and each node is the cache's own `EntryTable` with its default
policy, as in `eviction.py`. Files and the network are left out.
"""

import argparse
import itertools
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from eviction import Replay
from rings import HAProxy, Maglev, Nginx, Ring, xxhash64
from traces import Request, Trace, traces

from bucketfront.cache.entries.lru_with_probation import LruWithProbation

PAGE = Path(__file__).parent.parent / "docs" / "fleet.md"
TRACES = ("zipf", "HLS live", "HLS VOD")
COUNTS = (1, 3, 8, 16, 64)
LENGTH = 8_000
CACHE_PERCENT = 30  # of the bytes of all objects, that all nodes have together
EVENT_NODES = (3, 8, 16)
IN_FLIGHT_EACH = (1, 4, 16)  # running requests for each node
FACTORS = (125, 200, 300)  # percent of a node's share of the running requests
COPIES = (1, 2, 3, 4)

Choice = Callable[[Request, Sequence[int]], int]


def names(count: int) -> list[str]:
    return [f"node-{number}" for number in range(count)]


def nginx(count: int) -> Ring:
    return Nginx([f"node-{number}:8080" for number in range(count)])


def haproxy(count: int) -> Ring:
    return HAProxy(range(1, count + 1))


def envoy(count: int) -> Ring | None:
    hashed = xxhash64()
    return None if hashed is None else Maglev(names(count), hashed)


FRONTS: dict[str, Callable[[int], Ring | None]] = {"HAProxy": haproxy, "nginx": nginx, "Envoy": envoy}


def key_of(name: int, copy: int = 0) -> bytes:
    """Return the path of an object, and its further keys if it is hot."""
    return f"/{name % 97}/{name}.bin{f'?{copy}' if copy else ''}".encode()


@dataclass(slots=True)
class Totals:
    """What a fleet did."""

    requests: int = 0
    hits: int = 0
    fetched: Counter[int] = field(default_factory=Counter)  # by object
    served: Counter[int] = field(default_factory=Counter)  # requests by node
    sent: Counter[int] = field(default_factory=Counter)  # bytes by node

    @property
    def ratio(self) -> float:
        return self.hits / self.requests

    @property
    def misses(self) -> int:
        return self.requests - self.hits

    def imbalance(self, counts: Counter[int], nodes: int) -> float:
        """Return what the busiest node has, as a multiple of the mean."""
        return max(counts.values()) * nodes / sum(counts.values())


class Nodes:
    """The caches of a fleet. A context manager."""

    def __init__(self, count: int, total: int) -> None:
        self._stack = ExitStack()
        self._replays = []
        for _ in range(count):
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            made = Replay(Path(folder), total // count, LruWithProbation)
            self._stack.callback(made.close)
            self._replays.append(made)
        self.totals = Totals()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def request(self, request: Request, node: int) -> None:
        totals = self.totals
        totals.requests += 1
        totals.served[node] += 1
        totals.sent[node] += request.size
        if self._replays[node].request(request):
            totals.hits += 1
        else:
            totals.fetched[request.object] += 1


class Choices:
    """The order of nodes for each object, which a ring computes once."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._known: dict[bytes, tuple[Iterator[int], list[int]]] = {}

    def first(self, key: bytes, is_usable: Callable[[int], bool] = lambda _: True) -> int:
        """Return the first node of the key that is usable, or its first one if there is none."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._ring.order(key), []
        rest, order = found
        for at in itertools.count():
            if at == len(order):
                if (node := next(rest, None)) is None:
                    return order[0]
                order.append(node)
            if is_usable(order[at]):
                return order[at]
        raise AssertionError


def replayed(trace: Trace, count: int, ring: Ring, total: int) -> Totals:
    """Replay the trace over a fleet that has `total` bytes of cache."""
    choices = Choices(ring)
    with Nodes(count, total) as nodes:
        for request in trace.requests:
            nodes.request(request, choices.first(key_of(request.object)))
        return nodes.totals


def sizes(trace: Trace) -> list[str]:
    """Return a table: fleets of each size, beside one cache with the bytes of all nodes."""
    total = trace.footprint * CACHE_PERCENT // 100
    lines = [
        "| nodes | hit ratio | requests to S3 | busiest node: requests | bytes | keys |",
        "|---|---|---|---|---|---|",
    ]
    for count in COUNTS:
        ring = haproxy(count)
        found = replayed(trace, count, ring, total)
        keys = Counter(next(ring.order(key_of(name))) for name in dict(trace.requests))
        shares = (f"{found.imbalance(counts, count):.2f}" for counts in (found.served, found.sent, keys))
        lines.append(f"| {count} | {100 * found.ratio:.1f} % | {found.misses:,} | {' | '.join(shares)} |")
    return lines


def moves(trace: Trace) -> list[str]:
    """Return a table: the share of keys that move when a node joins N others, or leaves them again."""
    paths = [key_of(name) for name in dict(trace.requests)]
    lines = ["| front | N | keys that move | times 1 / (N + 1) | most keys of a node |", "|---|---|---|---|---|"]
    for (front, make), count in itertools.product(FRONTS.items(), (3, 8, 16, 64)):
        smaller, larger = make(count), make(count + 1)
        if smaller is None or larger is None:
            lines.append(f"| {front} | {count} | not run | not run | not run |")
            continue
        before = [next(smaller.order(path)) for path in paths]
        after = [next(larger.order(path)) for path in paths]
        moved = sum(old != new for old, new in zip(before, after, strict=True)) / len(paths)
        most = max(Counter(before).values()) * count / len(paths)
        lines.append(f"| {front} | {count} | {100 * moved:.1f} % | {moved * (count + 1):.2f} | {most:.2f} |")
    return lines


def loss(trace: Trace) -> list[str]:
    """Return a table: a node is lost after a half of the trace, and returns with its cache after three quarters."""
    total = trace.footprint * CACHE_PERCENT // 100
    quarter = len(trace.requests) // 4
    lines = [
        "| nodes | hit ratio before | after the loss | after the return | without a loss |",
        "|---|---|---|---|---|",
    ]
    for count in EVENT_NODES:
        choices = Choices(haproxy(count))
        with Nodes(count, total) as nodes:
            ratios = []
            for part in range(4):
                nodes.totals = Totals()
                for request in trace.requests[part * quarter : (part + 1) * quarter]:
                    key = key_of(request.object)
                    node = choices.first(key, (lambda node: node != 0) if part == 2 else (lambda _: True))
                    nodes.request(request, node)
                ratios.append(nodes.totals.ratio)
        whole = Choices(haproxy(count))
        with Nodes(count, total) as nodes:
            for request in trace.requests[: 2 * quarter]:
                nodes.request(request, whole.first(key_of(request.object)))
            nodes.totals = Totals()
            for request in trace.requests[2 * quarter : 3 * quarter]:
                nodes.request(request, whole.first(key_of(request.object)))
            without = nodes.totals.ratio
        cells = (f"{100 * ratio:.1f} %" for ratio in (*ratios[1:], without))
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


def slots_of(node: int, slots: int, count: int) -> int:
    """Return how many requests a node may have of those of the fleet. HAProxy divides them without a rest."""
    return max(1, slots * (node + 1) // count - slots * node // count)


def _bounded(trace: Trace, count: int, in_flight: int, factor: int | None) -> tuple[Totals, int, int]:
    """Return the totals, the reads that the bound led elsewhere, and the most running requests of a node."""
    choices = Choices(haproxy(count))
    running: deque[int] = deque()
    busy: Counter[int] = Counter()
    elsewhere, most = 0, 0
    with Nodes(count, trace.footprint * CACHE_PERCENT // 100) as nodes:
        for request in trace.requests:
            if len(running) == in_flight:
                busy[running.popleft()] -= 1
            key = key_of(request.object)
            home = node = choices.first(key)
            if factor is not None:
                slots = -(-(len(running) + 1) * factor // 100)
                has_room = [busy[number] < slots_of(number, slots, count) for number in range(count)]
                node = choices.first(key, has_room.__getitem__)
            elsewhere += node != home
            running.append(node)
            busy[node] += 1
            most = max(most, busy[node])
            nodes.request(request, node)
        return nodes.totals, elsewhere, most


def bounded(trace: Trace, count: int) -> list[str]:
    """Return a table: what a bound on running requests costs, and how even it makes the nodes."""
    lines = [
        "| running requests | bound | requests to S3 | reads led elsewhere | most running requests of a node |",
        "|---|---|---|---|---|",
    ]
    for each, factor in itertools.product(IN_FLIGHT_EACH, (None, *FACTORS)):
        found, elsewhere, most = _bounded(trace, count, each * count, factor)
        bound = "none" if factor is None else f"{factor} %"
        share = f"{100 * elsewhere / found.requests:.1f} %"
        lines.append(f"| {each * count} | {bound} | {found.misses:,} | {share} | {most / each:.2f} |")
    return lines


def copies(trace: Trace, count: int) -> list[str]:
    """Return a table: the ten hottest objects have several keys."""
    total = trace.footprint * CACHE_PERCENT // 100
    hot = {name for name, _ in Counter(request.object for request in trace.requests).most_common(10)}
    lines = [
        "| keys of a hot object | requests to S3 | busiest node: requests | bytes |",
        "|---|---|---|---|",
    ]
    for number in COPIES:
        chance = random.Random(1)
        choices = Choices(haproxy(count))
        with Nodes(count, total) as nodes:
            for request in trace.requests:
                copy = chance.randrange(number) if request.object in hot else 0
                nodes.request(request, choices.first(key_of(request.object, copy)))
            found = nodes.totals
        shares = (f"{found.imbalance(counts, count):.2f}" for counts in (found.served, found.sent))
        lines.append(f"| {number} | {found.misses:,} | {' | '.join(shares)} |")
    return lines


def sections(every: Iterable[Trace]) -> Iterator[str]:
    by_name = {trace.name: trace for trace in every}
    for name in TRACES:
        trace = by_name[name]
        yield _section(f"{name}: fleets of each size", sizes(trace))
    yield _section("Keys that move", moves(by_name["zipf"]))
    yield _section("zipf: the loss of a node, and its return with its cache", loss(by_name["zipf"]))
    yield _section("zipf: eight nodes with bounded load", bounded(by_name["zipf"], 8))
    yield _section("zipf: eight nodes, and several keys for the ten hottest objects", copies(by_name["zipf"], 8))


def _section(heading: str, lines: list[str]) -> str:
    print("\n".join(("", heading, *lines)), flush=True)
    return "\n".join((f"### {heading}", "", *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay traces over fleets, and write the tables of docs/fleet.md.")
    parser.add_argument("--length", type=int, default=LENGTH, help="requests of one trace")
    parser.add_argument("--print", action="store_true", dest="prints", help="print the tables, and write nothing")
    options = parser.parse_args()
    began = time.process_time()
    text = "\n\n".join(sections(traces(options.length)))
    if not options.prints:
        begin, end = "<!-- figures: make fleet -->\n", "<!-- end of figures -->"
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(before + begin + "\n" + text + "\n\n" + end + rest.split(end)[1])
    print(f"{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
