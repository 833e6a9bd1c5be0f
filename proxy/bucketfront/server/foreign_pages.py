"""Refuses writes that a page of another site makes in its visitor's browser (docs/invariants.md#foreign-pages).

A browser sends simple requests of any page without a CORS preflight: forms, `text/plain`, bodies without a type. It
adds Origin and Sec-Fetch-Site, which no page can change. Programs send neither, and are not concerned.

X-Forwarded-Host does not count as the request's own host, because a page may be allowed to send that field.
"""

from collections.abc import Callable

from bucketfront.errors import ProxyError
from bucketfront.http.web_origin import is_own

READS = frozenset({"host", "origin", "sec-fetch-site"})

# Fetch Metadata, section 2.4: the page's own origin, or the visitor's own act, as a typed address.
_OWN_SITES = (None, "same-origin", "none")


class ForeignPage(ProxyError):
    """A page of another origin attempts to write, and the settings do not name that origin."""


class ForeignPages:
    """Which pages may write: those of the request's own origin, and of the origins that the settings name.

    `*` names no origin, and neither does `null`: any site can make a page with the origin `null`.
    """

    def __init__(self, allow_origins: tuple[str, ...], *, is_tls: bool) -> None:
        self._named = frozenset(allow_origins) - {"*", "null"}
        self._is_tls = is_tls

    def check(self, field: Callable[[str], str | None]) -> None:
        """Raise ForeignPage for a request whose fields show that a foreign page made it."""
        origin, site = field("origin"), field("sec-fetch-site")
        if origin in self._named:
            return
        if origin is not None and not is_own(origin, field("host") or "", is_tls=self._is_tls):
            raise ForeignPage("a page of another origin may not write here, unless cors.allow_origins names its origin")
        if site not in _OWN_SITES:
            raise ForeignPage("a page of another site may not write here, unless cors.allow_origins names its origin")
