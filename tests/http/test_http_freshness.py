"""Freshness: RFC 9111 section 4.2, RFC 5861, RFC 9213 and Surrogate-Control."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import dates
from bucketfront.http.cache_control import MAX_SECONDS
from bucketfront.http.freshness import Defaults, Freshness, policy
from bucketfront.http.metadata import Metadata

NOW = 1_700_000_000.0
IN_AN_HOUR, AN_HOUR_AGO = dates.format(NOW + 3600), dates.format(NOW - 3600)
DEFAULT, SWR, SIE, OUTAGE = 300.0, 60.0, 86400.0, 2592000.0
DEFAULTS = Defaults(ttl=DEFAULT, stale_while_revalidate=SWR, stale_if_error=SIE, outage=OUTAGE)
CDN, SURROGATE = "CDN-Cache-Control", "Surrogate-Control"
META_CDN, META_SURROGATE = "x-amz-meta-cdn-cache-control", "x-amz-meta-surrogate-control"


def of(headers: dict[str, str], age: int = 0) -> Metadata:
    return Metadata(etag='"v1"', size=1, headers=tuple(headers.items()), age=age)


def fresh(cache_control: str | None = None, expires: str | None = None, age: int = 0) -> Freshness:
    sent = {"Cache-Control": cache_control, "Expires": expires}
    return policy(of({name: value for name, value in sent.items() if value is not None}, age), DEFAULTS, NOW)


@each_row(
    ("cache_control", "expires", "age", "ttl"),
    [
        pytest.param(None, None, 0, DEFAULT, id="no lifetime: the default"),
        pytest.param("public", None, 0, DEFAULT, id="no lifetime in it: the default"),
        pytest.param("max-age=60", None, 0, 60, id="4.2.1: max-age"),
        pytest.param("max-age=60", IN_AN_HOUR, 0, 60, id="5.3: max-age before Expires"),
        pytest.param("max-age=60, s-maxage=10", IN_AN_HOUR, 0, 10, id="4.2.1: s-maxage first"),
        pytest.param("s-maxage=60, max-age=10", None, 0, 60, id="4.2.1: s-maxage first, if larger too"),
        pytest.param("public", IN_AN_HOUR, 0, 3600, id="4.2.1: Expires"),
        pytest.param(None, AN_HOUR_AGO, 0, 0, id="5.3: expired"),
        pytest.param(None, "0", 0, 0, id="5.3: an invalid date is in the past"),
        pytest.param(None, "", 0, 0, id="5.3: so is an empty one"),
        pytest.param("max-age=x", IN_AN_HOUR, 0, 0, id="4.2.1: an invalid age is stale"),
        pytest.param("max-age=60", None, 20, 40, id="4.2.3: reduced by Age"),
        pytest.param("max-age=60", None, 61, 0, id="4.2.3: never below 0"),
        pytest.param("s-maxage=60", None, 20, 40, id="4.2.3: s-maxage too"),
        pytest.param(None, None, 20, DEFAULT - 20, id="4.2.3: the default too"),
        pytest.param(None, IN_AN_HOUR, 20, 3600, id="4.2.3: Expires is a point in time"),
        pytest.param("no-cache, max-age=60", None, 0, 0, id="5.2.2.4: no-cache"),
        pytest.param(None, "Fri, 31 Dec 9999 23:59:59 GMT", 0, MAX_SECONDS, id="far away"),
    ],
)
def test_ttl(cache_control: str | None, expires: str | None, age: int, ttl: float) -> None:
    """I7: the object's own word decides, in the order of RFC 9111 section 4.2.1, then the configured time."""
    assert fresh(cache_control, expires, age).ttl == ttl


@each_row(
    ("date", "age", "ttl"),
    [
        pytest.param(0, 0, 3600, id="the clocks agree"),
        pytest.param(-100, 0, 3600, id="4.2.3: what comes late is as old as its Date"),
        pytest.param(-100, 100, 3600, id="4.2.3: Age and Date agree"),
        pytest.param(-100, 300, 3400, id="4.2.3: a larger Age counts"),
        pytest.param(100, 0, 3500, id="4.2.1: Expires minus Date, with a fast clock"),
        pytest.param(100, 300, 3200, id="4.2.3: and with Age"),
        pytest.param(3600, 0, 0, id="4.2.1: Expires is the Date"),
        pytest.param(4000, 0, 0, id="4.2.1: Expires is before the Date"),
        pytest.param(None, 300, 3600, id="no Date"),
    ],
)
def test_expires_counts_by_the_clock_of_the_origin(date: int | None, age: int, ttl: float) -> None:
    """I7: Expires minus Date is the lifetime, so an origin with another clock makes nothing fresh for longer."""
    metadata = Metadata(
        '"v1"', 1, headers=(("Expires", IN_AN_HOUR),), age=age, date=None if date is None else dates.format(NOW + date)
    )
    assert policy(metadata, DEFAULTS, NOW).ttl == ttl


@each_row(
    ("cache_control", "while_revalidate", "if_error", "outage", "must_revalidate"),
    [
        pytest.param(None, SWR, SIE, OUTAGE, False, id="the configured windows"),
        pytest.param("max-age=60", SWR, SIE, OUTAGE, False, id="4.2.4: beside an age too"),
        pytest.param("stale-while-revalidate=5", 5, SIE, OUTAGE, False, id="RFC 5861 section 3"),
        pytest.param("stale-if-error=7", SWR, 7, 7, False, id="RFC 5861 section 4: an outage is an error"),
        pytest.param("stale-while-revalidate=0, stale-if-error=0", 0, 0, 0, False, id="RFC 5861: none"),
        pytest.param("must-revalidate, stale-if-error=7", 0, 0, 0, True, id="5.2.2.2: must-revalidate"),
        pytest.param("proxy-revalidate", 0, 0, 0, True, id="5.2.2.8: proxy-revalidate"),
        pytest.param("no-cache, stale-while-revalidate=5", 0, 0, 0, True, id="5.2.2.4: no-cache"),
        pytest.param("s-maxage=60", 0, 0, 0, False, id="5.2.2.10: s-maxage allows no stale answer"),
        pytest.param("s-maxage=60, stale-while-revalidate=5", 5, 0, 0, False, id="5.2.2.10: unless the object does"),
        pytest.param("s-maxage=60, stale-if-error=7", 0, 7, 7, False, id="5.2.2.10: the same for errors"),
    ],
)
def test_stale_windows(
    cache_control: str | None, while_revalidate: float, if_error: float, outage: float, *, must_revalidate: bool
) -> None:
    """I7: the object's own headers come first in how long a stale response may be used."""
    found = fresh(cache_control)
    assert found.stale_while_revalidate == while_revalidate
    assert found.stale_if_error == if_error
    assert found.outage == outage
    assert found.must_revalidate is must_revalidate
    assert found.storable


@each_row(
    ("headers", "age", "default_ttl", "window"),
    [
        ({}, 0, 300.0, 60),
        ({}, 0, 10.0, 60),
        ({}, 0, 9.9, 0),
        ({}, 0, 0.0, 0),
        ({"Cache-Control": "max-age=10"}, 0, 300.0, 60),
        ({"Cache-Control": "max-age=9"}, 0, 300.0, 0),
        ({"Cache-Control": "max-age=3"}, 0, 300.0, 0),
        ({"CDN-Cache-Control": "max-age=3", "Cache-Control": "max-age=300"}, 0, 300.0, 0),
        ({"Cache-Control": "max-age=3, stale-while-revalidate=5"}, 0, 300.0, 5),
        ({"Cache-Control": "max-age=300"}, 295, 300.0, 60),
    ],
)
def test_the_window_that_is_not_configured(
    headers: dict[str, str], age: int, default_ttl: float, window: float
) -> None:
    """I7: without a configured window, an object that is fresh for less than 10 s is revalidated in the foreground."""
    defaults = Defaults(ttl=default_ttl, stale_while_revalidate=None, stale_if_error=SIE, outage=OUTAGE)
    found = policy(of(headers, age), defaults, NOW)
    assert (found.stale_while_revalidate, found.stale_if_error) == (window, SIE)
    assert policy(of(headers), replace(defaults, stale_while_revalidate=7.0), NOW).stale_while_revalidate in (5, 7)


def test_an_outage_is_an_error_too() -> None:
    """An origin out of reach has failed: the configured window for outages is never below that for errors."""
    defaults = Defaults(ttl=DEFAULT, stale_while_revalidate=SWR, stale_if_error=SIE, outage=1.0)
    assert policy(of({}), defaults, NOW).outage == SIE


NOT_STORABLE = Freshness(
    ttl=0.0, storable=False, must_revalidate=True, stale_while_revalidate=0.0, stale_if_error=0.0, outage=0.0
)


@each_row("immutable", [False, True])
@each_row("cache_control", ["no-store", "private", "max-age=60, private", 'private="x", no-store'])
def test_what_must_not_be_stored(cache_control: str, *, immutable: bool) -> None:
    """RFC 9111 section 3: no-store and private keep a response out of the cache, also one of a named version."""
    metadata = of({"Cache-Control": cache_control, "Expires": IN_AN_HOUR})
    assert policy(metadata, DEFAULTS, NOW, immutable=immutable) == NOT_STORABLE


@pytest.mark.parametrize("immutable", [False, True])
def test_a_rule_forbids_to_store(*, immutable: bool) -> None:
    """`cache: false` keeps a response out of the cache, whatever headers the object has."""
    metadata = of({"Cache-Control": "public, max-age=60", CDN: "max-age=60"})
    assert policy(metadata, DEFAULTS, NOW, cache=False, immutable=immutable) == NOT_STORABLE


@each_row(
    "headers",
    [{}, {"Cache-Control": "max-age=0"}, {"Cache-Control": "no-cache"}, {"Expires": AN_HOUR_AGO}, {CDN: "max-age=1"}],
)
def test_a_pinned_version_stays_fresh(headers: dict[str, str]) -> None:
    """I25: an S3 version that the key names never changes, so it is fresh for good, whatever its age."""
    found = policy(of(headers, age=100), DEFAULTS, NOW, immutable=True)
    assert (found.ttl, found.storable) == (MAX_SECONDS, True)


@each_row(
    ("headers", "ttl"),
    [
        pytest.param({CDN: "max-age=7", "Cache-Control": "max-age=60"}, 7, id="RFC 9213 2.2: before Cache-Control"),
        pytest.param({CDN: "max-age=70", "Cache-Control": "no-store"}, 70, id="RFC 9213 2.2: which is ignored"),
        pytest.param({CDN: "max-age=7", "Expires": IN_AN_HOUR}, 7, id="RFC 9213 2.2: before Expires"),
        pytest.param({CDN: "must-revalidate", "Expires": IN_AN_HOUR}, DEFAULT, id="RFC 9213 2.2: Expires is ignored"),
        pytest.param({CDN: "foo", "Cache-Control": "max-age=60"}, DEFAULT, id="RFC 9213 2.2: valid, if unknown"),
        pytest.param({CDN: "max-age=x", "Cache-Control": "max-age=60"}, DEFAULT, id="RFC 9213 2.1: a wrong type"),
        pytest.param({CDN: "max-age=", "Cache-Control": "max-age=60"}, 60, id="RFC 9213 2.1: malformed"),
        pytest.param({CDN: "", "Cache-Control": "max-age=60"}, 60, id="RFC 9213 2.1: empty"),
        pytest.param({CDN: "max-age=60, s-maxage=7"}, 7, id="RFC 9213 2.2: precedence as in Cache-Control"),
        pytest.param({CDN: "no-cache, max-age=60"}, 0, id="RFC 9213 2.2: no-cache before max-age"),
        pytest.param({CDN: "max-age=7", SURROGATE: "max-age=60"}, 7, id="before Surrogate-Control"),
        pytest.param({CDN: "max-age=", SURROGATE: "max-age=60"}, 60, id="the next of the target list"),
        pytest.param({META_CDN: "max-age=7", SURROGATE: "max-age=60"}, 7, id="S3's user metadata"),
        pytest.param({META_CDN: "max-age=7", CDN: "max-age=60"}, 60, id="after the field itself"),
        pytest.param({META_CDN: "max-age=7", CDN: "Max-Age"}, 7, id="RFC 9213 2.1: malformed is absent"),
        pytest.param({SURROGATE: "max-age=7", "Cache-Control": "max-age=60"}, 7, id="edge-arch: before Cache-Control"),
        pytest.param({SURROGATE: "max-age=7", "Expires": IN_AN_HOUR}, 7, id="edge-arch: before Expires"),
        pytest.param({SURROGATE: 'content="ESI/1.0"', "Expires": IN_AN_HOUR}, 3600, id="edge-arch: nothing of time"),
        pytest.param({SURROGATE: "no-store-remote", "Cache-Control": "max-age=60"}, 60, id="edge-arch: not for us"),
        pytest.param({META_SURROGATE: "max-age=7", "Cache-Control": "max-age=60"}, 7, id="S3's user metadata, too"),
        pytest.param({META_SURROGATE: "max-age=7", SURROGATE: "max-age=60"}, 60, id="after the field, too"),
    ],
)
def test_targeted_fields(headers: dict[str, str], ttl: float) -> None:
    """I7: headers for CDNs and then for surrogates take precedence over all others, if they are well-formed."""
    assert policy(of(headers), DEFAULTS, NOW) == policy(of(dict(reversed(headers.items()))), DEFAULTS, NOW)
    found = policy(of(headers), DEFAULTS, NOW)
    assert (found.ttl, found.storable) == (ttl, True)


def test_age_is_taken_off_targeted_lifetimes() -> None:
    """RFC 9111 section 4.2.3 holds whichever field the lifetime came from."""
    assert policy(of({CDN: "max-age=60"}, age=20), DEFAULTS, NOW).ttl == 40
    assert policy(of({SURROGATE: "max-age=60"}, age=20), DEFAULTS, NOW).ttl == 40


@each_row(
    "headers",
    [
        pytest.param({CDN: "no-store, max-age=60"}, id="RFC 9213 2.2: no-store before max-age"),
        pytest.param({CDN: 'private="x", max-age=60'}, id="RFC 9213 2.1: private with fields"),
        pytest.param({META_CDN: "private"}, id="in S3's user metadata"),
        pytest.param({SURROGATE: "no-store, max-age=60"}, id="edge-arch: no-store"),
        pytest.param({META_SURROGATE: "no-store"}, id="edge-arch: in S3's user metadata"),
    ],
)
def test_targeted_fields_keep_a_response_out(headers: dict[str, str]) -> None:
    """An object that surrogates and CDNs must not store is not stored, even if other caches may store it."""
    assert policy(of(headers | {"Cache-Control": "max-age=60"}), DEFAULTS, NOW) == NOT_STORABLE


def test_a_surrogate_extension_is_every_stale_window() -> None:
    """Edge Architecture: `max-age=3600+600` may be used for 600 s beyond, and no longer."""
    found = policy(of({SURROGATE: "max-age=3600+600"}), DEFAULTS, NOW)
    assert found == Freshness(ttl=3600, stale_while_revalidate=600, stale_if_error=600, outage=600)


FIELD = st.none() | st.text() | st.text('max-ge=01,+?;" ') | st.sampled_from(["max-age=-1", "no-store", "s-maxage=1"])
WINDOWS = st.floats(0, 1e9)


@given(
    sent=st.fixed_dictionaries(dict.fromkeys(("Cache-Control", "Expires", CDN, SURROGATE, META_CDN), FIELD)),
    age=st.integers(0, 2**40),
    defaults=st.builds(Defaults, WINDOWS, WINDOWS, WINDOWS, WINDOWS),
    cache=st.booleans(),
    immutable=st.booleans(),
)
def test_policy_is_total(
    sent: dict[str, str | None], age: int, defaults: Defaults, *, cache: bool, immutable: bool
) -> None:
    """Any field values yield times of at least 0. An outage is an error, and an unstored response has no window."""
    metadata = of({name: value for name, value in sent.items() if value is not None}, age)
    found = policy(metadata, defaults, NOW, cache=cache, immutable=immutable)
    assert min(found.ttl, found.stale_while_revalidate, found.stale_if_error) >= 0
    assert found.outage >= found.stale_if_error
    assert found.storable or found == NOT_STORABLE
    assert cache or not found.storable
