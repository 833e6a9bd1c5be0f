"""From when on each node of a fleet must know a change. It does no I/O, and takes the records of one run.

A write or a purge that has its response holds on its node. For the others there are two bounds, both of which need no
estimate of how fast a machine is. A node that has acknowledged a later purge with `wait` has applied all before it. A
node that has not may serve what it has for `bus.ttl_when_lost`, from the time on at which the notice was on the bus.
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from history import Record

MARGIN_S = 0.5  # for what a node had asked S3 for when the object changed


@dataclass(frozen=True, slots=True)
class Announcement:
    """A change that a node has announced. It holds on `node` from `at` on, None if the node is not known.

    What the node announces after `since` comes behind it on the bus.
    """

    node: str | None
    since: float
    at: float
    change: Record


@dataclass(frozen=True, slots=True)
class Barrier:
    """What `node` had announced before `start` was on the bus at `end`, and the nodes `done` had applied it.

    A purge with `wait` shows that, and so does a metric of the node for the bus alone.
    """

    node: str
    start: float
    end: float
    done: frozenset[str]


def announced(record: Record, node: str | None) -> Announcement:
    """Return the announcement of a write that was successful."""
    return Announcement(node, record.end, record.end, record)


def known(
    node: str, announcements: Iterable[Announcement], barriers: Sequence[Barrier], nodes: Iterable[str], grace: float
) -> list[tuple[float, Record]]:
    """Return the changes that a node must know, each with the time from which on. `grace` is `bus.ttl_when_lost`.

    `barriers` are in the order of their ends.
    """
    others = tuple(nodes)
    return [(_known_at(node, found, barriers, others, grace), found.change) for found in announcements]


def _known_at(node: str, found: Announcement, barriers: Sequence[Barrier], nodes: Sequence[str], grace: float) -> float:
    if node == found.node:
        return found.at
    later = barriers[bisect.bisect_left(barriers, found.since, key=lambda barrier: barrier.end) :]
    senders = nodes if found.node is None else (found.node,)
    on_bus = max(
        next((b.end for b in later if b.node == sender and b.start >= found.since), math.inf) for sender in senders
    )
    applied = (
        barrier.end
        for barrier in later
        if node in barrier.done and barrier.start >= (found.since if barrier.node == found.node else on_bus)
    )
    return min(on_bus + grace + MARGIN_S, next(applied, math.inf))
