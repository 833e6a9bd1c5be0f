"""How long a stored answer may be used: RFC 9111 section 4.2, RFC 5861, and the operator's rules per path.

The object's own Cache-Control and Expires come first, then the first matching rule, then the default. Never a
heuristic (RFC 9111 section 4.2.2): a rule says what is meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.http import cache_control, dates
from proxy.http.cache_control import MAX_SECONDS, CacheControl
from proxy.http.metadata import Metadata


@dataclass(frozen=True, slots=True)
class Freshness:
    """All times in seconds. `ttl` counts from the validation: the age that the answer had then is taken off.

    The stale windows count from the end of `ttl`. `must_revalidate`: once stale, never used without a
    validation, whatever the reason.
    """

    ttl: float
    storable: bool = True
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0


_NOT_STORABLE = Freshness(ttl=0.0, storable=False, must_revalidate=True)


def policy(
    metadata: Metadata,
    *,
    default_ttl: float,
    stale_while_revalidate: float,
    stale_if_error: float,
    now: float,
) -> Freshness:
    """The freshness of an answer that the origin gave, or confirmed with a 304, at `now`.

    `now` is in seconds since the epoch; the other arguments are the configured values in seconds,
    `default_ttl` that of the rule where one matches.
    """
    control = cache_control.parse(metadata.header("Cache-Control"))
    if control.no_store or control.private:
        return _NOT_STORABLE
    strict = control.no_cache or control.must_revalidate or control.proxy_revalidate

    def window(own: int | None, configured: float) -> float:
        if strict:
            return 0.0
        if own is not None:
            return float(own)
        # RFC 9111 section 5.2.2.10: s-maxage forbids stale answers, unless RFC 5861's directives allow them.
        return configured if control.s_maxage is None else 0.0

    return Freshness(
        ttl=0.0 if control.no_cache else _ttl(metadata, control, default_ttl, now),
        must_revalidate=strict,
        stale_while_revalidate=window(control.stale_while_revalidate, stale_while_revalidate),
        stale_if_error=window(control.stale_if_error, stale_if_error),
    )


def _ttl(metadata: Metadata, control: CacheControl, default_ttl: float, now: float) -> float:
    """RFC 9111 sections 4.2.1 and 4.2.3."""
    lifetime: float
    expires = metadata.header("Expires")
    if control.s_maxage is not None:
        lifetime = control.s_maxage
    elif control.max_age is not None:
        lifetime = control.max_age
    elif expires is not None:
        # A point in time: unlike the lifetimes it needs no correction for Age. Section 5.3: no date, "0"
        # above all, is a time in the past.
        end = dates.parse(expires, now)
        return 0.0 if end is None else min(max(0.0, end - now), float(MAX_SECONDS))
    else:
        lifetime = default_ttl
    return max(0.0, float(lifetime) - metadata.age)


class Glob:
    """A pattern for paths: `*` and `?` stop at a "/", `**` does not; `**/` may also stand for no folder.

    A leading "/" of pattern and path means nothing. A pattern without any other "/" matches the last segment
    in every folder, as in .gitignore (`*.m3u8` is `**/*.m3u8`); one with a "/" is anchored at the root
    (`live/*.ts`). Everything else stands for itself; case counts.

    Clients choose the paths, so this is no backtracking regex: all states of the pattern advance together, as
    the bits of one integer, in time linear in the path's length (I22).
    """

    __slots__ = ("_accept", "_any", "_folders", "_literal", "_not_slash", "_one", "_stars", "pattern")

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
            state <<= 1
        self._stars = (self._not_slash | self._any) & ~self._folders
        self._accept = state

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def matches(self, path: str) -> bool:
        """Whether the whole of `path` is of this pattern."""
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


class TtlRules:
    """The configuration's `freshness.rules`, compiled once: (glob, seconds), the first match wins."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[tuple[str, float]]) -> None:
        self._rules = tuple((Glob(pattern), ttl) for pattern, ttl in rules)

    def ttl(self, path: str) -> float | None:
        """The seconds of the first rule that matches, or None."""
        return next((ttl for glob, ttl in self._rules if glob.matches(path)), None)
