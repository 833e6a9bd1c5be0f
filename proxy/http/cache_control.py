"""The Cache-Control of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246) as a frozen value.

Whatever is in doubt is read as the more restrictive: an age that is no number is 0, a `no-cache` or `private`
that names fields covers the whole response.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SECONDS = 2**31
"""RFC 9111 section 1.2.2: what a delta-seconds too large to represent is taken for."""

# One list element, commas in its quoted strings included. Stops short at a quote that is never closed.
_ELEMENT = re.compile(r'[^,"]*+(?:"(?:[^"\\]|\\.)*+"[^,"]*+)*+', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives that matter to a shared cache. Ages in seconds, None where the directive is absent."""

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    immutable: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


_NOTHING = CacheControl()


def parse(value: str | None) -> CacheControl:
    """A field value, None for an absent field. Never raises.

    Of a directive that occurs twice the first counts (RFC 9111 section 4.2.1).
    """
    if not value:
        return _NOTHING
    arguments: dict[str, str | None] = {}
    for element in _elements(value):
        name, equals, argument = element.partition("=")
        arguments.setdefault(name.strip(" \t").lower(), argument if equals else None)

    def age(directive: str) -> int | None:
        return _seconds(arguments[directive]) if directive in arguments else None

    return CacheControl(
        max_age=age("max-age"),
        s_maxage=age("s-maxage"),
        no_store="no-store" in arguments,
        no_cache="no-cache" in arguments,
        private="private" in arguments,
        must_revalidate="must-revalidate" in arguments,
        proxy_revalidate="proxy-revalidate" in arguments,
        immutable="immutable" in arguments,
        stale_while_revalidate=age("stale-while-revalidate"),
        stale_if_error=age("stale-if-error"),
    )


def _elements(value: str) -> Iterator[str]:
    position = 0
    while position < len(value):
        match = _ELEMENT.match(value, position)
        assert match is not None, "the pattern matches the empty string"
        end = match.end()
        if value[end : end + 1] == '"':
            # The quote is never closed. A `no-store` after it must not be swallowed by it.
            yield from (element.strip(" \t") for element in value[position:].split(","))
            return
        yield match[0].strip(" \t")
        position = end + 1


def _seconds(argument: str | None) -> int:
    """RFC 9111 sections 1.2.2, 4.2.1 and 5.2: a token or a quoted string; 0 (stale) if no delta-seconds."""
    if argument is None:
        return 0
    if len(argument) > 1 and argument[0] == argument[-1] == '"':
        argument = _QUOTED_PAIR.sub(r"\1", argument[1:-1])
    if not (argument.isascii() and argument.isdigit()):
        return 0
    digits = argument.lstrip("0") or "0"
    return MAX_SECONDS if len(digits) > len(str(MAX_SECONDS)) else min(int(digits), MAX_SECONDS)
