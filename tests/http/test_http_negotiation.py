"""Proactive negotiation: RFC 9110 section 12."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import negotiation

ALL = ("br", "zstd", "gzip")


@each_row(
    ("header", "offered", "expected"),
    [
        # What clients send
        pytest.param("gzip, deflate, br, zstd", ALL, "br", id="Chrome, Firefox: the server's order"),
        pytest.param("gzip, deflate, br, zstd", ("gzip", "br"), "gzip", id="the same, another order"),
        pytest.param("gzip, deflate, br", ("zstd", "gzip"), "gzip", id="Safari: zstd is not named"),
        pytest.param("identity;q=1, *;q=0", ALL, None, id="Chrome's media element"),
        pytest.param("identity", ALL, None, id="Python's urllib"),
        # 12.5.3: none
        pytest.param(None, ALL, None, id="12.5.3: an absent field is taken for identity"),
        pytest.param("", ALL, None, id="12.5.3: an empty field asks for identity"),
        pytest.param(" \t,,", ALL, None, id="5.6.1.2: a list of nothing"),
        pytest.param("gzip", (), None, id="nothing offered"),
        pytest.param("deflate, compress", ALL, None, id="12.5.3: nothing in common"),
        # 12.4.2: weights
        pytest.param("br;q=0.5, gzip;q=0.8", ALL, "gzip", id="12.4.2: the highest weight wins"),
        pytest.param("br;q=0.5, gzip;q=0.50", ALL, "br", id="12.4.2: equal weights, the server's order"),
        pytest.param("gzip;q=0.999, br", ALL, "br", id="12.4.2: 1 where there is no weight"),
        pytest.param("gzip;q=0.001", ALL, "gzip", id="12.4.2: the least weight"),
        pytest.param("gzip;q=0", ALL, None, id="12.4.2: 0 is not acceptable"),
        pytest.param("gzip;q=0.", ALL, None, id="12.4.2: 0 with a dot"),
        pytest.param("gzip;q=0.000", ALL, None, id="12.4.2: 0 with three digits"),
        pytest.param("gzip;q=1.000", ALL, "gzip", id="12.4.2: 1 with three digits"),
        pytest.param("gzip;Q=0, br", ("gzip",), None, id="12.4.2: the parameter in any case"),
        pytest.param("gzip \t; \tq=0 , br", ("gzip",), None, id="12.4.2: spaces around the semicolon"),
        # 12.5.3: the wildcard
        pytest.param("*", ALL, "br", id="12.5.3: any"),
        pytest.param("br;q=0, *", ALL, "zstd", id="12.5.3: those not named"),
        pytest.param("gzip, *;q=0", ALL, "gzip", id="12.5.3: no other"),
        pytest.param("*;q=0", ALL, None, id="12.5.3: none at all"),
        pytest.param("br;q=0.5, *;q=0.8", ("br", "gzip"), "gzip", id="12.5.3: the weight of the wildcard"),
        # 12.5.3: identity
        pytest.param("gzip;q=0.5, identity", ALL, None, id="12.5.3: identity is liked better"),
        pytest.param("gzip;q=0.5, identity;q=0.5", ALL, "gzip", id="12.5.3: identity is liked as well"),
        pytest.param("gzip, identity;q=0", ALL, "gzip", id="12.5.3: identity is refused"),
        pytest.param("br;q=0.1, gzip;q=0.9, identity;q=0.5", ALL, "gzip", id="12.5.3: identity in between"),
        # 8.4.1
        pytest.param("GZip", ALL, "gzip", id="8.4.1: any case"),
        pytest.param("x-gzip", ALL, "gzip", id="8.4.1.3: its old name"),
        pytest.param("x-gzip;q=0, gzip", ALL, None, id="named twice: the lower weight"),
        pytest.param("gzip, gzip;q=0", ALL, None, id="named twice, the other way round"),
        # Outside the grammar: ignored
        pytest.param("gzip;q=2", ALL, None, id="12.4.2: a weight above 1"),
        pytest.param("gzip;q=1.001", ALL, None, id="12.4.2: a little above 1"),
        pytest.param("gzip;q=-0.5", ALL, None, id="12.4.2: below 0"),
        pytest.param("gzip;q=0.1234", ALL, None, id="12.4.2: four digits"),
        pytest.param("gzip;q=.5", ALL, None, id="12.4.2: no digit before the dot"),
        pytest.param("gzip;q=1e0", ALL, None, id="12.4.2: an exponent"),
        pytest.param('gzip;q="1"', ALL, None, id="12.4.2: quotes"),
        pytest.param("gzip;q= 1", ALL, None, id="12.4.2: a space"),
        pytest.param("gzip;q=\u0661", ALL, None, id="12.4.2: other digits"),
        pytest.param("gzip;q=", ALL, None, id="12.4.2: no weight"),
        pytest.param("gzip;level=9", ALL, None, id="12.5.3: codings have no parameters"),
        pytest.param("gzip;q=1;q=0.5", ALL, None, id="12.5.3: two weights"),
        pytest.param("gzip br", ALL, None, id="5.6.1: no comma"),
        pytest.param("br;q=x, gzip", ALL, "gzip", id="the elements beside it count"),
    ],
)
def test_codings(header: str | None, offered: tuple[str, ...], expected: str | None) -> None:
    """An Accept-Encoding chooses as RFC 9110 requires, and identity if it is unclear."""
    assert negotiation.coding(header, offered) == expected


def test_a_thousand_characters_are_read_and_one_more_is_not() -> None:
    """I22: a longer header counts as absent."""
    assert negotiation.coding("gzip".ljust(1000, ","), ALL) == "gzip"
    assert negotiation.coding("gzip".ljust(1001, ","), ALL) is None
    assert negotiation.prefers_html("text/html".ljust(1000, ","))
    assert not negotiation.prefers_html("text/html".ljust(1001, ","))


NAMES = ("br", "zstd", "gzip", "deflate", "identity", "*")


def model(weights: dict[str, int], offered: list[str]) -> str | None:
    """Section 12.5.3 over weights in thousandths: filter, then rank."""
    if "*" in weights:
        weights = {name: weights["*"] for name in offered if name != "identity"} | weights
    acceptable = [name for name in offered if weights.get(name, 0) > 0]
    ranked = sorted(acceptable, key=lambda name: (-weights[name], offered.index(name)))
    return ranked[0] if ranked and weights[ranked[0]] >= weights.get("identity", 0) else None


def qvalue(thousandths: int) -> str:
    return f"{thousandths // 1000}.{thousandths % 1000:03}"


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0, 1, 500, 501, 999, 1000]) | st.integers(0, 1000)),
    st.lists(st.sampled_from(ALL), unique=True),
    st.sampled_from([", ", ",", "\t,,  "]),
    st.sampled_from([";q=", " ; Q="]),
    st.randoms(use_true_random=False),
)
def test_every_list_is_ranked(
    weights: dict[str, int], offered: list[str], comma: str, semicolon: str, random: Random
) -> None:
    """Whatever the weights, their order and their spelling, the choice is the model's."""
    elements = [f"{name}{semicolon}{qvalue(weight)}" for name, weight in weights.items()]
    random.shuffle(elements)
    assert negotiation.coding(comma.join(elements), offered) == model(weights, offered)


NOISE = st.text('gzipbr*;q=01., "\\/text', max_size=200) | st.text(max_size=200)


@given(NOISE, NOISE)
def test_what_is_refused_is_never_chosen(before: str, after: str) -> None:
    """Any text gives None or a coding on offer, and never one with the weight 0."""
    assert negotiation.coding(before, ALL) in {None, *ALL}
    assert negotiation.coding(f"{before},gzip;q=0,{after}", ("gzip",)) is None


@each_row(
    ("header", "expected"),
    [
        # Browsers that go to a page
        pytest.param(
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
            "application/signed-exchange;v=b3;q=0.7",
            True,
            id="Chrome",
        ),
        pytest.param("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True, id="Firefox, Safari"),
        pytest.param(
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,"
            "*/*;q=0.8",
            True,
            id="Firefox 128",
        ),
        pytest.param("text/html, application/xhtml+xml, image/jxr, */*", True, id="the old Edge: html like any"),
        # Browsers that fetch for a page
        pytest.param("*/*", False, id="fetch, curl, Chrome's video and script"),
        pytest.param("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", False, id="Chrome's img"),
        pytest.param(
            "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", False, id="Firefox's img"
        ),
        pytest.param(
            "video/webm,video/ogg,video/*;q=0.9,application/ogg;q=0.7,audio/*;q=0.6,*/*;q=0.5",
            False,
            id="Firefox's video",
        ),
        pytest.param(
            "image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", False, id="Safari's img"
        ),
        pytest.param("text/css,*/*;q=0.1", False, id="a style sheet"),
        pytest.param("application/json, text/plain, */*", False, id="axios"),
        pytest.param("application/json, text/javascript, */*; q=0.01", False, id="jQuery"),
        pytest.param("text/event-stream", False, id="EventSource"),
        pytest.param(None, False, id="12.5.1: an absent field"),
        pytest.param("", False, id="12.5.1: an empty field"),
        # 12.5.1: what covers HTML
        pytest.param("text/html", True, id="12.5.1: html"),
        pytest.param("TEXT/Html", True, id="8.3.1: any case"),
        pytest.param("text/*", True, id="12.5.1: all text"),
        pytest.param("application/xhtml+xml", True, id="xhtml stands for html"),
        pytest.param("text/html;q=0", False, id="12.4.2: html is refused"),
        pytest.param("text/html;q=0, text/*", False, id="12.5.1: the more specific range counts"),
        pytest.param("text/html;q=0, application/xhtml+xml", False, id="xhtml stands for no html that is refused"),
        pytest.param("text/html;charset=utf-8;q=0.5", True, id="12.5.1: a parameter before the weight"),
        pytest.param('text/html;q=0;x="a;b"', False, id="12.5.1: a parameter behind the weight"),
        pytest.param("text/html;level=1, text/html;q=0", True, id="12.5.1: one of its forms will do"),
        # 12.5.1: against JSON
        pytest.param("text/html, application/json", True, id="12.5.1: as good as json"),
        pytest.param("text/html;q=0.9, application/json", False, id="12.5.1: json is liked better"),
        pytest.param("text/html;q=0.9, application/*", False, id="12.5.1: json by its family"),
        pytest.param("text/html;q=0.9, */*", False, id="12.5.1: json by anything"),
        pytest.param(
            "text/html;q=0.5, application/json;q=0.4, */*", True, id="12.5.1: json's own weight, not that of */*"
        ),
        pytest.param("text/html;q=0.5, application/*;q=0.4, */*", True, id="12.5.1: its family's, not that of */*"),
        pytest.param("text/html;q=0.5, application/json, application/*;q=0.1", False, id="12.5.1: its own first"),
        # Outside the grammar: ignored
        pytest.param("text/html;q=2", False, id="12.4.2: a weight above 1"),
        pytest.param("text/html;q=0.5;q=1", False, id="two weights"),
        pytest.param("text/html;charset", False, id="5.6.6: half a parameter"),
        pytest.param("html", False, id="12.5.1: half a type"),
        pytest.param("text/html;q=x, application/json;q=x", False, id="neither is named"),
        pytest.param("application/json;q=x, text/html;q=0.1", True, id="the element beside it counts"),
    ],
)
def test_errors_are_pages_for_those_who_ask_for_html(header: str | None, expected: bool) -> None:
    """An Accept gets an error as a page if it names HTML and likes it no less than JSON."""
    assert negotiation.prefers_html(header) is expected


@given(NOISE, st.integers(0, 1000), st.integers(0, 1000))
def test_the_heavier_of_html_and_json_wins(noise: str, html: int, json: int) -> None:
    """Any text yields a result, and only the types and their two weights count."""
    negotiation.prefers_html(noise)
    header = f"image/*, application/json;q={qvalue(json)}, */*;q=0.3, text/html;q={qvalue(html)}"
    assert negotiation.prefers_html(header) is (html > 0 and html >= json)
