"""The operator's rules per path: what each says of freshness, storage and headers, the first that says it counts.

Also the rules that HLS and DASH need.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Final

from bucketfront.http.glob import Glob

REMEMBERED_PATHS: Final = 4096
"""Paths whose ruling is kept: with keys of 1024 bytes at most these are a few MiB (I19)."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What rules say of one path; None where they say nothing, so that the configured default counts.

    Times in seconds. `cache`: False for an object that passes through and is not kept. `headers`: fields of the
    answer to set, or to drop where the value is None; they count as one setting and are never merged.
    `cache_control`: what clients are sent in place of the object's own Cache-Control.
    """

    ttl: float | None = None
    negative_ttl: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    cache: bool | None = None
    headers: tuple[tuple[str, str | None], ...] | None = None
    cache_control: str | None = None


_NOTHING: Final = Ruling()
_SETTINGS: Final = tuple(field.name for field in fields(Ruling))


class Rules:
    """Rules in their order, each a glob and what it says, compiled once."""

    __slots__ = ("_rules", "_ruling")

    def __init__(self, rules: Sequence[tuple[str, Ruling]]) -> None:
        self._rules = tuple((Glob(pattern), ruling) for pattern, ruling in rules)
        # Asked on every request. Held by the instance: a cache on the method would keep replaced rules alive.
        self._ruling = lru_cache(REMEMBERED_PATHS)(partial(_fold, self._rules))

    def __repr__(self) -> str:
        return f"<Rules {[glob.pattern for glob, _ in self._rules]}>"

    def ruling(self, path: str) -> Ruling:
        """Of each setting, what the first rule says that matches `path` and has it."""
        return self._ruling(path) if self._rules else _NOTHING


def _fold(rules: tuple[tuple[Glob, Ruling], ...], path: str) -> Ruling:
    matching = [ruling for glob, ruling in rules if glob.matches(path)]
    if len(matching) < 2:
        return matching[0] if matching else _NOTHING
    # 0, False and () are something said; only None is nothing.
    said = {name: [value for ruling in matching if (value := getattr(ruling, name)) is not None] for name in _SETTINGS}
    return Ruling(**{name: values[0] for name, values in said.items() if values})


# A player asks for a live playlist again after half a segment (RFC 8216 section 6.3.4), and what it gets then must
# be new: no stale answer while the origin is asked. A 404 at the live edge is a segment that is not there *yet*.
#
# stale_if_error is left to the configuration. The name does not tell a live playlist from one on demand, and an
# on-demand one is right however old it is. A live one that stands still makes players wait, and they go on by
# themselves once it moves again; an error ends playback after a few retries, and the origin that fails to give the
# playlist does not give the new segments either. Who has players fail over to another origin wants the error soon,
# and says so in a rule, which comes before these.
_PLAYLIST: Final = Ruling(ttl=2.0, negative_ttl=1.0, stale_while_revalidate=0.0)
# Written once under their name, initialization segments too. A day and not longer, for who encodes again in place.
_SEGMENT: Final = Ruling(ttl=86400.0, negative_ttl=1.0)

# `.mp4`, `.m4v`, `.m4a`, `.aac` and `.vtt` are files of every kind as well: of those the defaults are the safer guess.
MEDIA_RULES: Final[tuple[tuple[str, Ruling], ...]] = (
    ("*.m3u8", _PLAYLIST),
    ("*.mpd", _PLAYLIST),
    ("*.m4s", _SEGMENT),
    ("*.m4f", _SEGMENT),
    ("*.ts", _SEGMENT),
    ("*.cmfv", _SEGMENT),
    ("*.cmfa", _SEGMENT),
    ("*.cmft", _SEGMENT),
)
"""For HLS (RFC 8216) and DASH (ISO/IEC 23009-1, with CMAF's names); they follow the operator's own rules."""
