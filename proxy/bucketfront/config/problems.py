"""Collect the problems of a configuration with their places, and write the report about them.

A report names the file, line, column and key of each problem. It quotes neither a value nor a source line,
so that secrets stay in (docs/invariants.md#secrets-stay-in). A key that may be a secret is not quoted either.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

PREFIX = "BUCKETFRONT_"
MAX_PROBLEMS = 100  # a file with more is no configuration

_PLAIN_KEY = re.compile(r"[\s-]*[a-z_]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Loc = tuple[str | int, ...]
"""The place of a setting in the configuration: its keys and list positions from the root."""

UNUSABLE = object()
"""Replaces a value whose problem is already reported. It fits no type."""


class SourceKind(Enum):
    """Where a setting can come from. Each kind takes precedence over those above it."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "variable"
    OPTION = "option"

    @property
    def precedence(self) -> int:
        return list(SourceKind).index(self)


@dataclass(frozen=True, slots=True)
class Source:
    """A text with settings, and its name in messages: the path of a file, or the name of a variable or an option.

    `loc` is the setting that a variable or an option sets.
    """

    name: str
    text: str
    kind: SourceKind = SourceKind.FILE
    loc: Loc = ()


@dataclass(frozen=True, slots=True)
class Place:
    """The place where a value or key was written. `line` and `column` count from 0."""

    source: Source
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.source.kind is not SourceKind.FILE:
            return self.source.name
        return f"{self.source.name}:{self.line + 1}:{self.column + 1}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to fix. `place` is missing if no file, variable or option caused it."""

    loc: Loc
    message: str
    place: Place | None

    def __str__(self) -> str:
        name = dotted(self.loc)
        if _is_guarded(self.loc) and not _is_plain_key(str(self.loc[-1])):
            name = f"{dotted(self.loc[:-1])}.…"
        if self.place is None:
            return f"{name}: {self.message}"
        if self.place.source.kind is not SourceKind.FILE:
            return f"{self.place}: {'' if self.loc == self.place.source.loc else f'{name}: '}{self.message}"
        return f"{self.place} {f'{name}: ' if name else ''}{self.message}"

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """Return the sort key: problems of the file from top to bottom, then those of variables and of options."""
        if self.place is None:
            return (len(SourceKind), 0, 0, "")
        return (self.place.source.kind.precedence, self.place.line, self.place.column, self.place.source.name)


@dataclass(slots=True)
class Tree:
    """Plain data, the place of each value and key in it, and the problems found so far."""

    data: dict[str, Any] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: dict[Loc, Problem] = field(default_factory=dict)  # problems of values; an override removes them

    def place(self, loc: Loc) -> Place | None:
        """Return where the value at `loc`, or the nearest value around it, was written."""
        return next((self.values[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.values), None)

    def problem(self, loc: Loc, message: str, place: Place | None = None) -> None:
        self.problems.append(Problem(loc, message, place or self.place(loc)))

    def break_value(self, loc: Loc, message: str, place: Place | None = None) -> object:
        """Note a problem of the value at `loc`. Return the value that replaces it."""
        self.broken[loc] = Problem(loc, message, place or self.place(loc))
        return UNUSABLE

    def is_broken(self, loc: Loc) -> bool:
        return any(loc[:end] in self.broken for end in range(len(loc) + 1))

    def forget(self, loc: Loc) -> None:
        """Remove the places and problems of the value at `loc`, which is about to be replaced."""
        for known in (self.values, self.keys, self.broken):
            for below in [key for key in known if key[: len(loc)] == loc]:
                del known[below]

    def all_problems(self) -> list[Problem]:
        return [*self.problems, *self.broken.values()]


def report(problems: Iterable[Problem]) -> str:
    """Return the text of all problems, in the order of the file, cut off after MAX_PROBLEMS."""
    ranked = sorted(problems, key=lambda problem: problem.rank)
    texts = [str(problem) for problem in ranked[:MAX_PROBLEMS]]
    if len(ranked) > MAX_PROBLEMS:
        texts.append(f"and {len(ranked) - MAX_PROBLEMS} more problems")
    return "\n".join(texts)


def variable_name(loc: Loc) -> str:
    """Return the environment variable that sets `loc`."""
    return PREFIX + "__".join(str(part) for part in loc).upper()


def dotted(loc: Loc) -> str:
    """Return the name of a setting in messages, such as `mounts[0].bucket`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{_shown_name(part)}"
    return text.removeprefix(".")


def _is_plain_key(text: str) -> bool:
    """Return whether `text` looks like a key of ours, rather than like a secret in the place of a key."""
    return _PLAIN_KEY.fullmatch(text) is not None


def _shown_name(name: str) -> str:
    """Return a key as a message may show it, cut at the first unusual character.

    A key with such a character may be a value whose colon was forgotten.
    """
    plain = _PLAIN_NAME.match(name)
    head = plain[0] if plain else ""
    return name if head == name else f"{head}…"


def _is_guarded(loc: Loc) -> bool:
    """Return whether a secret may be at `loc`, under any key."""
    in_admin = loc[:1] == ("admin",) and loc[1:] not in ((), ("host",), ("port",))
    return in_admin or loc[:2] == ("origin", "credentials")
