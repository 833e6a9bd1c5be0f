"""Match paths against an operator's glob, in time linear in the length of the path."""

import re

from bucketfront.errors import BadPath

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WILD = frozenset({"?", "*", "**", "**/"})


MAX_GLOB_CHARS = 1024  # of one pattern; no key is longer


def glob_of(pattern: str) -> "Glob":
    """Return the glob of a pattern that a request or a command has. Raises BadPath if no path can match it."""
    if not 0 < len(pattern) <= MAX_GLOB_CHARS:
        raise BadPath(f"the glob must have 1 to {MAX_GLOB_CHARS} characters")
    if _CONTROL.search(pattern):
        raise BadPath("the glob has a control character or a byte that is not UTF-8; `?` matches any one character")
    return Glob(pattern)


class Glob:
    """A pattern for paths: `*` and `?` stop at a "/", `**` does not, and `**/` may also stand for no folder.

    A leading "/" of pattern and path is ignored. A pattern without any other "/" matches the last segment in every
    folder, as in .gitignore: `*.m3u8` is `**/*.m3u8`. A pattern with a "/" is anchored at the root (`live/*.ts`). Every
    other character stands for itself, and case counts.

    Clients choose the paths, so a backtracking regex would let them cause long matches. Here all states of the pattern
    advance together as the bits of one integer, in time linear in the path's length
    (docs/invariants.md#cost-of-a-request).
    """

    __slots__ = (
        "_accept",
        "_any",
        "_ending",
        "_folders",
        "_literal",
        "_not_slash",
        "_one",
        "_stars",
        "head",
        "pattern",
    )

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        rooted = pattern.removeprefix("/")
        if "/" not in rooted and rooted == pattern:
            rooted = f"**/{rooted}"
        self._literal: dict[str, int] = {}  # for each character, the states that it advances
        self._one = 0  # `?`
        self._not_slash = 0  # `*`: stays on every character but "/"
        self._any = 0  # `**` and `**/`: stay on every character
        self._folders = 0  # `**/`: advances at a "/"
        self._ending = ""  # literal text at the end of every matching path
        self.head = ""  # literal text at the begin of every matching path, without a leading "/"
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
            if self._one | self._not_slash | self._any == 0:
                self.head += token
            self._ending = self._ending + token if token not in _WILD else ""
            state <<= 1
        self._stars = (self._not_slash | self._any) & ~self._folders
        self._accept = state

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def matches(self, path: str) -> bool:
        """Return whether the whole of `path` fits the pattern."""
        # Most rules name an extension and most paths have another one, so this test spares the walk.
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
        """Return `states` and those that need no further character, because a star may match the empty text.

        `**/` is skipped only on entry, not after it has matched a part of a segment.
        """
        states |= (states & self._folders) << 1
        return states | ((states & self._stars) << 1)


def _tokens(pattern: str) -> list[str]:
    """Return the pattern as characters, `?`, `*`, `**` and `**/`. Only `**/` may stand directly before a star."""
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
