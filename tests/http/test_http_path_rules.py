"""The operator's rules per path, the globs that match them, and the rules for HLS and DASH."""

import re
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http.glob import Glob
from bucketfront.http.path_rules import MEDIA_RULES, REMEMBERED_PATHS, Rules, Ruling


@each_row(
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


RULES = Rules(
    [
        ("live/*.m3u8", Ruling(ttl=1.0)),
        ("*.m3u8", Ruling(ttl=2.0, negative_ttl=0.0)),
        ("/vod/**", Ruling(ttl=3600.0, cache=False, headers=(("X-A", "1"), ("X-B", None)))),
        ("**/x.m3u8", Ruling(ttl=4.0, cache=True, negative_ttl=5.0, headers=(("X-C", "2"),))),
    ]
)


@each_row(
    ("path", "expected"),
    [
        pytest.param("/live/a.m3u8", Ruling(ttl=1.0, negative_ttl=0.0), id="one rule adds what another leaves open"),
        pytest.param("live/a.m3u8", Ruling(ttl=1.0, negative_ttl=0.0), id="a leading slash means nothing"),
        pytest.param(
            "/live/x.m3u8",
            Ruling(ttl=1.0, negative_ttl=0.0, cache=True, headers=(("X-C", "2"),)),
            id="0 is a setting",
        ),
        pytest.param(
            "/vod/x.m3u8",
            Ruling(ttl=2.0, negative_ttl=0.0, cache=False, headers=(("X-A", "1"), ("X-B", None))),
            id="False is a setting, and headers are not merged",
        ),
        pytest.param("/x.mp4", Ruling(), id="no rule"),
    ],
)
def test_the_first_rule_that_has_a_setting_counts(path: str, expected: Ruling) -> None:
    """Each setting is the first matching rule's that has it; without one it is None."""
    assert RULES.ruling(path) == expected


def test_without_rules_nothing_is_set() -> None:
    """No rules leave every setting to the configured default."""
    assert Rules([]).ruling("/x") == Ruling()


SECONDS = st.none() | st.sampled_from([0.0, 1.0, 2.5])
RULINGS = st.builds(
    Ruling,
    ttl=SECONDS,
    negative_ttl=SECONDS,
    stale_while_revalidate=SECONDS,
    stale_if_error=SECONDS,
    cache=st.none() | st.booleans(),
    headers=st.none() | st.sampled_from([(), (("X-A", "1"),), (("X-A", None), ("X-B", ""))]),
    cache_control=st.none() | st.sampled_from(["", "no-cache"]),
)
PATTERNS = st.sampled_from(["*", "*.ts", "live/*", "/a.ts", "**/live/**", "nothing"])
PATHS = st.sampled_from(["a.ts", "/a.ts", "live/a.ts", "/x/live/y/a.m3u8", "", "/"])


@given(st.lists(st.tuples(PATTERNS, RULINGS), max_size=6), st.lists(PATHS, min_size=1, max_size=6))
def test_a_ruling_is_the_fold_of_the_rules_that_match(rules: list[tuple[str, Ruling]], paths: list[str]) -> None:
    """For any rules, each setting is the first that is not None, also when it is read a second time."""
    compiled = Rules(rules)
    for path in paths:
        expected: dict[str, object] = {}
        for pattern, ruling in rules:
            if not model(pattern).fullmatch(path.removeprefix("/")):
                continue
            for name, value in asdict(ruling).items():
                if expected.get(name) is None:
                    expected[name] = value
        nothing_set = dict.fromkeys(asdict(Ruling()))
        assert asdict(compiled.ruling(path)) == nothing_set | expected
        assert compiled.ruling(path) == compiled.ruling(path)


def test_what_is_remembered_is_bounded() -> None:
    """I19: rulings of the last paths are kept, not of all: the first path's is made anew after enough others."""
    rules = Rules([("*", Ruling(ttl=1.0)), ("**", Ruling(cache=False))])
    first = rules.ruling("/first")
    assert rules.ruling("/first") is first
    for number in range(REMEMBERED_PATHS):
        rules.ruling(f"/{number}")
    assert rules.ruling("/first") is not first
    assert rules.ruling("/first") == first


PLAYLIST = Ruling(ttl=2.0, negative_ttl=1.0, stale_while_revalidate=0.0)
SEGMENT = Ruling(ttl=86400.0, negative_ttl=1.0)


@each_row(
    ("path", "expected"),
    [
        pytest.param("/live/index.m3u8", PLAYLIST, id="RFC 8216 section 4: a playlist"),
        pytest.param("/live/manifest.mpd", PLAYLIST, id="ISO/IEC 23009-1: a presentation description"),
        pytest.param("/live/720p/00017.ts", SEGMENT, id="RFC 8216 section 3.2: MPEG-2"),
        pytest.param("/live/720p/init.m4s", SEGMENT, id="RFC 8216 section 3.3: fragmented MPEG-4"),
        pytest.param("/live/17.m4f", SEGMENT, id="fragmented MPEG-4"),
        pytest.param("/live/17.cmfv", SEGMENT, id="CMAF: video"),
        pytest.param("/live/17.cmfa", SEGMENT, id="CMAF: audio"),
        pytest.param("/live/17.cmft", SEGMENT, id="CMAF: text"),
        pytest.param("/films/a.mp4", Ruling(), id="any file may be an mp4"),
        pytest.param("/films/a.vtt", Ruling(), id="any subtitles may be vtt"),
        pytest.param("/ts", Ruling(), id="no ending"),
    ],
)
def test_media_rules(path: str, expected: Ruling) -> None:
    """Playlists are fresh for 2 s, segments for a day, and a 404 at the live edge for 1 s; other files by default."""
    assert Rules(MEDIA_RULES).ruling(path) == expected


def test_the_operators_rules_come_before_those_for_media() -> None:
    """A rule of the operator's changes one setting of the media rules and leaves the others."""
    rules = Rules([("live/**", Ruling(stale_if_error=10.0, stale_while_revalidate=1.0)), *MEDIA_RULES])
    assert rules.ruling("/live/a.m3u8") == Ruling(
        ttl=2.0, negative_ttl=1.0, stale_while_revalidate=1.0, stale_if_error=10.0
    )
