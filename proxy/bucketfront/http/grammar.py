"""Match the common elements of HTTP's grammar: token, field name, field value and quoted string.

The patterns are possessive where Python allows it, so that matching takes linear time on any input.
"""

import re

Headers = tuple[tuple[str, str], ...]
"""Header fields in the order in which they are sent."""

TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"  # noqa: S105 - a pattern
"""RFC 9110 section 5.6.2; also the grammar of a field name (section 5.1)."""

QUOTED_TEXT = r'[^"\\]*+(?:\\.[^"\\]*+)*'
"""The inside of a quoted string (RFC 9110 section 5.6.4). The quoted pair needs re.DOTALL to match a line feed."""

QUOTED_STRING = f'"{QUOTED_TEXT}"'

_TOKEN = re.compile(TOKEN)
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


def is_token(text: str) -> bool:
    """Return whether `text` is a token, and so may be a field name."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(text: str) -> bool:
    """Return whether `text` is a field value in ASCII, as RFC 9110 section 5.5 without obs-text. It may be empty."""
    return not text or _FIELD_VALUE.fullmatch(text) is not None
