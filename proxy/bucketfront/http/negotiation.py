"""Proactive negotiation (RFC 9110 section 12): what a client takes, read from weighted lists.

Every function here is total and linear in the header's length (I22). A list element outside the grammar is
ignored, a weight outside it included; a header longer than MAX_HEADER_CHARS counts as absent. Commas inside
quoted strings are not looked for: they split an element into pieces that are ignored like any other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from bucketfront.http.grammar import QUOTED_STRING, TOKEN

MAX_HEADER_CHARS = 1000

_OWS = " \t"
# Section 12.4.2. The parameter's name is of any case.
_WEIGHT = r"[ \t]*+;[ \t]*+[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"
_CODING = re.compile(rf"(?P<name>{TOKEN})(?:{_WEIGHT})?")
# Section 5.6.6, without the weight, which section 12.5.1 asks to find wherever it stands.
_PARAMETER = rf"[ \t]*+;[ \t]*+(?![qQ]=)(?:{TOKEN}=(?:{TOKEN}|{QUOTED_STRING}))?"
_MEDIA_RANGE = re.compile(rf"(?P<name>{TOKEN}/{TOKEN})(?:{_PARAMETER})*(?:{_WEIGHT})?(?:{_PARAMETER})*", re.DOTALL)

_ALIASES = {"x-gzip": "gzip"}  # section 8.4.1.3
_ANY = "*"
_IDENTITY = "identity"

# The ranges that cover a type, the most specific first (section 12.5.1). XHTML stands for HTML only where nothing
# speaks of HTML: pages are sent as text/html.
_HTML_BY = ("text/html", "text/*", "application/xhtml+xml")
_JSON_BY = ("application/json", "application/*", "*/*")


def coding(accept_encoding: str | None, offered: Sequence[str]) -> str | None:
    """The content coding of `offered` (lower case, `br`, `gzip`) that the client likes best; None: identity.

    RFC 9110 section 12.5.3. Of equal weights the order of `offered` decides. An absent or empty field is taken
    for identity, though the first of them allows anything: whoever can decode says so. Identity wins only where
    it is named with a higher weight; of a coding named twice the lower weight counts.
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
    return best if best_weight >= weights.get(_IDENTITY, 0.0) else None


def prefers_html(accept: str | None) -> bool:
    """Whether an error is shown as a page, and not as JSON (RFC 9110 section 12.5.1).

    Only to a client that names HTML itself and likes it no less than JSON: `*/*` (curl, `fetch`, media elements)
    asks for nothing in particular. Parameters besides the weight tell nothing apart here.
    """
    if not accept or len(accept) > MAX_HEADER_CHARS:
        return False
    weights: dict[str, float] = {}
    for name, weight in _weighted(accept, _MEDIA_RANGE):
        weights[name] = max(weight, weights.get(name, weight))
    html = _first_of(_HTML_BY, weights)
    return html > 0.0 and html >= _first_of(_JSON_BY, weights)


def _weighted(header: str, grammar: re.Pattern[str]) -> Iterator[tuple[str, float]]:
    """Each well-formed element's name, in lower case, and its weight, from 0 to 1."""
    for element in header.split(","):
        match = grammar.fullmatch(element.strip(_OWS))
        if match is not None:
            yield match["name"].lower(), 1.0 if match["weight"] is None else float(match["weight"])


def _first_of(names: Sequence[str], weights: Mapping[str, float]) -> float:
    return next((weights[name] for name in names if name in weights), 0.0)
