"""How an object is shown to one request: what its query asks for, what mount and rules make of the stored headers."""

from aiohttp import hdrs
from multidict import CIMultiDict

from bucketfront.http import media_types, query
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan
from bucketfront.http.presentation import Presentation
from bucketfront.http.query import BadQuery, Query
from bucketfront.server.router import Route
from bucketfront.server.selection import Candidate


def query_of(route: Route) -> Query:
    """Raises BadQuery."""
    mount = route.mount
    asked = query.parse(route.query)
    others = list(asked.others)
    version, overrides = asked.version, asked.overrides
    if version is not None and not mount.versions:
        others.append("versionId")
        version = None
    if overrides and not mount.response_overrides:
        others.append("response-*")
        overrides = ()
    if others and mount.query == "refuse":
        raise BadQuery("this mount takes no such query parameter")
    return Query(version, overrides)


def presentation(rules: Rules, route: Route, candidate: Candidate, asked: Query) -> Presentation:
    ruling = rules.ruling(candidate.name)
    return Presentation(
        guessed_type=media_types.of(candidate.name) if route.mount.guess_types or candidate.coding else None,
        coding=candidate.coding,
        varies=candidate.varies,
        cache_control=ruling.cache_control,
        changes=ruling.headers or (),
        overrides=asked.overrides,
    )


def sets_coding(asked: Query) -> bool:
    """Who says what the coding is, by query, means the object itself and none of its siblings."""
    return any(name == hdrs.CONTENT_ENCODING for name, _ in asked.overrides)


def with_object_fields(headers: CIMultiDict[str], made: Plan, age: float | None) -> CIMultiDict[str]:
    """`headers`, what every answer carries, and the object's added to them. `age` in seconds; None for an answer that
    is not the stored one.
    """
    for name, value in made.headers:
        if name == hdrs.VARY:
            headers.add(name, value)
        else:
            headers[name] = value
    if age is not None:
        headers[hdrs.AGE] = str(int(age))
    return headers
