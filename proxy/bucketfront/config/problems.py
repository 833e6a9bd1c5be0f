"""What is wrong with a configuration, where it was written, and the text that says so.

Rule: values of variables are never quoted, lines of a file only as far as `bucketfront.config.redaction` allows (I28).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bucketfront.config.redaction import LINE_BREAK, is_plain_key, quotable_end, secret_spans, shown_name

PREFIX = "BUCKETFRONT_"
MAX_PROBLEMS = 100
MAX_COLUMNS = 160  # of a source line in a message

Loc = tuple[str | int, ...]
"""A setting, by its keys and list positions from the root."""

UNUSABLE = object()
"""Stands where a value would, once its problem is known: fits no type."""


@dataclass(frozen=True)  # no slots: cached_property needs a __dict__
class Source:
    """A text and what to call it in messages. Lines of a file are quoted, values of variables are not."""

    name: str
    text: str
    is_variable: bool = False

    @cached_property
    def lines(self) -> list[str]:
        return LINE_BREAK.split(self.text)

    @cached_property
    def withheld(self) -> dict[int, int]:
        """Line -> column from which it may hold a secret, both from 0."""
        return secret_spans(self.text)

    def excerpt(self, line: int, column: int, *, guarded: bool) -> str:
        """The line, and a caret below `column` (both from 0), without secrets; empty if nothing may be shown.

        `guarded`: the line belongs to a section of secrets; nothing but its key is shown.
        """
        if self.is_variable or line >= len(self.lines):
            return ""
        shown = self.lines[line].rstrip()
        end = min(self.withheld.get(line, len(shown)), quotable_end(shown, guarded=guarded))
        if not shown[:end].strip():
            return ""
        column = min(column, end)
        shown = shown if end >= len(shown) else shown[:end].rstrip() + " ***"
        begin = max(0, column - MAX_COLUMNS // 2)
        window = shown[begin : begin + MAX_COLUMNS]
        printable = "".join(char if char.isprintable() else " " for char in window)
        return f"\n    {printable}\n    {' ' * (column - begin)}^"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value or key was written: `line` and `column` from 0."""

    source: Source
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.source.is_variable:
            return self.source.name
        return f"{self.source.name}:{self.line + 1}:{self.column + 1}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `place` is None where neither the file nor a variable is at fault."""

    loc: Loc
    message: str
    place: Place | None

    def __str__(self) -> str:
        guarded = _is_guarded(self.loc)
        name = _dotted(self.loc)
        if guarded and not is_plain_key(str(self.loc[-1])):
            name = f"{_dotted(self.loc[:-1])}.…"
        if self.place is None:
            return f"{name}: {self.message}"
        if self.place.source.is_variable:
            names_itself = variable_name(self.loc) == self.place.source.name.upper()
            return f"{self.place}: {'' if names_itself else f'{name}: '}{self.message}"
        excerpt = self.place.source.excerpt(self.place.line, self.place.column, guarded=guarded)
        return f"{self.place} {f'{name}: ' if name else ''}{self.message}{excerpt}"

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The file's problems first, from its top to its bottom, then the variables'."""
        if self.place is None:
            return (2, 0, 0, "")
        return (self.place.source.is_variable, self.place.line, self.place.column, self.place.source.name)


@dataclass(slots=True)
class Tree:
    """Plain data, the place of each value and key in it, and what is wrong so far."""

    data: dict[str, Any] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: dict[Loc, Problem] = field(default_factory=dict)  # problems of values; gone once overridden

    def place(self, loc: Loc) -> Place | None:
        """Where the value at `loc` was written, or the nearest value around it."""
        return next((self.values[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.values), None)

    def problem(self, loc: Loc, message: str, place: Place | None = None) -> None:
        self.problems.append(Problem(loc, message, place or self.place(loc)))

    def break_value(self, loc: Loc, message: str, place: Place | None = None) -> object:
        """Note what is wrong with the value at `loc`; returns what to put in its stead."""
        self.broken[loc] = Problem(loc, message, place or self.place(loc))
        return UNUSABLE

    def is_broken(self, loc: Loc) -> bool:
        return any(loc[:end] in self.broken for end in range(len(loc) + 1))

    def forget(self, loc: Loc) -> None:
        """The value at `loc` is about to be replaced: so are its places and its problems."""
        for known in (self.values, self.keys, self.broken):
            for below in [key for key in known if key[: len(loc)] == loc]:
                del known[below]

    def all_problems(self) -> list[Problem]:
        return [*self.problems, *self.broken.values()]


def report(problems: Iterable[Problem]) -> str:
    """The text of all problems, in the order of the file, cut off after MAX_PROBLEMS."""
    ranked = sorted(problems, key=lambda problem: problem.rank)
    texts = [str(problem) for problem in ranked[:MAX_PROBLEMS]]
    if len(ranked) > MAX_PROBLEMS:
        texts.append(f"and {len(ranked) - MAX_PROBLEMS} more problems")
    return "\n".join(texts)


def variable_name(loc: Loc) -> str:
    """The environment variable that sets `loc`."""
    return PREFIX + "__".join(str(part) for part in loc).upper()


def _dotted(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{shown_name(part)}"
    return text.removeprefix(".")


def _is_guarded(loc: Loc) -> bool:
    """Whether a secret may stand there, under whatever name."""
    in_admin = loc[:1] == ("admin",) and loc[1:] not in ((), ("host",), ("port",))
    return in_admin or loc[:2] == ("origin", "credentials")
