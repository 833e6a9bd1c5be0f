"""The operator's rules per path: what each says of freshness, storage and headers, the first that says it counts.

Also the rules that HLS and DASH need, and the globs that rules are matched with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Final

REMEMBERED_PATHS: Final = 4096
"""Paths whose ruling is kept: with keys of 1024 bytes at most these are a few MiB (I19)."""


class Glob:
    """A pattern for paths: `*` and `?` stop at a "/", `**` does not; `**/` may also stand for no folder.

    A leading "/" of pattern and path means nothing. A pattern without any other "/" matches the last segment
    in every folder, as in .gitignore (`*.m3u8` is `**/*.m3u8`); one with a "/" is anchored at the root
    (`live/*.ts`). Everything else stands for itself; case counts.

    Clients choose the paths, so this is no backtracking regex: all states of the pattern advance together, as
    the bits of one integer, in time linear in the path's length (I22).
    """

    __slots__ = ("_accept", "_any", "_ending", "_folders", "_literal", "_not_slash", "_one", "_stars", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        rooted = pattern.removeprefix("/")
        if "/" not in rooted and rooted == pattern:
            rooted = f"**/{rooted}"
        self._literal: dict[str, int] = {}  # per character, the states that it moves on
        self._one = 0  # `?`
        self._not_slash = 0  # `*`: stays on all but "/"
        self._any = 0  # `**` and `**/`: stay on everything
        self._folders = 0  # `**/`: moves on at a "/"
        self._ending = ""  # what every path of this pattern ends in
        state = 1
        for token in _tokens(rooted):
            match token:
                case "?":
                    self._one |= state
                case "*":
                    self._not_slash |= state
                case "**":
                    self._any |= state
                case "**/":
                    self._any |= state
                    self._folders |= state
                case _:
                    self._literal[token] = self._literal.get(token, 0) | state
            self._ending = self._ending + token if token not in _WILD else ""
            state <<= 1
        self._stars = (self._not_slash | self._any) & ~self._folders
        self._accept = state

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def matches(self, path: str) -> bool:
        """Whether the whole of `path` is of this pattern."""
        # Most rules name an extension, and most paths have another one: no need to walk these.
        if not path.endswith(self._ending):
            return False
        active = self._enter(1)
        for char in path.removeprefix("/"):
            moved = active & self._literal.get(char, 0)
            stayed = active & self._any
            if char == "/":
                moved |= active & self._folders
            else:
                moved |= active & self._one
                stayed |= active & self._not_slash
            active = self._enter(moved << 1) | stayed | ((stayed & self._stars) << 1)
            if not active:
                return False
        return bool(active & self._accept)

    def _enter(self, states: int) -> int:
        """`states`, and those reached from them without a character: what a star stands for may be empty.

        `**/` is skipped only on entry, not once it has taken part of a segment.
        """
        states |= (states & self._folders) << 1
        return states | ((states & self._stars) << 1)


def _tokens(pattern: str) -> list[str]:
    """Characters, `?`, `*`, `**` and `**/`. No two stars are adjacent, except that `**/` may precede one."""
    tokens: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char != "*":
            tokens.append(char)
            position += 1
            continue
        end = position
        while end < len(pattern) and pattern[end] == "*":
            end += 1
        if end - position == 1:
            tokens.append("*")
        elif pattern[end : end + 1] == "/" and (not tokens or tokens[-1] in {"/", "**/"}):
            end += 1
            if tokens[-1:] != ["**/"]:
                tokens.append("**/")
        else:
            tokens.append("**")
        position = end
    return tokens


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


_WILD = frozenset({"?", "*", "**", "**/"})
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
