"""Parse Surrogate-Control, by which an origin addresses the reverse proxies in front of it.

The W3C's note "Edge Architecture Specification" of 2001 (section 2) defines it. `max-age=3600+600` is fresh for 3600 s
and may be used for 600 s more. Like CDNs, bucketfront also accepts the directives of Cache-Control here.
"""

import re

from bucketfront.http import cache_control
from bucketfront.http.cache_control import CacheControl
from bucketfront.http.grammar import QUOTED_TEXT

# The pattern also matches an open quote to the end, because otherwise it would be tried again at every later quote.
_QUOTED = re.compile(rf'"{QUOTED_TEXT}(?:"|\\?\Z)', re.DOTALL)
_EXTENDED_AGE = re.compile(r"([0-9]++)\+([0-9]++)")

_NOTHING = CacheControl()


def parse(value: str | None) -> CacheControl | None:
    """Return the cache directives of a field value, or None if it has none about storing. Never raises.

    The extension after the "+" is the length of each stale window that the field does not name itself. `content`,
    `no-store-remote` (for surrogates far from the origin), and a directive with a parameter (which names another
    surrogate) are ignored. Other errors are handled as in Cache-Control.
    """
    if not value:
        return None
    untargeted = (element for element in cache_control.split(value) if ";" not in _QUOTED.sub("", element))
    arguments = cache_control.by_name(untargeted)
    extended = _EXTENDED_AGE.fullmatch(cache_control.unquoted(arguments.get("max-age") or ""))
    if extended is not None:
        age, extension = extended.groups()
        arguments["max-age"] = age
        arguments.setdefault("stale-while-revalidate", extension)
        arguments.setdefault("stale-if-error", extension)
    control = cache_control.from_arguments(arguments)
    return None if control == _NOTHING else control
