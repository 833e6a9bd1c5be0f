"""Freshness: RFC 9111 section 4.2, RFC 5861, and the rules per path."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http import dates
from proxy.http.cache_control import MAX_SECONDS
from proxy.http.freshness import Freshness, Glob, TtlRules, policy
from proxy.http.metadata import Metadata

NOW = 1_700_000_000.0
IN_AN_HOUR, AN_HOUR_AGO = dates.format(NOW + 3600), dates.format(NOW - 3600)
DEFAULT, SWR, SIE = 300.0, 60.0, 86400.0


def fresh(cache_control: str | None = None, expires: str | None = None, age: int = 0) -> Freshness:
    sent = (("Cache-Control", cache_control), ("Expires", expires))
    headers = tuple((name, value) for name, value in sent if value is not None)
    metadata = Metadata(etag='"v1"', size=1, headers=headers, age=age)
    return policy(metadata, default_ttl=DEFAULT, stale_while_revalidate=SWR, stale_if_error=SIE, now=NOW)


@pytest.mark.parametrize(
    ("cache_control", "expires", "age", "ttl"),
    [
        pytest.param(None, None, 0, DEFAULT, id="nothing said: the default"),
        pytest.param("public", None, 0, DEFAULT, id="nothing said of time: the default"),
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


@pytest.mark.parametrize(
    ("cache_control", "while_revalidate", "if_error", "must_revalidate"),
    [
        pytest.param(None, SWR, SIE, False, id="the configured windows"),
        pytest.param("max-age=60", SWR, SIE, False, id="beside an age too"),
        pytest.param("stale-while-revalidate=5", 5, SIE, False, id="RFC 5861 section 3"),
        pytest.param("stale-if-error=7", SWR, 7, False, id="RFC 5861 section 4"),
        pytest.param("stale-while-revalidate=0, stale-if-error=0", 0, 0, False, id="RFC 5861: none"),
        pytest.param("must-revalidate, stale-if-error=7", 0, 0, True, id="5.2.2.2: must-revalidate"),
        pytest.param("proxy-revalidate", 0, 0, True, id="5.2.2.8: proxy-revalidate"),
        pytest.param("no-cache, stale-while-revalidate=5", 0, 0, True, id="5.2.2.4: no-cache"),
        pytest.param("s-maxage=60", 0, 0, False, id="5.2.2.10: s-maxage allows no stale answer"),
        pytest.param("s-maxage=60, stale-while-revalidate=5", 5, 0, False, id="5.2.2.10: unless the object does"),
    ],
)
def test_stale_windows(
    cache_control: str | None, while_revalidate: float, if_error: float, *, must_revalidate: bool
) -> None:
    """I7: how long a stale answer may be used, by the object's word first."""
    found = fresh(cache_control)
    assert found.stale_while_revalidate == while_revalidate
    assert found.stale_if_error == if_error
    assert found.must_revalidate is must_revalidate
    assert found.storable


@pytest.mark.parametrize("cache_control", ["no-store", "private", "max-age=60, private", 'private="x", no-store'])
def test_what_must_not_be_stored(cache_control: str) -> None:
    """RFC 9111 section 3: no-store and private keep an answer out, whatever else is said."""
    found = fresh(cache_control, IN_AN_HOUR)
    assert not found.storable
    assert (found.ttl, found.stale_while_revalidate, found.stale_if_error) == (0, 0, 0)


@given(st.text(), st.none() | st.text(), st.integers(0, 2**40))
def test_policy_is_total(cache_control: str, expires: str | None, age: int) -> None:
    """Any field values give times that are not negative."""
    found = fresh(cache_control, expires, age)
    assert min(found.ttl, found.stale_while_revalidate, found.stale_if_error) >= 0


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.m3u8", ["/a.m3u8", "/live/x/a.m3u8", "a.m3u8", "/.m3u8"], ["/a.m3u8/b", "/a.m3u", "/a.M3U8"]),
        ("**/*.m3u8", ["/a.m3u8", "/live/x/a.m3u8"], ["/a.m3u8/b", "/am3u8"]),
        ("/*.m3u8", ["/a.m3u8"], ["/live/a.m3u8"]),
        ("live/*.ts", ["/live/1.ts", "/live/.ts"], ["/live/a/1.ts", "/x/live/1.ts", "/live/1.tsx"]),
        ("/live/**", ["/live/", "/live/a", "/live/a/b"], ["/live", "/xlive/a", "/a/live/b"]),
        ("live/**/1.ts", ["/live/1.ts", "/live/a/1.ts", "/live/a/b/1.ts"], ["/live/a1.ts", "/live1.ts"]),
        ("**/live/**/*.ts", ["/live/1.ts", "/x/y/live/z/1.ts"], ["/xlive/1.ts", "/live.ts"]),
        ("**/**/a", ["/a", "/x/a", "/x/y/a"], ["/xa"]),
        ("a**/b", ["/a/b", "/ax/y/b"], ["/ab", "/x/a/b"]),
        ("a**z", ["/az", "/x/az", "/a1z"], ["/a", "/xaz"]),
        ("/a**z", ["/az", "/a/b/z"], ["/x/az", "/a/b"]),
        ("/v?/a", ["/v1/a", "/v\u00e9/a"], ["/v/a", "/v12/a", "/v//a"]),
        ("**", ["/", "/a", "/a/b"], []),
        ("*", ["/", "/a", "/a/b"], []),
        ("/*", ["/", "/a"], ["/a/b"]),
        ("a.b", ["/a.b", "/x/a.b"], ["/axb"]),
        ("[ab]", ["/[ab]"], ["/a"]),
        ("//a", ["//a"], ["/a", "///a"]),
    ],
)
def test_glob(pattern: str, matching: list[str], other: list[str]) -> None:
    """`*` and `?` stop at a slash, `**` does not, and a pattern without a slash matches in every folder."""
    glob = Glob(pattern)
    assert [path for path in [*matching, *other] if glob.matches(path)] == matching


def model(pattern: str) -> re.Pattern[str]:
    """The glob as a backtracking regex: right, but not fit for paths that clients choose."""
    rooted = pattern.removeprefix("/")
    if "/" not in pattern:
        rooted = f"**/{rooted}"
    parts = re.split(r"((?:(?<=/)|^)\*\*+/|\*\*+|\*|\?)", rooted)
    regex = {"": "", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(
            regex[part]
            if part in regex
            else "(?:.*/)?"
            if re.fullmatch(r"\*\*+/", part)
            else ".*"
            if part.startswith("**")
            else re.escape(part)
            for part in parts
        ),
        re.DOTALL,
    )


@example("**/b", "/ab")
@example("a***/b", "/a/b")
@example("**/**/*a", "/x/a")
@given(st.text("*?/ab.", max_size=9), st.text("/ab.", max_size=12))
def test_glob_agrees_with_a_regex(pattern: str, path: str) -> None:
    """On short patterns and paths the glob matches exactly what its regex would."""
    expected = model(pattern).fullmatch(path.removeprefix("/")) is not None
    assert Glob(pattern).matches(path) is expected


def test_glob_takes_one_step_per_character() -> None:
    """I22: a pattern of many stars costs the longest path no more than one of few, so this ends at once."""
    assert not Glob("**a" * 30 + "b").matches("/" + "a" * 1024)
    assert Glob("**a" * 30).matches("/" + "a" * 1024)


def test_first_matching_rule_wins() -> None:
    """DESIGN 3.11: the rules are asked in order; a path that none matches has no rule."""
    rules = TtlRules([("live/*.m3u8", 1.0), ("*.m3u8", 2.0), ("/vod/**", 3600.0), ("**/x.m3u8", 4.0)])
    assert rules.ttl("/live/x.m3u8") == 1.0
    assert rules.ttl("/vod/x.m3u8") == 2.0
    assert rules.ttl("/vod/x.mp4") == 3600.0
    assert rules.ttl("/x.mp4") is None
    assert TtlRules([]).ttl("/x") is None
