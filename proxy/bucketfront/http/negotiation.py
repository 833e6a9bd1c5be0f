"""Choose what a client prefers by its weighted lists (proactive negotiation, RFC 9110 section 12).

Every function is total and linear in the header's length (docs/invariants.md#cost-of-a-request). A list element or
weight outside the grammar is ignored, and a header longer than MAX_HEADER_CHARS counts as absent. A comma inside a
quoted string splits its element into malformed pieces, which are ignored as well.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from bucketfront.http.grammar import QUOTED_STRING, TOKEN

MAX_HEADER_CHARS = 1000  # browsers send less than 200

_OWS = " \t"
# Section 12.4.2. The parameter's name is of any case.
_WEIGHT = r"[ \t]*+;[ \t]*+[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"
_CODING = re.compile(rf"(?P<name>{TOKEN})(?:{_WEIGHT})?")
# Section 5.6.6 without the weight, which may stand anywhere (section 12.5.1).
_PARAMETER = rf"[ \t]*+;[ \t]*+(?![qQ]=)(?:{TOKEN}=(?:{TOKEN}|{QUOTED_STRING}))?"
_MEDIA_RANGE = re.compile(rf"(?P<name>{TOKEN}/{TOKEN})(?:{_PARAMETER})*(?:{_WEIGHT})?(?:{_PARAMETER})*", re.DOTALL)

_ALIASES = {"x-gzip": "gzip"}  # section 8.4.1.3
_ANY = "*"
IDENTITY = "identity"

# The ranges that cover a type, the most specific first (section 12.5.1). XHTML counts as HTML only if no range covers
# HTML itself, because pages are sent as text/html.
_HTML_BY = ("text/html", "text/*", "application/xhtml+xml")
_JSON_BY = ("application/json", "application/*", "*/*")


def coding(accept_encoding: str | None, offered: Sequence[str]) -> str | None:
    """Return the coding of `offered` (lower case, `br`, `gzip`) that the client prefers, or None for identity.

    For equal weights the order of `offered` decides (RFC 9110 section 12.5.3). An absent or empty field yields
    identity. The RFC allows any coding for an absent one, but clients that can decode send the field. Identity wins
    only if the field gives it a higher weight. If a coding occurs twice, its lower weight counts.
    """
    if not accept_encoding or len(accept_encoding) > MAX_HEADER_CHARS:
        return None
    weights: dict[str, float] = {}
    for name, weight in _weighted(accept_encoding, _CODING):
        known = _ALIASES.get(name, name)
        weights[known] = min(weight, weights.get(known, weight))
    best, best_weight = None, 0.0
    for name in offered:
        weight = weights.get(name, weights.get(_ANY, 0.0))
        if weight > best_weight:
            best, best_weight = name, weight
    return best if best_weight >= weights.get(IDENTITY, 0.0) else None


def coding_named(content_encoding: str) -> str:
    """Return the coding that a Content-Encoding names, in lower case and without aliases. A list is returned as one."""
    name = content_encoding.strip(_OWS).lower()
    return _ALIASES.get(name, name)


def prefers_html(accept: str | None) -> bool:
    """Return whether an error is sent as a page, and not as JSON (RFC 9110 section 12.5.1).

    A page goes only to a client that names HTML and gives it at least the weight of JSON. `*/*` (curl, `fetch`, media
    elements) prefers no type. Parameters other than the weight are ignored.
    """
    if not accept or len(accept) > MAX_HEADER_CHARS:
        return False
    weights: dict[str, float] = {}
    for name, weight in _weighted(accept, _MEDIA_RANGE):
        weights[name] = max(weight, weights.get(name, weight))
    html = _first_of(_HTML_BY, weights)
    return html > 0.0 and html >= _first_of(_JSON_BY, weights)


def _weighted(header: str, grammar: re.Pattern[str]) -> Iterator[tuple[str, float]]:
    """Yield the name, in lower case, and the weight, from 0 to 1, of each well-formed element."""
    for element in header.split(","):
        match = grammar.fullmatch(element.strip(_OWS))
        if match is not None:
            yield match["name"].lower(), 1.0 if match["weight"] is None else float(match["weight"])


def _first_of(names: Sequence[str], weights: Mapping[str, float]) -> float:
    return next((weights[name] for name in names if name in weights), 0.0)
