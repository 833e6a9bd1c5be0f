"""How an object appears in the response to one request, by its query, the mount and the rules."""

import time

from aiohttp import hdrs
from multidict import CIMultiDict

from bucketfront.http import dates, media_types, query
from bucketfront.http.cache_control import MAX_SECONDS
from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan
from bucketfront.http.presentation import Presentation
from bucketfront.http.query import BadQuery, Query
from bucketfront.server.router import Route
from bucketfront.server.selection import Candidate


def query_of(route: Route) -> Query:
    """Return the query parameters that the mount allows. Raises BadQuery if it refuses others."""
    mount = route.mount
    parsed = query.parse(route.query)
    others = list(parsed.others)
    version, overrides = parsed.version, parsed.overrides
    if version is not None and not route.has_versions:
        others.append("versionId")
        version = None
    if overrides and not route.has_overrides:
        others.append("response-*")
        overrides = ()
    if others and mount.query == "refuse":
        raise BadQuery("this mount takes no such query parameter")
    return Query(version, overrides)


def presentation(rules: Rules, route: Route, candidate: Candidate, parameters: Query) -> Presentation:
    ruling = rules.ruling(candidate.name)
    return Presentation(
        guessed_type=media_types.of(candidate.name) if route.mount.guess_types or candidate.coding else None,
        coding=candidate.coding,
        varies=candidate.varies,
        cache_control=ruling.cache_control,
        changes=ruling.headers or (),
        overrides=parameters.overrides,
        is_private=route.is_private(candidate.key),
        inline_types=route.inline_types(candidate.key),
    )


def sets_coding(parameters: Query) -> bool:
    """Return whether the query overrides Content-Encoding. Such a request means the object itself, not a sibling."""
    return any(name == hdrs.CONTENT_ENCODING for name, _ in parameters.overrides)


def s3_fields(status: int, metadata: Metadata, *, wants_checksum: bool) -> Headers:
    """Return the fields that a client of S3 reads besides those of the object (S3 API, GetObject, HeadObject).

    The checksum is that of the whole object, so S3 sends it with all of it only, to a client that wants it.
    """
    if status not in (200, 206):
        return ()
    fields: list[tuple[str, str]] = []
    if metadata.version is not None:
        fields.append(("x-amz-version-id", metadata.version))
    if wants_checksum and metadata.checksum is not None and status == 200:
        algorithm, value = metadata.checksum
        fields += [(f"x-amz-checksum-{algorithm}", value), ("x-amz-checksum-type", "FULL_OBJECT")]
    return tuple(fields)


def with_object_fields(headers: CIMultiDict[str], response_plan: Plan, age: float | None) -> CIMultiDict[str]:
    """Add the object's headers to those of every response. `age` is in seconds.

    Date is when the origin sent the stored response, by our clock. A cache behind computes the lifetime from Expires
    minus Date, and then subtracts Age (RFC 9111 sections 4.2.1 and 4.2.3). With the Date of now it would subtract the
    age twice. `age` is None for a response that is not the stored one.
    """
    for name, value in response_plan.headers:
        if name == hdrs.VARY:
            headers.add(name, value)
        elif name == "Cache-Status":
            headers[name] = f"{value}, {headers[name]}"  # the cache nearest to S3 comes first (RFC 9211 section 2)
        else:
            headers[name] = value
    if age is not None:
        headers[hdrs.AGE] = str(int(min(age, MAX_SECONDS)))
        # An origin may send any Age, and no date is that old.
        headers[hdrs.DATE] = dates.format(time.time() - (age if age < MAX_SECONDS else 0))
    return headers
