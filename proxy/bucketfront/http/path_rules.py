"""Apply the operator's rules for freshness, storage and headers to a path, and define those for HLS and DASH.

For each setting, the first rule counts that matches the path and has the setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, Final

from bucketfront.http.glob import Glob

REMEMBERED_PATHS: Final = 4096
"""The number of paths whose ruling is cached. With keys of at most 1024 bytes the cache takes a few MiB."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The settings that rules give one path. If a setting is None, the configured default counts.

    Times are in seconds. `cache` is False for an object that passes through and is not stored. `headers` are response
    headers to set, or to remove if the value is None. They count as one setting, and are not merged with those of
    another rule. `cache_control` is sent to clients in place of the object's own Cache-Control.
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
    """Rules in their order, each a glob and its settings, compiled once."""

    __slots__ = ("_rules", "_ruling")

    def __init__(self, rules: Sequence[tuple[str, Ruling]]) -> None:
        self._rules = tuple((Glob(pattern), ruling) for pattern, ruling in rules)
        # Every request needs it. The instance owns this cache; one on the method would keep replaced rules alive.
        self._ruling = lru_cache(REMEMBERED_PATHS)(partial(_fold, self._rules))

    def __repr__(self) -> str:
        return f"<Rules {[glob.pattern for glob, _ in self._rules]}>"

    def ruling(self, path: str) -> Ruling:
        """Return the settings of a path."""
        return self._ruling(path) if self._rules else _NOTHING

    def patterns(self, path: str) -> Mapping[str, str]:
        """Return the pattern of the rule that decides each setting of a path, by the setting's name."""
        return {name: pattern for name, (pattern, _) in _decided(_matching(self._rules, path)).items()}


def _fold(rules: tuple[tuple[Glob, Ruling], ...], path: str) -> Ruling:
    matching = _matching(rules, path)
    if len(matching) < 2:
        return matching[0][1] if matching else _NOTHING
    return Ruling(**{name: value for name, (_, value) in _decided(matching).items()})


def _matching(rules: tuple[tuple[Glob, Ruling], ...], path: str) -> list[tuple[str, Ruling]]:
    """Return the rules that match a path, with their patterns."""
    return [(glob.pattern, ruling) for glob, ruling in rules if glob.matches(path)]


def _decided(matching: Sequence[tuple[str, Ruling]]) -> dict[str, tuple[str, Any]]:
    """Return the pattern and the value of the first rule that has each setting, by the setting's name."""
    found: dict[str, tuple[str, Any]] = {}
    for pattern, ruling in matching:
        for name in _SETTINGS:
            # 0, False and () are settings; only None is a missing one.
            if name not in found and (value := getattr(ruling, name)) is not None:
                found[name] = pattern, value
    return found


# A player requests a live playlist again after half a segment (RFC 8216 section 6.3.4). It needs a new one then, so a
# stale playlist must not be served during a revalidation. A 404 at the live edge is a segment that is not written yet.
#
# stale_if_error is left to the configuration, because the name does not show whether a playlist is live or on demand.
# An on-demand playlist is right at any age. If a live playlist stops changing, players wait, and continue once it
# changes. An error ends playback after a few retries, and a failing origin has no new segments either.
# An operator whose players fail over to another origin needs the error soon, and can add a rule, which precedes these.
_PLAYLIST: Final = Ruling(ttl=2.0, negative_ttl=1.0, stale_while_revalidate=0.0)
# Segments are written once under their name, initialization segments too. A day limits the harm of a re-encoding.
_SEGMENT: Final = Ruling(ttl=86400.0, negative_ttl=1.0)

# `.mp4`, `.m4v`, `.m4a`, `.aac` and `.vtt` are not only segments, so the defaults are safer for them.
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
"""The rules for HLS (RFC 8216) and DASH (ISO/IEC 23009-1, CMAF). They follow the operator's own rules."""
