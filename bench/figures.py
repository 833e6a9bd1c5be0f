"""A measured number and its goal: a bound of its own, or a multiple of the best of the other proxies."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

FAILED = float("inf")
OURS = "bucketfront"


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal.

    `at` is the highest permitted value or, if higher is better, the lowest. `of_peers` is a multiple of the best of the
    peers named, or of all.
    """

    at: float
    of_peers: bool = False
    peers: tuple[str, ...] = ()

    def text(self, better: str) -> str:
        word = "at least" if better == "higher" else "at most"
        whom = " and ".join(self.peers) or "the best"
        return f"{word} {self.at:g} of {whom}" if self.of_peers else f"{word} {self.at:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number of one proxy.

    `ratio` compares it with the best peer. `is_met` is None without a goal, or without a peer.
    """

    scenario: str
    what: str
    unit: str
    proxy: str
    value: float
    better: Literal["higher", "lower"] = "lower"
    goal: Goal | None = None
    ratio: float | None = None
    is_met: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def judged(figures: Iterable[Figure]) -> list[Figure]:
    """Add ratios and verdicts to bucketfront's figures."""
    known = list(figures)
    return [_judged(figure, known) if figure.proxy == OURS else figure for figure in known]


def _judged(figure: Figure, known: list[Figure]) -> Figure:
    wanted = figure.goal.peers if figure.goal is not None else ()
    peers = [
        other.value
        for other in known
        if (other.scenario, other.what) == (figure.scenario, figure.what)
        and other.proxy != OURS
        and (not wanted or other.proxy in wanted)
        and math.isfinite(other.value)
        and other.value > 0
    ]
    ratio = None
    if peers:
        ratio = figure.value / (max(peers) if figure.better == "higher" else min(peers))
    if figure.goal is None:
        return replace(figure, ratio=ratio)
    compared = ratio if figure.goal.of_peers else figure.value
    if compared is None:
        return replace(figure, ratio=ratio)
    is_met = compared >= figure.goal.at if figure.better == "higher" else compared <= figure.goal.at
    return replace(figure, ratio=ratio, is_met=is_met)


def median(values: list[float]) -> float:
    return statistics.median(values) if values else FAILED
