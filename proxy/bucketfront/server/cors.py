"""Which web pages may read a response and its timing (Fetch standard, Resource Timing)."""

import re
from collections.abc import Mapping

from aiohttp import hdrs

from bucketfront.config.listener_settings import CorsSettings
from bucketfront.http.grammar import TOKEN, Headers

_TOKENS = re.compile(rf"{TOKEN}(?:[ \t]*,[ \t]*{TOKEN})*")
MAX_REQUEST_HEADERS = 2048  # characters of Access-Control-Request-Headers; pages send a few hundred

_OF_READS = (hdrs.METH_GET, hdrs.METH_HEAD)


class Cors:
    """The CORS headers of all responses, by the settings and the request's Origin."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(settings.allow_origins)
        self._writers = self._origins - {"*", "null"}
        self._timing = frozenset(settings.timing_allow_origins)
        self._allow_headers = settings.allow_headers
        self._max_age = str(int(settings.max_age))
        shown: list[tuple[str, str]] = []
        if settings.expose_headers:
            shown.append((hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, ", ".join(settings.expose_headers)))
        if settings.allow_credentials:
            shown.append((hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"))
        self._shown = tuple(shown)
        policy = settings.resource_policy
        self._always: Headers = () if policy is None else (("Cross-Origin-Resource-Policy", policy),)
        # A CDN must keep the response to a page that may read it apart from the one to a page that may not.
        self._varies = any(named and "*" not in named for named in (self._origins, self._timing))

    def fields(self, origin: str | None, also: tuple[str, ...] = (), *, is_guarded: bool = False) -> Headers:
        """Return the headers of every response. `origin` is the request's Origin.

        `also` are further fields that a page may read. `is_guarded` is true for a mount that only some clients may
        read. `*` names no origin there: a rule may go by the visitor's address, which any page in a browser has too.
        """
        found = list(self._always)
        if (allowed := _allowed_origin(self._writers if is_guarded else self._origins, origin)) is not None:
            found += [(hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, allowed), *self._shown]
            if also:
                found.append((hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, ", ".join(also)))
        if (allowed := _allowed_origin(self._timing, origin)) is not None:
            found.append(("Timing-Allow-Origin", allowed))
        if self._varies or is_guarded:
            found.append((hdrs.VARY, hdrs.ORIGIN))
        return tuple(found)

    def preflight(self, request: Mapping[str, str], methods: tuple[str, ...], also: tuple[str, ...] = ()) -> Headers:
        """Return the headers of the response to a preflight besides `fields`. Returns none for another request.

        `methods` are those of the path. `also` are fields that a page may send there, whatever the settings are. Only
        pages of named origins may write (`foreign_pages`), so all others are offered reads.
        """
        if hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request:
            return ()
        vary = (hdrs.VARY, f"{hdrs.ACCESS_CONTROL_REQUEST_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}")
        origin = request.get(hdrs.ORIGIN)
        if _allowed_origin(self._origins, origin) is None:
            return (vary,)
        if origin not in self._writers:
            methods, also = tuple(method for method in methods if method in _OF_READS), ()
            # A page may send a POST even if the response does not name it (Fetch standard, section 4.8).
            if request[hdrs.ACCESS_CONTROL_REQUEST_METHOD] not in methods:
                return (vary, *_methods_field(methods))
        allowed = _methods_field(methods)
        if names := self._headers_for(request.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ""), also):
            allowed.append((hdrs.ACCESS_CONTROL_ALLOW_HEADERS, names))
        return (vary, *allowed, (hdrs.ACCESS_CONTROL_MAX_AGE, self._max_age))

    def _headers_for(self, requested: str, also: tuple[str, ...]) -> str:
        if "*" not in self._allow_headers:
            return ", ".join((*self._allow_headers, *also))
        # The response repeats the names, because "*" does not include Authorization, and counts as a name if
        # credentials are allowed.
        return requested if len(requested) <= MAX_REQUEST_HEADERS and _TOKENS.fullmatch(requested) else ""


def _methods_field(methods: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(hdrs.ACCESS_CONTROL_ALLOW_METHODS, ", ".join(methods))] if methods else []


def is_preflight(request: Mapping[str, str]) -> bool:
    """Return whether an OPTIONS request with these headers is a CORS preflight (Fetch standard, section 4.8)."""
    return hdrs.ORIGIN in request and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request


def _allowed_origin(allowed: frozenset[str], origin: str | None) -> str | None:
    if "*" in allowed:
        return "*"
    return origin if origin in allowed else None
