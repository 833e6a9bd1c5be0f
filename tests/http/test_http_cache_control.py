"""Cache directives of responses: RFC 9111 section 5.2.2, in the syntaxes of RFC 9111, RFC 9213 and the W3C's note."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import cache_control, surrogate_control
from bucketfront.http.cache_control import MAX_SECONDS, CacheControl

NOTHING = CacheControl()


@each_row(
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
    """A field value has the meaning of RFC 9111. An unclear one has the more restrictive meaning."""
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


@each_row(
    ("value", "expected"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="RFC 9213 2.1: empty"),
        pytest.param("  ", None, id="RFC 8941 4.2: empty but for spaces"),
        pytest.param("max-age=60", CacheControl(max_age=60), id="RFC 9213 2.1: an integer"),
        pytest.param("no-store", CacheControl(no_store=True), id="RFC 9213 2.1: a boolean"),
        pytest.param("no-store=?1", CacheControl(no_store=True), id="RFC 8941 3.3.6: spelt out"),
        pytest.param("no-store=?0, foo", NOTHING, id="RFC 8941 3.3.6: false"),
        pytest.param('no-cache="A, B"', CacheControl(no_cache=True), id="RFC 9213 2.1: a string"),
        pytest.param("private=set-cookie", CacheControl(private=True), id="5.2.2.7: the token form"),
        pytest.param(
            "must-revalidate, proxy-revalidate, immutable, s-maxage=1, stale-while-revalidate=2, stale-if-error=3",
            CacheControl(
                must_revalidate=True,
                proxy_revalidate=True,
                immutable=True,
                s_maxage=1,
                stale_while_revalidate=2,
                stale_if_error=3,
            ),
            id="RFC 9213 2.2: what Cache-Control has",
        ),
        pytest.param("foo", NOTHING, id="RFC 9213 2.2: unknown directives are ignored, the field is not"),
        pytest.param('max-age=60;a;b=1; c="x,y"', CacheControl(max_age=60), id="RFC 9213 2.1: parameters"),
        pytest.param("no-store;a=?0", CacheControl(no_store=True), id="RFC 9213 2.1: of a boolean too"),
        pytest.param(" max-age=1 ,\tno-cache ", CacheControl(max_age=1, no_cache=True), id="RFC 8941 4.2.2: spaces"),
        pytest.param("max-age=1, max-age=60", CacheControl(max_age=60), id="RFC 8941 3.2: the last of two"),
        pytest.param("max-age=60, max-age=x", NOTHING, id="RFC 8941 3.2: the last, if of a wrong type too"),
        pytest.param("max-age=-1", CacheControl(max_age=0), id="RFC 8941 3.3.1: negative, so stale"),
        pytest.param("max-age=0060", CacheControl(max_age=60), id="RFC 8941 3.3.1: leading zeros"),
        pytest.param("max-age=999999999999999", CacheControl(max_age=MAX_SECONDS), id="RFC 8941 3.3.1: the largest"),
        # Of a wrong type: the directive is ignored.
        pytest.param("max-age", NOTHING, id="a boolean for an age"),
        pytest.param("max-age=?1", NOTHING, id="a boolean for an age, spelt out"),
        pytest.param('max-age="60"', NOTHING, id="a string for an age"),
        pytest.param("max-age=x", NOTHING, id="a token for an age"),
        pytest.param("max-age=1.5", NOTHING, id="RFC 8941 3.3.2: a decimal for an age"),
        pytest.param("max-age=:NjA=:, no-cache", CacheControl(no_cache=True), id="RFC 8941 3.3.5: a byte sequence"),
        pytest.param("max-age=(60 61;a);b, no-cache", CacheControl(no_cache=True), id="RFC 8941 3.1.1: an inner list"),
        pytest.param("max-age=( ), no-cache", CacheControl(no_cache=True), id="RFC 8941 3.1.1: an empty one"),
        pytest.param("no-store=1", NOTHING, id="an integer for a boolean"),
        pytest.param("must-revalidate=x", NOTHING, id="a token for a boolean"),
        pytest.param("no-cache=1", NOTHING, id="an integer for a boolean or string"),
        # Malformed: the field is ignored.
        pytest.param("max-age=60,", None, id="RFC 8941 4.2.2: a comma at the end"),
        pytest.param("max-age=60, ", None, id="RFC 8941 4.2.2: and a space"),
        pytest.param(",max-age=60", None, id="RFC 8941 4.2.2: an empty member"),
        pytest.param("no-store max-age=60", None, id="RFC 8941 4.2.2: no comma"),
        pytest.param("\tno-store", None, id="RFC 8941 4.2: a tab before it"),
        pytest.param("max-age=", None, id="RFC 8941 4.2.3.1: no value"),
        pytest.param("max-age= 60", None, id="RFC 8941 4.2.2: a space before the value"),
        pytest.param("max-age =60", None, id="RFC 8941 4.2.2: a space after the key"),
        pytest.param("Max-Age=60", None, id="RFC 8941 4.2.3.3: a key in upper case"),
        pytest.param("1=60", None, id="RFC 8941 4.2.3.3: a key that begins with a digit"),
        pytest.param("max-age=60s", None, id="RFC 8941 4.2.4: letters after digits"),
        pytest.param("max-age=60.", None, id="RFC 8941 4.2.4: a dot at the end"),
        pytest.param("max-age=1.2345", None, id="RFC 8941 4.2.4: too many decimals"),
        pytest.param("max-age=-", None, id="RFC 8941 4.2.4: a sign only"),
        pytest.param("max-age=1000000000000000", None, id="RFC 8941 4.2.4: 16 digits"),
        pytest.param("max-age=\u0666", None, id="RFC 8941 4.2.4: other digits"),
        pytest.param('no-cache="x, no-store', None, id="RFC 8941 4.2.5: an open string"),
        pytest.param('no-cache="\\x"', None, id="RFC 8941 4.2.5: an escape of what needs none"),
        pytest.param('no-cache="\u00e9"', None, id="RFC 8941 4.2.5: beyond ASCII"),
        pytest.param("a=:?:, no-store", None, id="RFC 8941 4.2.7: a byte sequence that is none"),
        pytest.param("no-store=?2", None, id="RFC 8941 4.2.8: a boolean that is none"),
        pytest.param("a=(1 2, no-store", None, id="RFC 8941 4.2.1.2: an open list"),
        pytest.param("a=(1(2)), no-store", None, id="RFC 8941 4.2.1.2: a list in a list"),
        pytest.param("max-age=60 ;a", None, id="RFC 8941 4.2.3.2: a space before a parameter"),
        pytest.param("max-age=60;", None, id="RFC 8941 4.2.3.2: no parameter"),
        pytest.param("max-age=60;a=", None, id="RFC 8941 4.2.3.2: a parameter without its value"),
    ],
)
def test_targeted_table(value: str | None, expected: CacheControl | None) -> None:
    """RFC 9213 section 2.1: a wrong type makes a directive void, malformed text makes the field void."""
    assert cache_control.parse_targeted(value) == expected


def bare_item(item: int | str | bool) -> str:
    if isinstance(item, bool):
        return f"?{int(item)}"
    if isinstance(item, int):
        return str(item)
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


ITEMS = (
    st.booleans()
    | st.integers(-(10**15) + 1, 10**15 - 1)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))
)


@given(
    st.dictionaries(st.sampled_from([*FLAGS, *AGES, "foo", "*x"]), ITEMS, min_size=1),
    st.lists(st.tuples(st.sampled_from(["a", "b.c"]), ITEMS), max_size=2),
)
def test_what_is_serialised_is_read_back(
    members: dict[str, int | str | bool], parameters: list[tuple[str, int]]
) -> None:
    """Every dictionary that RFC 8941 section 4.1.2 serialises is valid, and counts where the types are right."""
    tail = "".join(f";{name}={bare_item(item)}" for name, item in parameters)
    text = ", ".join(f"{name}={bare_item(item)}{tail}" for name, item in members.items())
    ages = {name: members[name] for name in AGES if isinstance(members.get(name), int)}
    flags = [name for name in FLAGS if members.get(name) is True]
    flags += [name for name in ("no-cache", "private") if isinstance(members.get(name), str)]
    assert cache_control.parse_targeted(text) == CacheControl(
        **{name.replace("-", "_"): True for name in flags},
        **{  # type: ignore[arg-type]  # of ages
            name.replace("-", "_"): min(max(0, int(age)), MAX_SECONDS)
            for name, age in ages.items()
            if not isinstance(age, bool)
        },
    )


@given(st.text('max-ge=0159", \\;?:()\t') | st.text())
def test_targeted_is_total(value: str) -> None:
    """Any text gives a value or none, with ages between 0 and 2^31."""
    parsed = cache_control.parse_targeted(value) or NOTHING
    ages = (parsed.max_age, parsed.s_maxage, parsed.stale_while_revalidate, parsed.stale_if_error)
    assert all(age is None or 0 <= age <= MAX_SECONDS for age in ages)


@each_row(
    ("value", "expected"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("max-age=3600", CacheControl(max_age=3600), id="edge-arch 2: max-age"),
        pytest.param(
            "max-age=3600+600",
            CacheControl(max_age=3600, stale_while_revalidate=600, stale_if_error=600),
            id="edge-arch 2: with an extension",
        ),
        pytest.param(
            'Max-Age="3600+600", stale-if-error=5',
            CacheControl(max_age=3600, stale_while_revalidate=600, stale_if_error=5),
            id="a window named by itself",
        ),
        pytest.param(
            f"max-age={'9' * 9000}+{'9' * 9000}",
            CacheControl(max_age=MAX_SECONDS, stale_while_revalidate=MAX_SECONDS, stale_if_error=MAX_SECONDS),
            id="1.2.2: far above the limit",
        ),
        pytest.param("max-age=60+x", CacheControl(max_age=0), id="4.2.1: an invalid extension"),
        pytest.param("max-age=+60", CacheControl(max_age=0), id="4.2.1: an invalid age"),
        pytest.param("max-age=1+2+3", CacheControl(max_age=0), id="4.2.1: two extensions"),
        pytest.param("max-age=1, max-age=60+60", CacheControl(max_age=1), id="4.2.1: the first of two"),
        pytest.param("no-store", CacheControl(no_store=True), id="edge-arch 2: no-store"),
        pytest.param("no-store-remote", None, id="edge-arch 2: no-store-remote is for others"),
        pytest.param("no-store-remote, max-age=1", CacheControl(max_age=1), id="edge-arch 2: beside others"),
        pytest.param('content="ESI/1.0"', None, id="edge-arch 2: content says nothing of storing"),
        pytest.param('content="a;b, no-store", max-age=1', CacheControl(max_age=1), id="quoted text"),
        pytest.param("no-store;abc, max-age=1", CacheControl(max_age=1), id="edge-arch 2: for another surrogate"),
        pytest.param("max-age=1;abc", None, id="edge-arch 2: for another one only"),
        pytest.param('private="a;b"', CacheControl(private=True), id="a quoted semicolon"),
        pytest.param('foo="x, no-store', CacheControl(no_store=True), id="an open quote hides nothing"),
    ],
)
def test_surrogate_table(value: str | None, expected: CacheControl | None) -> None:
    """Surrogate-Control has the meaning of the W3C's note, and errors are handled as in Cache-Control."""
    assert surrogate_control.parse(value) == expected


@given(st.text('max-ge=0159", \\;+') | st.text())
def test_surrogate_is_total(value: str) -> None:
    """Any text gives a value or none, with ages between 0 and 2^31."""
    parsed = surrogate_control.parse(value) or NOTHING
    ages = (parsed.max_age, parsed.s_maxage, parsed.stale_while_revalidate, parsed.stale_if_error)
    assert all(age is None or 0 <= age <= MAX_SECONDS for age in ages)


@each_row("piece", ['a="', '\\"', '"\\', "a;", "a=(1 ", "a=1;b ", "a=:", "0", ",", " ", "a, ", "1.", "max-age=1+"])
@each_row("tail", ["", "\x00", '"'])
def test_parsing_takes_time_in_proportion_to_the_text(piece: str, tail: str) -> None:
    """I22: no text, however it repeats, is looked at again and again: much of it ends at once."""
    text = f'a="{piece * (200_000 // len(piece))}{tail}'
    for value in (text, text[3:]):
        cache_control.parse(value)
        cache_control.parse_targeted(value)
        surrogate_control.parse(value)
