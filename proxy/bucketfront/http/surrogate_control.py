"""Surrogate-Control: what an origin says to the reverse proxies in front of it.

Defined by the W3C's note "Edge Architecture Specification" of 2001 (section 2): `max-age=3600+600` is fresh for
3600 s and may be used for 600 s more. CDNs also read the directives of Cache-Control here, and so do we.
"""

import re

from bucketfront.http import cache_control
from bucketfront.http.cache_control import CacheControl
from bucketfront.http.grammar import QUOTED_TEXT

# Or what an open quote leaves: a pattern that failed there would be tried again at every quote after it.
_QUOTED = re.compile(rf'"{QUOTED_TEXT}(?:"|\\?\Z)', re.DOTALL)
_EXTENDED_AGE = re.compile(r"([0-9]++)\+([0-9]++)")

_NOTHING = CacheControl()


def parse(value: str | None) -> CacheControl | None:
    """A field value as cache directives, or None where it says nothing about storing. Never raises.

    The extension after the "+" is a stale window for every reason, except where the field names that window
    itself. `content` and `no-store-remote` (for surrogates far from the origin) are not for us, nor is a
    directive with a parameter: that names another surrogate. Other errors are read as in Cache-Control.
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
