"""The cache directives of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246) as a frozen value.

The two syntaxes differ in how errors are handled. In Cache-Control an unclear directive gets its more restrictive
meaning, for example an age that is not a number is 0. CDN-Cache-Control (RFC 9213) is a structured field, in which a
malformed directive does not count. In both, a `no-cache` or `private` that names fields covers the whole response.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bucketfront.http.grammar import QUOTED_STRING

MAX_SECONDS = 2**31
"""The value of a delta-seconds that is too large to represent (RFC 9111 section 1.2.2)."""

# One list element, with the commas in its quoted strings. The match ends before a quote that is never closed.
_ELEMENT = re.compile(rf'[^,"]*+(?:{QUOTED_STRING}[^,"]*+)*', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

# RFC 8941 section 3. Each text matches in one way only, so parsing is linear. Only single characters are repeated
# possessively, because Python before 3.11.5 matches possessive groups wrongly.
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_DECIMAL, _INTEGER = r"-?[0-9]{1,12}\.[0-9]{1,3}", r"-?[0-9]{1,15}"
_STRING = r'"[ !#-\[\]-~]*+(?:\\["\\][ !#-\[\]-~]*+)*"'
_WORD = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"  # a Token
_BYTES, _BOOLEAN = r":[A-Za-z0-9+/=]*+:", r"\?[01]"
_BARE_ITEM = rf"(?:{_DECIMAL}|{_INTEGER}|{_STRING}|{_WORD}|{_BYTES}|{_BOOLEAN})"
_PARAMETERS = rf"(?:; *+{_KEY}(?:={_BARE_ITEM})?)*"
_INNER_LIST = rf"\( *+(?:{_BARE_ITEM}{_PARAMETERS}(?: ++|(?=\))))*\)"
_MEMBER = re.compile(rf"(?P<key>{_KEY})(?:=(?P<value>{_BARE_ITEM}|{_INNER_LIST}))?{_PARAMETERS}")
_SEPARATOR = re.compile(r"[ \t]*+,[ \t]*+")

_AGES = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_MAY_NAME_FIELDS = frozenset({"no-cache", "private"})

_OF_SHARED_CACHES = frozenset({"public", "private", "s-maxage", "proxy-revalidate"})

_Item = int | bool | str | None


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives that matter to a shared cache. Ages are in seconds, and None if the directive is absent."""

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
    """Return the directives of a field value; None is an absent field. Never raises.

    If a directive occurs twice, the first one counts (RFC 9111 section 4.2.1).
    """
    if not value:
        return _NOTHING
    return from_arguments(by_name(split(value)))


def parse_targeted(value: str | None) -> CacheControl | None:
    """Return the directives of a targeted field (RFC 9213). Never raises.

    If a directive occurs twice, the last one counts (RFC 8941 section 3.2). A directive with a value of the wrong type
    is ignored. A negative age is still an integer, and is 0 as in Cache-Control.

    Returns None if the field is absent, empty or malformed, and so must be ignored.
    """
    members = _dictionary(value or "")
    if not members:
        return None
    return from_arguments({name: str(item) for name, item in members.items() if _is_of_its_type(name, item)})


def _is_of_its_type(directive: str, item: _Item) -> bool:
    """Return whether a directive has a value of its type (RFC 9213 section 2.1).

    Ages are integers. Other directives are true, or a string if they may name fields.
    """
    if directive in _AGES:
        return isinstance(item, int) and not isinstance(item, bool)
    return item is True or (directive in _MAY_NAME_FIELDS and isinstance(item, str))


def from_arguments(arguments: Mapping[str, str | None]) -> CacheControl:
    """Return the directives that `by_name` found. Never raises."""

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


def by_name(elements: Iterable[str]) -> dict[str, str | None]:
    """Return the arguments of list elements by lower-case name, None for an element without one.

    If two elements have one name, the first counts.
    """
    found: dict[str, str | None] = {}
    for element in elements:
        name, equals, argument = element.partition("=")
        found.setdefault(name.strip(" \t").lower(), argument if equals else None)
    return found


def split(value: str) -> Iterator[str]:
    """Yield the elements of a comma-separated list without the spaces around them. Quoted commas do not split."""
    position = 0
    while position < len(value):
        match = _ELEMENT.match(value, position)
        assert match is not None, "the pattern matches the empty string"
        end = match.end()
        if value[end : end + 1] == '"':
            # The quote is never closed. It must not hide a `no-store` after it.
            yield from (element.strip(" \t") for element in value[position:].split(","))
            return
        yield match[0].strip(" \t")
        position = end + 1


def private(value: str) -> str:
    """Return a field value that keeps shared caches from storing the response. Its other directives stay."""
    kept = [element for element in split(value) if element and not {*by_name([element])} & _OF_SHARED_CACHES]
    return ", ".join(["private", *kept])


def _seconds(argument: str | None) -> int:
    """Return the seconds of a token or quoted string (RFC 9111 sections 1.2.2, 4.2.1 and 5.2).

    Anything but a delta-seconds is 0, which means stale.
    """
    if argument is None:
        return 0
    argument = unquoted(argument)
    if not (argument.isascii() and argument.isdigit()):
        return 0
    digits = argument.lstrip("0") or "0"
    return MAX_SECONDS if len(digits) > len(str(MAX_SECONDS)) else min(int(digits), MAX_SECONDS)


def unquoted(argument: str) -> str:
    """Return a token as it is, and of a quoted string the content (RFC 9110 section 5.6.4)."""
    if len(argument) > 1 and argument[0] == argument[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", argument[1:-1])
    return argument


def _dictionary(value: str) -> dict[str, _Item] | None:
    """Return the members of a dictionary without their parameters (RFC 8941 section 4.2.2).

    Tokens and strings stay as sent. A value of a type that no directive has (decimal, byte sequence, inner list) is
    None. It is well-formed, so the other members count.

    Returns None if parsing fails.
    """
    text = value.lstrip(" ").rstrip(" \t")
    members: dict[str, _Item] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            return None
        members[member["key"]] = _bare_item(member["value"])
        position = member.end()
        if position < len(text):
            separator = _SEPARATOR.match(text, position)
            if separator is None or separator.end() == len(text):
                return None
            position = separator.end()
    return members


def _bare_item(text: str | None) -> _Item:
    if text is None:
        return True
    if re.fullmatch(_INTEGER, text):
        return int(text)
    if text[0] == "?":
        return text == "?1"
    return text if text[0] == '"' or text[0] == "*" or text[0].isalpha() else None
