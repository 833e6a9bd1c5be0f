"""Cache-Control of responses: RFC 9111 section 5.2.2."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http import cache_control
from proxy.http.cache_control import MAX_SECONDS, CacheControl

NOTHING = CacheControl()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, NOTHING, id="absent"),
        pytest.param("", NOTHING, id="empty"),
        pytest.param("public, foo=bar", NOTHING, id="5.2.3: unknown directives are ignored"),
        pytest.param("max-age=60", CacheControl(max_age=60), id="5.2.2.1"),
        pytest.param("max-age=0", CacheControl(max_age=0), id="5.2.2.1: zero"),
        pytest.param("s-maxage=60", CacheControl(s_maxage=60), id="5.2.2.10"),
        pytest.param("no-store", CacheControl(no_store=True), id="5.2.2.5"),
        pytest.param("no-cache", CacheControl(no_cache=True), id="5.2.2.4"),
        pytest.param("private", CacheControl(private=True), id="5.2.2.7"),
        pytest.param("must-revalidate", CacheControl(must_revalidate=True), id="5.2.2.2"),
        pytest.param("proxy-revalidate", CacheControl(proxy_revalidate=True), id="5.2.2.8"),
        pytest.param("immutable", CacheControl(immutable=True), id="RFC 8246"),
        pytest.param(
            "stale-while-revalidate=5, stale-if-error=7",
            CacheControl(stale_while_revalidate=5, stale_if_error=7),
            id="RFC 5861",
        ),
        pytest.param("MAX-AGE=60, No-Store", CacheControl(max_age=60, no_store=True), id="5.2: any case"),
        pytest.param("\tmax-age=60 ,, no-cache,", CacheControl(max_age=60, no_cache=True), id="empty elements"),
        pytest.param('max-age="60"', CacheControl(max_age=60), id="5.2: a quoted argument"),
        pytest.param('max-age="6\\0"', CacheControl(max_age=60), id="5.6.4 of RFC 9110: a quoted pair"),
        pytest.param('no-cache="Set-Cookie"', CacheControl(no_cache=True), id="5.2.2.4: with fields"),
        pytest.param('private="a, b", max-age=1', CacheControl(private=True, max_age=1), id="a quoted comma"),
        pytest.param('foo="no-store, \\", private", max-age=1', CacheControl(max_age=1), id="quoted text"),
        pytest.param('foo="x, no-store', CacheControl(no_store=True), id="an open quote hides nothing"),
        pytest.param('max-age="60, private', CacheControl(max_age=0, private=True), id="an open quoted age"),
        pytest.param('max-age=60"', CacheControl(max_age=0), id="a stray quote"),
        pytest.param("no-store=yes", CacheControl(no_store=True), id="an argument where none belongs"),
        pytest.param("max-age=1, max-age=60", CacheControl(max_age=1), id="4.2.1: the first of two"),
        pytest.param("max-age=60, max-age=1", CacheControl(max_age=60), id="4.2.1: the first, if larger too"),
        pytest.param("max-age=x, max-age=60", CacheControl(max_age=0), id="4.2.1: the first, if invalid too"),
        pytest.param("max-age", CacheControl(max_age=0), id="4.2.1: no argument"),
        pytest.param("max-age=", CacheControl(max_age=0), id="4.2.1: an empty argument"),
        pytest.param("max-age=-1", CacheControl(max_age=0), id="4.2.1: negative"),
        pytest.param("max-age=1.5", CacheControl(max_age=0), id="4.2.1: a fraction"),
        pytest.param("max-age= 60", CacheControl(max_age=0), id="4.2.1: a space"),
        pytest.param("max-age=\u0666", CacheControl(max_age=0), id="4.2.1: other digits"),
        pytest.param("max-age='60'", CacheControl(max_age=0), id="4.2.1: wrong quotes"),
        pytest.param('max-age="', CacheControl(max_age=0), id="4.2.1: half a quote"),
        pytest.param("stale-if-error=x", CacheControl(stale_if_error=0), id="an invalid window is none"),
        pytest.param(f"max-age={MAX_SECONDS}", CacheControl(max_age=MAX_SECONDS), id="1.2.2: the limit"),
        pytest.param(f"max-age={MAX_SECONDS + 1}", CacheControl(max_age=MAX_SECONDS), id="1.2.2: above it"),
        pytest.param(f"max-age={'9' * 9000}", CacheControl(max_age=MAX_SECONDS), id="1.2.2: far above it"),
        pytest.param(f"max-age={'0' * 9000}7", CacheControl(max_age=7), id="leading zeros"),
    ],
)
def test_table(value: str | None, expected: CacheControl) -> None:
    """A field value means what RFC 9111 says, in doubt the more restrictive."""
    assert cache_control.parse(value) == expected


FLAGS = ["no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate", "immutable"]
AGES = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"]


@given(
    st.sets(st.sampled_from(FLAGS)),
    st.dictionaries(st.sampled_from(AGES), st.integers(0, MAX_SECONDS)),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter(flags: set[str], ages: dict[str, int], random: Random) -> None:
    """Every set of well-formed directives is read back in full, in whatever order it comes."""
    directives = [*sorted(flags), *(f"{name}={seconds}" for name, seconds in ages.items())]
    random.shuffle(directives)
    parsed = cache_control.parse(", ".join(directives))
    assert parsed == CacheControl(
        **{name.replace("-", "_"): True for name in flags},
        **{name.replace("-", "_"): seconds for name, seconds in ages.items()},  # type: ignore[arg-type]  # of ages
    )


@given(st.text('max-ge=0159", \\\t') | st.text())
def test_is_total(value: str) -> None:
    """Any text gives a value, with ages between 0 and 2^31."""
    parsed = cache_control.parse(value)
    ages = (parsed.max_age, parsed.s_maxage, parsed.stale_while_revalidate, parsed.stale_if_error)
    assert all(age is None or 0 <= age <= MAX_SECONDS for age in ages)


NOISE = st.text("abx=, \\")


@given(NOISE, st.sampled_from(["", '"']), NOISE, st.sampled_from(["no-store", "private", "no-cache"]))
def test_nothing_before_it_hides_a_restriction(noise: str, quote: str, more: str, directive: str) -> None:
    """A restriction is seen after any text, an open quote included."""
    parsed = cache_control.parse(f"{noise}{quote}{more}, {directive}")
    assert getattr(parsed, directive.replace("-", "_"))
