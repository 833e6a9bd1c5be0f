"""The configuration: its grammar, its checks, its loading and its messages."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from rows import each_row, examples

from bucketfront.config.loader import MAX_FILE_BYTES, load, load_with_places
from bucketfront.config.mount_settings import SiteSettings
from bucketfront.config.origin_settings import ProfileCredentials, StaticCredentials
from bucketfront.config.problems import MAX_PROBLEMS
from bucketfront.config.quantities import (
    GIB,
    KIB,
    MAX_DURATION_S,
    MAX_SIZE_BYTES,
    MIB,
    TIB,
    Percent,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_flag,
    parse_percent,
    parse_share,
    parse_size,
    parse_whole_number,
)
from bucketfront.config.settings import Settings
from bucketfront.errors import ConfigError, UnusableSetting

ROOT = Path(__file__).parent.parent
MOUNTS = "mounts: [{path: /, bucket: media}]\n"
SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"

# The documented defaults, without the keys that have no default and those whose default is "none". Why block_size
# is 32KiB: docs/decisions/0003-blocks-and-block-sets.md.
DOCUMENTED = """
server: {host: 127.0.0.1, port: 8080, timing: false}
admin: {host: 127.0.0.1, port: 8081}
origin:
  endpoint_url: null
  region: us-east-1
  addressing_style: auto
  credentials: default
  request_payer: false
  expected_bucket_owner: null
  create_bucket: false
  connect_timeout: 3s
  read_timeout: 20s
  max_connections: 64
  part_size: 8MiB
  parallel_parts: 8
mounts:
  - path: /
    bucket: media
    prefix: ""
    methods: [GET, HEAD]
    versions: false
    response_overrides: false
    query: s3
    guess_types: true
    inline_types: null
    precompressed: []
cache:
  dir: ./cache
  max_size: 10GiB
  min_free: 5%
  idle_timeout: 1h
  block_size: 32KiB
  memory: 64MiB
  after_disconnect: auto
  read_ahead_max: 64MiB
freshness:
  default_ttl: 5m
  negative_ttl: 10s
  stale_while_revalidate: null
  stale_if_error: 1d
  outage: null
  honor_client_no_cache: false
  media_rules: true
  rules: []
cors:
  allow_origins: ["*"]
  allow_headers: ["*"]
  expose_headers: ["*", Accept-Ranges, Age, Cache-Status, Content-Encoding, Content-Length, Content-Range, Date, ETag,
                   Location, Server-Timing]
  allow_credentials: false
  max_age: 2h
  timing_allow_origins: []
  resource_policy: null
access_log: {format: json, path: "-"}
"""

LOG = "BUCKETFRONT_ACCESS_LOG__"
POINT = "us-west-2:123456789012:accesspoint/mine"
OUTPOST = "us-west-2:123456789012:outpost/op-01234567890123456/accesspoint/mine"
TAB = "not valid YAML: found character '\\t' that cannot start any token; indent with spaces"

Loads = Callable[..., Settings]
Refuses = Callable[..., str]


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    monkeypatch.chdir(tmp_path)

    def run(text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
        octets = text.encode() if isinstance(text, str) else text
        Path("proxy.yaml").write_bytes(octets)
        return load(Path("proxy.yaml"), environ or {})

    return run


@pytest.fixture
def refuses(loads: Loads) -> Refuses:
    def run(text: str | bytes, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            loads(text, environ)
        return str(caught.value)

    return run


# ---- Quantities --------------------------------------------------------------------------------------


@each_row(
    ("text", "size"),
    [
        ("10GiB", 10 * GIB),
        ("8MiB", 8 * MIB),
        ("64KiB", 64 * KIB),
        ("5TiB", 5 * TIB),
        ("1GB", 10**9),
        ("1kB", 1000),
        ("1KB", 1000),
        ("512B", 512),
        ("512", 512),
        (512, 512),
        (0, 0),
        ("0", 0),
        ("1.5MiB", 3 * MIB // 2),
        ("9223372036854775807", MAX_SIZE_BYTES),
    ],
)
def test_a_size_is_bytes(text: object, size: int) -> None:
    """A size reads as bytes, in binary and decimal units and without a unit."""
    assert parse_size(text) == size


@each_row(
    ("text", "fix"),
    [
        ("10Gi", "write 10GiB"),
        ("10G", "write 10GiB"),
        ("10 GiB", "write 10GiB"),
        ("10gib", "write 10GiB"),
        ("10gb", "write 10GB"),
        ("1.5m", "write 1.5MiB"),
        ("10 bytes", "write 10"),
        ("0.3B", "whole byte"),
        ("9223372036854775808", "at most"),
        ("9999999TiB", "at most"),
        ("-1", "must be a size"),
        (-1, "must be a size"),
        ("", "must be a size"),
        ("GiB", "must be a size"),
        ("1e9", "must be a size"),
        ("\u0661MiB", "must be a size"),
        ("1MiB\n", "write 1MiB"),
        (1.5, "must be a size"),
        (True, "must be a size"),
        (None, "must be a size"),
        ([], "must be a size"),
    ],
)
def test_an_invalid_size_is_refused_with_the_fix(text: object, fix: str) -> None:
    """A size in another grammar is refused, and the message has the right spelling."""
    with pytest.raises(ValueError, match=fix):
        parse_size(text)


@each_row(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("1h", 3600.0),
        ("250ms", 0.25),
        ("2d", 172800.0),
        ("1m", 60.0),
        ("1.5h", 5400.0),
        (0, 0.0),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_seconds(text: object, seconds: float) -> None:
    """A duration reads as seconds; 0 needs no unit."""
    assert parse_duration(text) == seconds


@each_row(
    ("text", "fix"),
    [
        (90, "write 90s"),
        ("90", "write 90s"),
        (1.5, "write 1.5s"),
        ("5min", "write 5m"),
        ("2 hours", "write 2h"),
        ("0.5ms", "finer than a millisecond"),
        ("36501d", "at most 36500d"),
        ("-1s", "must be a duration"),
        (-1, "must be a duration"),
        ("1h30m", "must be a duration"),
        ("s", "must be a duration"),
        (float("inf"), "must be a duration"),
        (float("nan"), "must be a duration"),
        (False, "must be a duration"),
        (None, "must be a duration"),
    ],
)
def test_an_invalid_duration_is_refused_with_the_fix(text: object, fix: str) -> None:
    """A bare number has no unit, so it is no duration, and the message has the right spelling."""
    with pytest.raises(ValueError, match=fix):
        parse_duration(text)


@given(st.integers(0, MAX_SIZE_BYTES))
def test_sizes_round_trip(size: int) -> None:
    """Every size reads back from the text it is written as."""
    assert parse_size(format_size(size)) == size


@given(st.integers(0, MAX_DURATION_S * 1000))
def test_durations_round_trip(milliseconds: int) -> None:
    """Every duration of whole milliseconds reads back from the text it is written as."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**11 - 1))
def test_percentages_round_trip(billionths: int) -> None:
    """Every percentage below 100 reads back from the text it is written as."""
    percent = Percent(billionths / 10**9)
    assert parse_share(format_share(percent)) == percent


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,20}\.?[0-9]{0,10} ?[A-Za-z%]{0,4}", fullmatch=True))
def test_quantities_are_total(text: str) -> None:
    """Any text is a quantity or a ValueError, and an accepted quantity survives its own formatting."""
    for parse, write in ((parse_size, format_size), (parse_duration, format_duration), (parse_share, format_share)):
        try:
            value: Any = parse(text)
        except ValueError:
            continue
        assert parse(write(value)) == value


@given(st.integers(0, 99), st.integers(0, MAX_SIZE_BYTES))
def test_a_share_never_exceeds_its_whole(percent: int, total: int) -> None:
    """A percentage of a disk is between zero and the disk's size (I17)."""
    assert 0 <= Percent(percent).of(total) <= total


@each_row("text", ["100%", "-1%", "%", "5 %", "5", 5, None])
def test_an_invalid_percentage_is_refused(text: object) -> None:
    """A percentage is a number below 100 with its sign."""
    with pytest.raises(ValueError, match="must be"):
        parse_percent(text)


def test_a_share_is_a_size_or_a_percentage() -> None:
    """`min_free` accepts both, and its error message names both."""
    assert parse_share("5%") == Percent(5)
    assert parse_share("2GiB") == 2 * GIB
    with pytest.raises(ValueError, match="or a percentage"):
        parse_share("some")


@each_row("text", ["010", "1:30", "1_000", "0x10", "1.0", "", " 1", 1.0, True, None])
def test_whole_numbers_are_decimal(text: object) -> None:
    """YAML 1.1's octal, sexagesimal, hexadecimal and grouped numbers are not accepted as numbers."""
    with pytest.raises(ValueError, match="whole number"):
        parse_whole_number(text)


@each_row("text", ["yes", "no", "on", "off", "True", 1, 0, None])
def test_flags_are_true_and_false(text: object) -> None:
    """A flag is true or false in lower case, and no other text."""
    with pytest.raises(ValueError, match="true or false"):
        parse_flag(text)


# ---- The models --------------------------------------------------------------------------------------


def test_the_defaults_are_the_designed_ones(loads: Loads) -> None:
    """Leaving a key out is the same as giving its documented default."""
    assert loads(DOCUMENTED) == loads(MOUNTS)


def test_the_repos_own_file_loads() -> None:
    """proxy.yaml is valid, opens every method of its demo bucket and shows every key there is."""
    path = ROOT / "proxy.yaml"
    own = load(path, {})
    assert own.origin.endpoint_url == "embedded"
    assert own.origin.create_bucket
    assert [(mount.path, mount.bucket) for mount in own.mounts] == [("/", "demo")]
    assert own.mounts[0].methods == ("GET", "HEAD", "PUT", "POST", "DELETE")
    assert own.uploads is not None
    assert (own.uploads.path, own.uploads.mount, own.uploads.max_size) == ("/upload", "/", 5 * TIB)
    assert own.cache.max_size == GIB
    text = path.read_text()
    for section, field in Settings.model_fields.items():
        assert f"\n{section}:" in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"  {key}:" in text or f"# {key}:" in text, f"{section}.{key}"


def test_the_repos_own_file_marks_values_that_are_no_default() -> None:
    """In proxy.yaml exactly the comments of keys that do not have their default contain "Here"."""
    path = ROOT / "proxy.yaml"
    own, defaults = (
        load(path, {}),
        Settings.model_validate({"mounts": [{"path": "/", "bucket": "demo"}], "uploads": {}}),
    )
    assert own.mounts[0].site is not None
    pairs = [(getattr(own, name), getattr(defaults, name)) for name in Settings.model_fields if name != "mounts"]
    pairs += [(own.mounts[0], defaults.mounts[0]), (own.mounts[0].site, SiteSettings())]
    sections = [(one, other) for one, other in pairs if one is not None]  # a section may be off
    changed = {key for one, other in sections for key, value in one if value != getattr(other, key)}
    assert set(re.findall(r"^[ -]+(\w+):.*\bHere\b", path.read_text(), re.MULTILINE)) == changed


def test_settings_are_frozen() -> None:
    """A setting of a running proxy cannot change."""
    own = Settings.model_validate({"mounts": [{"path": "/", "bucket": "media"}]})
    with pytest.raises(ValidationError, match="frozen"):
        own.cache.max_size = 1  # type: ignore[misc]  # the point of the test


def test_settings_survive_json(loads: Loads) -> None:
    """Settings without secrets survive JSON unchanged, in one grammar for both directions."""
    own = loads(DOCUMENTED)
    assert Settings.model_validate_json(own.model_dump_json()) == own


def test_paths_and_methods_are_normalised(loads: Loads) -> None:
    """A mount path ends in '/', an upload path does not, and GET brings HEAD."""
    own = loads(
        "mounts: [{path: /media, bucket: abc, methods: [DELETE, GET, GET]}, {path: /w/, bucket: abc, methods: [PUT]}]\n"
        "uploads: {path: /up/, mount: /media}"
    )
    assert [mount.path for mount in own.mounts] == ["/media/", "/w/"]
    assert [mount.methods for mount in own.mounts] == [("GET", "HEAD", "DELETE"), ("PUT",)]
    assert own.uploads is not None
    assert (own.uploads.path, own.uploads.mount) == ("/up", "/media/")


def test_no_uploads_section_means_no_upload_route(loads: Loads) -> None:
    """Uploads are off unless the section is there."""
    assert loads(MOUNTS).uploads is None
    assert loads(MOUNTS + "uploads: null").uploads is None
    assert loads(MOUNTS + "uploads: {}").uploads is not None


@each_row("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LocalHost", "0:0:0:0:0:0:0:1"])
def test_admin_on_loopback_needs_no_token(loads: Loads, host: str) -> None:
    """I27: on loopback the admin listener needs no token."""
    assert loads(f"{MOUNTS}admin: {{host: '{host}'}}").admin.token is None


@each_row(
    "host",
    ["0.0.0.0", "::", "[::]", "*", "::0", "10.0.0.1", "127.1", "admin.example.com", "127.0.0.1.example.com"],
)
def test_admin_beyond_loopback_needs_a_token(loads: Loads, refuses: Refuses, host: str) -> None:
    """I27: beyond loopback the start fails without a token, and the message points at the host."""
    text = f"{MOUNTS}admin:\n  host: '{host}'\n"
    assert refuses(text).startswith("proxy.yaml:3:9 admin.token: needed, because admin.host is not loopback")
    token = loads(f"{text}  token: 0123456789abcdef\n").admin.token
    assert token is not None
    assert token.get_secret_value() == "0123456789abcdef"
    short = refuses(f"{text}  token: 0123456789abcde\n")
    assert short.startswith("proxy.yaml:4:10 admin.token: must have at least 16 characters: `openssl rand -hex 16`")
    assert "0123456789abcde" not in short.splitlines()[0]


@each_row(
    ("text", "kind"),
    [
        ("default", str),
        ("anonymous", str),
        ("{profile: work}", ProfileCredentials),
        ("{access_key_id: a, secret_access_key: b}", StaticCredentials),
        ("{access_key_id: a, secret_access_key: b, session_token: c}", StaticCredentials),
    ],
)
def test_credentials_have_four_forms(loads: Loads, text: str, kind: type) -> None:
    """Credentials are a named source, a profile or keys."""
    assert isinstance(loads(f"{MOUNTS}origin: {{credentials: {text}}}").origin.credentials, kind)


@each_row("url", ["null", "embedded", "http://127.0.0.1:9000", "https://s3.example.com/"])
def test_endpoints(loads: Loads, url: str) -> None:
    """I29: an endpoint is AWS, the embedded one, or scheme, host and port."""
    expected = None if url == "null" else url.rstrip("/")
    assert loads(f"{MOUNTS}origin: {{endpoint_url: '{url}'}}" if expected else MOUNTS).origin.endpoint_url == expected


@each_row(
    ("text", "where", "message"),
    [
        ("server: {port: 65536}", "1:16 server.port", "must be at most 65535"),
        ("server: {port: -1}", "1:16 server.port", "must be at least 0"),
        ("server: {port: 8080.5}", "1:16 server.port", "must be a whole number"),
        ("server: {host: ''}", "1:16 server.host", "must be an address"),
        ("server: {host: 'a:80'}", "1:16 server.host", "without the port"),
        ("server: {host: '[::1]:80'}", "1:16 server.host", "without the port"),
        ("server: {host: 'http://a'}", "1:16 server.host", "must be an address"),
        ("admin: {port: 8080}", "1:15 admin.port", "another port than server.port"),
        ("server: {port: 8081}", "1:16 admin.port", "another port than server.port"),
        ("server: {host: '*', port: 8081}", "1:27 admin.port", "another port than server.port"),
        ("server: {port: }", "1:15 server.port", "is empty: give it a value"),
        ("origin: {endpoint_url: }", "1:23 origin.endpoint_url", "null and"),
        ("admin: {token: }", "1:15 admin.token", "is empty"),
        ("uploads:", "1:9 uploads", "is empty: give it keys, or leave it out"),
        ("uploads: # none", "1:9 uploads", "is empty: give it keys, or leave it out"),
        ("server: {tls: }", "1:14 server.tls", "is empty"),
        ("origin: {create_bucket: yes}", "1:25 origin.create_bucket", "must be true or false: write true"),
        ("origin: {create_bucket: Off}", "1:25 origin.create_bucket", "must be true or false: write false"),
        ("server: {port: 0o17}", "1:16 server.port", "in decimal without leading zeros"),
        ("server: [1]", "1:9 server", "must be a mapping of keys"),
        ("server: {tls: {certificate: a.pem}}", "1:15 server.tls.key", "missing"),
        ("origin: {expected_bucket_owner: '12345'}", "1:33 origin.expected_bucket_owner", "the 12 digits"),
        ("origin: {expected_bucket_owner: 123456789012}", "1:33 origin.expected_bucket_owner", "put it in quotes"),
        ("origin: {region: 5}", "1:18 origin.region", "must be text"),
        ("origin: {connect_timeout: 0s}", "1:27 origin.connect_timeout", "must be more than 0"),
        ("origin: {max_connections: 0}", "1:27 origin.max_connections", "must be at least 1"),
        ("origin: {part_size: 1500KB}", "1:21 origin.part_size", "a multiple of cache.block_size, 32KiB"),
        ("origin: {part_size: 0}", "1:21 origin.part_size", "must be more than 0"),
        ("cache: {block_size: 16MiB}", "1:21 origin.part_size", "a multiple of cache.block_size, 16MiB"),
        ("origin: {addressing_style: pth}", "1:28 origin.addressing_style", "Did you mean path?"),
        ("origin: {credentials: anonymus}", "1:23 origin.credentials", "Did you mean anonymous?"),
        ("origin: {endpoint_url: 'ftp://a'}", "1:24 origin.endpoint_url", "must be null, embedded, or"),
        ("origin: {endpoint_url: 'http://'}", "1:24 origin.endpoint_url", "must be null, embedded, or"),
        ("origin: {endpoint_url: 'http://a:b'}", "1:24 origin.endpoint_url", "must be null, embedded, or"),
        ("origin: {endpoint_url: 'http://[a'}", "1:24 origin.endpoint_url", "must be null, embedded, or"),
        ("origin: {endpoint_url: 'http://a/b'}", "1:24 origin.endpoint_url", "must not have a path"),
        ("origin: {endpoint_url: 'http://a?b'}", "1:24 origin.endpoint_url", "must not have a path"),
        ("origin: {endpoint_url: 'http://u:p@a'}", "1:24 origin.endpoint_url", "belong into origin.credentials"),
        ("origin: {endpoint_url: 'http://u:p@a_b'}", "1:24 origin.endpoint_url", "belong into origin.credentials"),
        ("origin: {endpoint_url: 'http://ü.invalid'}", "1:24 origin.endpoint_url", "in its form with xn--"),
        ("origin: {endpoint_url: 'http://s3_1:9000'}", "1:24 origin.endpoint_url", "letters, digits, '-' and '.'"),
        ("origin: {endpoint_url: 'http://a..b'}", "1:24 origin.endpoint_url", "letters, digits, '-' and '.'"),
        (
            'origin: {credentials: {access_key_id: "A\\nB", secret_access_key: x}}',
            "1:39 origin.credentials.access_key_id",
            "must be visible ASCII",
        ),
        (
            'origin: {credentials: {access_key_id: A, secret_access_key: "x\\ty"}}',
            "1:61 origin.credentials.secret_access_key",
            "must not have line breaks",
        ),
        (
            "origin: {credentials: {access_key_id: A, secret_access_key: x, session_token: 'a b'}}",
            "1:79 origin.credentials.session_token",
            "must be visible ASCII",
        ),
        ("cache: {dir: ''}", "1:14 cache.dir", "must be the path of a folder"),
        ("cache: {dir: /etc/passwd}", "1:14 cache.dir", "must be a folder, and it is a file"),
        ("uploads: {mount: /other}", "1:18 uploads.mount", "must be the path of a mount: /"),
        ("uploads: {deadline: 0}", "1:21 uploads.deadline", "must be more than 0"),
        ("uploads: {path: /}", "1:17 uploads.path", "a route of its own"),
        (
            "freshness: {rules: [{match: a, headers: {Age: '1'}}]}",
            "1:42 freshness.rules[0].headers.Age",
            "is not for a rule to set",
        ),
        (
            "freshness: {rules: [{match: a, headers: {X-A: 'ä'}}]}",
            "1:47 freshness.rules[0].headers.X-A",
            "must be printable ASCII",
        ),
        ("cors: {allow_credentials: true}", "1:27 cors.allow_credentials", "needs allow_origins to name its origins"),
        ("cache: {block_size: 3MiB}", "1:21 cache.block_size", "a power of two from 16KiB to 16MiB"),
        ("cache: {block_size: 8KiB}", "1:21 cache.block_size", "a power of two from 16KiB to 16MiB"),
        ("cache: {block_size: 32MiB}", "1:21 cache.block_size", "a power of two from 16KiB to 16MiB"),
        ("cache: {max_size: 100KiB}", "1:19 cache.max_size", "at least 4 times cache.block_size, that is 128KiB"),
        ("cache: {idle_timeout: 0}", "1:23 cache.idle_timeout", "must be more than 0"),
        ("cache: {min_free: 100%}", "1:19 cache.min_free", "must be below 100%"),
        ("cache: {fsync: on}", "1:9 cache.fsync", "unknown key. Allowed: dir, block_size"),
        ("cache:", "1:7 cache", "is empty: give it keys, or leave it out"),
        ("cors: {allow_origins: '*'}", "1:23 cors.allow_origins", "must be a list"),
        ("cors: {allow_origins: ['https://a/']}", "1:24 cors.allow_origins[0]", "without a path"),
        ("freshness: {rules: [{match: '*', ttl: 2}]}", "1:39 freshness.rules[0].ttl", "write 2s"),
        ("freshness: {rules: [{ttl: 2s}]}", "1:21 freshness.rules[0].match", "missing"),
        ("freshness: {honor_client_no_cache: no}", "1:36 freshness.honor_client_no_cache", "true or false"),
        ("access_log: {format: xml}", "1:22 access_log.format", "must be one of json, text"),
    ],
)
def test_a_bad_value_is_refused_at_its_place(refuses: Refuses, text: str, where: str, message: str) -> None:
    """I30: each bad value is the only problem, reported at its own line and column, with the fix."""
    refusal = refuses(f"{text}\n{MOUNTS}")
    head = refusal.splitlines()[0]
    assert head.startswith(f"proxy.yaml:{where}: ")
    assert message in head
    assert refusal.count("proxy.yaml:") == 1


@each_row(
    ("mounts", "where", "message"),
    [
        ("[]", "1:9 mounts", "must not be empty"),
        ("{path: /}", "1:9 mounts", "must be a list"),
        ("[{path: /}]", "1:10 mounts[0].bucket", "missing"),
        ("[{path: media, bucket: abc}]", "1:17 mounts[0].path", "must start with '/'"),
        ("[{path: '/a?', bucket: abc}]", "1:17 mounts[0].path", "must be a decoded path"),
        ("[{path: /a%20b, bucket: abc}]", "1:17 mounts[0].path", "must be a decoded path"),
        ("[{path: /, bucket: 's3://abc'}]", "1:28 mounts[0].bucket", "without 's3://'"),
        ("[{path: /, bucket: abc/d}]", "1:28 mounts[0].bucket", "without a path"),
        ("[{path: /, bucket: 'https://abc.s3.amazonaws.com'}]", "1:28 mounts[0].bucket", "name of a bucket"),
        ("[{path: /, bucket: a..b}]", "1:28 mounts[0].bucket", "no two dots in a row"),
        ("[{path: /, bucket: -ab}]", "1:28 mounts[0].bucket", "a letter or digit at both ends"),
        ("[{path: /, bucket: '192.168.5.4'}]", "1:28 mounts[0].bucket", "no IP address"),
        ("[{path: /, bucket: 'arn:aws:s3:::abc/d'}]", "1:28 mounts[0].bucket", "without a path"),
        ("[{path: /, bucket: 'arn:aws:s3:::'}]", "1:28 mounts[0].bucket", "name of a bucket"),
        ("[{path: /, bucket: 'arn:aws:iam::1:user/x'}]", "1:28 mounts[0].bucket", "arn:aws:s3:::BUCKET"),
        ("[{path: /, bucket: 'arn:aws:s3::123456789012:accesspoint/a.mrap'}]", "1:28 mounts[0].bucket", "SigV4a"),
        ("[{path: /, bucket: a1b2.mrap}]", "1:28 mounts[0].bucket", "SigV4a"),
        (f"[{{path: /, bucket: 'arn:aws:s3-outposts:{OUTPOST}'}}]", "1:28 mounts[0].bucket", "Outposts is not"),
        (f"[{{path: /, bucket: 'arn:aws:s3-object-lambda:{POINT}'}}]", "1:28 mounts[0].bucket", "without an ETag"),
        ("[{path: /, bucket: mine--ol-s3}]", "1:28 mounts[0].bucket", "without an ETag"),
        ("[{path: /, bucket: mine--usw2-az1--x-s3}]", "1:28 mounts[0].bucket", "CreateSession"),
        ("[{path: /, bucket: mine--table-s3}]", "1:28 mounts[0].bucket", "no objects to serve"),
        ("[{path: /, bucket: 2024}]", "1:28 mounts[0].bucket", "must be text; if it is, put it in quotes"),
        ("[{path: /, bucket: abc, prefix: /x}]", "1:41 mounts[0].prefix", "leave the slash out"),
        ("[{path: /, bucket: abc, methods: []}]", "1:42 mounts[0].methods", "must not be empty"),
        ("[{path: /, bucket: abc, methods: [get]}]", "1:43 mounts[0].methods[0]", "Did you mean GET?"),
        ("[{path: /, bucket: abc, key_template: x}]", "1:47 mounts[0].key_template", "must hold {ulid} or {filename}"),
        ("[{path: /, bucket: abc, key_template: '{id}'}]", "1:47 mounts[0].key_template", "no placeholders but {ulid}"),
        ("[{path: /, bucket: abc, key_template: '../{ulid}'}]", "1:47 mounts[0].key_template", "a segment '.' or '..'"),
        ("[{path: /, bucket: abc, max_size: 0}]", "1:43 mounts[0].max_size", "must be more than 0"),
        ("[{path: /, bucket: abc, write_once: once}]", "1:45 mounts[0].write_once", "must be true or false"),
        ("[{path: /m, bucket: abc}, {path: /m/, bucket: d}]", "1:42 mounts[1].path", "same path as mounts[0]"),
        ("[{path: /, bucket: abc, accept_encoding: ''}]", "1:50 mounts[0].accept_encoding", "must be content codings"),
        (
            "[{path: /, bucket: abc, accept_encoding: 'a;q=1'}]",
            "1:50 mounts[0].accept_encoding",
            "for example 'gzip, br'",
        ),
        (
            "[{path: /, bucket: abc}, {path: /m/, bucket: abc, accept_encoding: gzip}]",
            "1:76 mounts[1].accept_encoding",
            "must be that of mounts[0]",
        ),
    ],
)
def test_a_bad_mount_is_refused_at_its_place(refuses: Refuses, mounts: str, where: str, message: str) -> None:
    """I30: a wrong mount is the only problem, reported at its own place."""
    refusal = refuses(f"mounts: {mounts}")
    assert refusal.startswith(f"proxy.yaml:{where}: ")
    assert message in refusal.splitlines()[0]
    assert refusal.count("proxy.yaml:") == 1


@each_row(
    ("written", "bucket"),
    [
        ("arn:aws:s3:::media", "media"),
        ("arn:aws-cn:s3:::media", "media"),
        ("arn:aws-us-gov:s3:::media", "media"),
        (f"arn:aws:s3:{POINT}", f"arn:aws:s3:{POINT}"),
        ("mine-abcdefghij-s3alias", "mine-abcdefghij-s3alias"),
        ("My_Old.Bucket", "My_Old.Bucket"),
    ],
)
def test_a_bucket_may_be_an_arn(loads: Loads, written: str, bucket: str) -> None:
    """A bucket's ARN is the bucket, so both have one cache; an access point's ARN and alias are as they are (I25)."""
    assert loads(f"mounts: [{{path: /, bucket: '{written}'}}]").mounts[0].bucket == bucket


@each_row("endpoint", ["http://127.0.0.1:9000", "https://amazonaws.com.example.org", "embedded"])
def test_an_access_point_belongs_to_aws(refuses: Refuses, endpoint: str) -> None:
    """I29: an access point's ARN beside another S3's endpoint is refused at load, at the line of the bucket."""
    text = f"origin: {{endpoint_url: '{endpoint}'}}\nmounts: [{{path: /, bucket: 'arn:aws:s3:{POINT}'}}]\n"
    assert refuses(text).startswith("proxy.yaml:2:28 mounts[0].bucket: the ARN of an access point belongs to AWS")


def test_an_access_point_behind_an_interface_endpoint(loads: Loads) -> None:
    """An interface endpoint of a VPC is AWS's, so it serves access points."""
    endpoint = "https://accesspoint.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com"
    text = f"origin: {{endpoint_url: '{endpoint}'}}\nmounts: [{{path: /, bucket: 'arn:aws:s3:{POINT}'}}]\n"
    assert loads(text).mounts[0].bucket == f"arn:aws:s3:{POINT}"


@each_row("bucket", ["b", "My_Old.Bucket", "x" * 64])
def test_the_embedded_s3_makes_new_buckets(refuses: Refuses, bucket: str) -> None:
    """Names that S3 takes for no new bucket are refused with the embedded S3, which makes its buckets anew."""
    text = f"origin: {{endpoint_url: embedded}}\nmounts: [{{path: /, bucket: {bucket}}}]\n"
    assert refuses(text).startswith("proxy.yaml:2:28 mounts[0].bucket: must have 3 to 63 lower-case letters")


def test_another_s3_may_have_names_that_aws_reserves(loads: Loads) -> None:
    """The name of a directory bucket is that of an ordinary one at an S3 which has no such buckets."""
    text = "origin: {endpoint_url: 'http://h:1'}\nmounts: [{path: /, bucket: mine--usw2-az1--x-s3}]\n"
    assert loads(text).mounts[0].bucket == "mine--usw2-az1--x-s3"


@each_row(
    ("text", "where"),
    [
        ("pricing: {per_1000_gets: 0.0004}", "pricing: needs per_1000_gets, per_1000_puts and per_gb_out"),
        ("pricing: {currency: dollars}", "pricing.currency: must be a currency in three capital letters"),
        ("pricing: {per_gb_out: -1}", "pricing.per_gb_out: must be from 0 to"),
        ("pricing: {per_gb_out: .inf}", "pricing.per_gb_out: must be a price"),
        ("pricing: {per_gb_out: .nan}", "pricing.per_gb_out: must be a price"),
        ("pricing: {per_gb_out: cheap}", "pricing.per_gb_out: must be a price"),
        ("pricing: {per_gb_out: true}", "pricing.per_gb_out: must be a price"),
    ],
)
def test_bad_prices_are_refused(refuses: Refuses, text: str, where: str) -> None:
    """A price is an amount of at least zero. Either all three are known, or none."""
    assert where in refuses(f"mounts: [{{path: /, bucket: b}}]\n{text}")


def test_prices(loads: Loads) -> None:
    """Prices come from numbers and from text, and a mount may have its own."""
    prices = "per_1000_gets: 0, per_1000_puts: 0.005, per_gb_out: 0.09"
    settings = loads(
        f"mounts: [{{path: /, bucket: b, pricing: {{{prices}}}}}]\npricing: {{{prices}}}",
        {"BUCKETFRONT_PRICING__PER_GB_OUT": "0.12", "BUCKETFRONT_PRICING__CURRENCY": "EUR"},
    )
    assert (settings.pricing.per_1000_gets, settings.pricing.per_gb_out, settings.pricing.currency) == (0, 0.12, "EUR")
    assert settings.mounts[0].pricing is not None
    assert settings.mounts[0].pricing.per_gb_out == 0.09
    assert loads("mounts: [{path: /, bucket: b}]").pricing.per_gb_out is None


@each_row(("prefix", "count"), [("foo", 1), ("foo/", 0), ("foo-", 0), ("", 0)])
def test_a_prefix_without_a_slash_is_warned_about(loads: Loads, prefix: str, count: int) -> None:
    """A prefix that would join its last name with the path is reported at its line, with the cure."""
    loads(f"mounts:\n  - path: /\n    bucket: media\n    prefix: '{prefix}'\n")
    warnings = load_with_places(Path("proxy.yaml"), {}).warnings
    assert len(warnings) == count
    for text in warnings:
        assert text.startswith("proxy.yaml:4:13 mounts[0].prefix: does not end in '/'")


@each_row(
    ("settings", "count"),
    [("", 0), ("methods: [GET, PUT]", 1), ("methods: [GET, PUT], inline_types: []", 0), ("methods: [GET, DELETE]", 0)],
)
def test_a_site_that_takes_uploads_is_warned_about(loads: Loads, settings: str, count: int) -> None:
    """A site whose pages would become downloads is reported, until its owner has decided."""
    loads(f"mounts: [{{path: /, bucket: media, site: {{}}, {settings}}}]\n")
    warnings = load_with_places(Path("proxy.yaml"), {}).warnings
    assert len(warnings) == count
    assert all("mounts[0].site: shows its pages as downloads" in text for text in warnings)


KEY = "keys: [{id: app, secret: 0123456789abcdef, buckets: [media], "


@each_row(
    ("endpoint", "places"),
    [
        (f"{KEY}write: true}}]", []),
        (f"host: 0.0.0.0, {KEY}write: true}}]", ["keys[0].write: is used without TLS"]),
        (f"host: 0.0.0.0, {KEY}write: false}}]", []),
        (f"host: 0.0.0.0, tls: {{certificate: a, key: b}}, {KEY}write: true}}]", []),
        ("anonymous: {buckets: [media], write: true}", []),
        ("host: 0.0.0.0, anonymous: {buckets: [media], write: true}", ["anonymous.write: lets everything"]),
        ("host: 0.0.0.0, anonymous: {buckets: [media]}", []),
        (f"{KEY}prefix: team}}]", ["keys[0].prefix: does not end in '/'"]),
    ],
)
def test_grants_of_the_s3_endpoint_that_are_warned_about(loads: Loads, endpoint: str, places: list[str]) -> None:
    """A grant that probably reaches more than is meant is reported, with the cure."""
    loads(f"mounts: [{{path: /, bucket: media}}]\ns3: {{{endpoint}}}\n")
    warnings = [text for text in load_with_places(Path("proxy.yaml"), {}).warnings if " s3." in text]
    assert len(warnings) == len(places)
    assert all(f" s3.{place}" in text for place, text in zip(places, warnings, strict=True))


def test_a_later_error_has_the_place_of_its_setting(loads: Loads) -> None:
    """An error that only the start can find names file, line and column, or the variable."""
    loads(f"{MOUNTS}server:\n  tls:\n    certificate: a.pem\n    key: b.pem\n")
    path = Path("proxy.yaml")
    error = UnusableSetting("gone", ("server", "tls", "key"))
    assert load_with_places(path, {}).explain(error) == "proxy.yaml:5:10 server.tls.key: gone"
    loaded = load_with_places(path, {"BUCKETFRONT_SERVER__TLS__KEY": "c.pem"})
    assert loaded.explain(error) == "BUCKETFRONT_SERVER__TLS__KEY: gone"


# ---- The file ----------------------------------------------------------------------------------------


def test_an_unknown_key_names_its_place_and_the_nearest_known_one(refuses: Refuses) -> None:
    """I30: the message holds file, line, column, key, problem and hint, and no source line."""
    assert refuses(f"{MOUNTS}cache:\n  max_szie: 10GiB\n") == (
        "proxy.yaml:3:3 cache.max_szie: unknown key. Did you mean max_size?"
    )


def test_all_problems_come_at_once(refuses: Refuses) -> None:
    """One run reports every problem: field, cross-field, missing, variable, secret file, environment."""
    refusal = refuses(
        "server: {port: x, zzz: 1}\n"
        "admin: {token: 'file:/nonexistent/token'}\n"
        "origin: {part_size: 1500KiB, region: '${NOT_SET}'}\n"
        "mounts: [{path: /}]\n"
        "cache: {max_size: 9KiB, dir: a, dir: b}\n",
        {"BUCKETFRONT_CORS__ALLOW_ORIGIN": "*", "BUCKETFRONT_SERVER__PRT": "1"},
    )
    heads = [line for line in refusal.splitlines() if not line.startswith(" ")]
    assert [head.split(": ")[0] for head in heads] == [
        "proxy.yaml:1:16 server.port",
        "proxy.yaml:1:19 server.zzz",
        "proxy.yaml:2:16 admin.token",
        "proxy.yaml:3:39 origin.region",
        "proxy.yaml:4:10 mounts[0].bucket",
        "proxy.yaml:5:19 cache.max_size",
        "proxy.yaml:5:33 cache.dir",
        "BUCKETFRONT_CORS__ALLOW_ORIGIN",
        "BUCKETFRONT_SERVER__PRT",
    ]


def test_endless_problems_are_cut_off(refuses: Refuses) -> None:
    """A file with very many mistakes gives a message of readable length."""
    refusal = refuses("".join(f"k{number}: 1\n" for number in range(MAX_PROBLEMS + 20)))
    assert refusal.endswith("and 21 more problems")


@each_row(
    ("text", "head"),
    [
        ("a: b: c", "proxy.yaml:1:5 not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- b", f"proxy.yaml:2:1 {TAB}"),
        ("server:\n  host: a\n  \tport: 1", f"proxy.yaml:3:3 {TAB}"),
        ("server:\n  port: 1\t\n", f"proxy.yaml:2:10 {TAB}"),
        ('a: "b\n\n', "proxy.yaml:1:4 not valid YAML: found unexpected end of stream"),
        ("- a", "proxy.yaml:1:1 must be a mapping of sections"),
        ("text", "proxy.yaml:1:1 must be a mapping of sections"),
        ("", "proxy.yaml:1:1 mounts: missing"),
        ("# nothing", "proxy.yaml:1:1 mounts: missing"),
        ("? [a]\n: b", "proxy.yaml:1:3 a key must be plain text"),
        (f"{MOUNTS}---\n{MOUNTS}", "proxy.yaml:2:1 one document is enough"),
        (f"{MOUNTS}{MOUNTS}", "proxy.yaml:2:1 mounts: duplicate key, first on line 1"),
        (f"{MOUNTS}server: *x", "proxy.yaml:2:9 server: YAML aliases are not understood"),
        (f"{MOUNTS}server: {{port: !!int '1'}}", "proxy.yaml:2:16 server.port: YAML tags are not understood"),
        ("!!python/object/apply:os.abort []", "proxy.yaml:1:1 YAML tags are not understood"),
        ("a: !e!x b", "proxy.yaml:1:4 YAML tags are not understood"),
        (f'{MOUNTS}cache: {{dir: "a\\0b"}}', "proxy.yaml:2:14 cache.dir: must not hold a NUL"),
        (f'{MOUNTS}cache: {{dir: "\\uD800"}}', "proxy.yaml:2:14 cache.dir: must not hold a NUL or a lone"),
        ('a: "\\UFFFFFFFF"', "proxy.yaml:1:"),
        (b"\xff\xfe", "proxy.yaml: not UTF-8 at byte 0"),
        (MOUNTS.encode("utf-16"), "proxy.yaml: not UTF-8 at byte 0, but UTF-16: save it as UTF-8"),
        ("---\n", "proxy.yaml:2:1 mounts: missing"),
        (b"a: \x00", "proxy.yaml:1:4 not valid YAML: character #x0000"),
        (b"a: \x1b[31m", "proxy.yaml:1:4 not valid YAML: character #x001b"),
        (b"#" * (MAX_FILE_BYTES + 1), f"proxy.yaml: more than {MAX_FILE_BYTES} bytes"),
        ("[" * 100_000, "proxy.yaml:1:18 nested more than 16 deep"),
        ("a: 1\n" * 20_000, "proxy.yaml:10000:4 more than 10000 values"),
        ("x" * 1_000_000 + ": 1", "proxy.yaml:1:"),
    ],
)
def test_bad_yaml_is_refused_with_its_place(refuses: Refuses, text: str | bytes, head: str) -> None:
    """I30: any bytes yield one message with a place, never a traceback."""
    assert any(line.startswith(head) for line in refuses(text).splitlines())


def test_a_byte_order_mark_is_no_part_of_the_first_key(loads: Loads) -> None:
    """A file with a UTF-8 signature and Windows line ends loads."""
    assert loads(b"\xef\xbb\xbf" + MOUNTS.replace("\n", "\r\n").encode()).mounts[0].bucket == "media"


@pytest.mark.parametrize("make", [Path.absolute, Path.mkdir], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A missing or unreadable file is a ConfigError with its path."""
    path = tmp_path / "other.yaml"
    make(path)
    with pytest.raises(ConfigError, match=r"other\.yaml: (no such file|cannot be read: Is a directory)"):
        load(path, {})


@each_row(
    ("text", "value"),
    [("010", "010"), ("1:30", "1:30"), ("yes", "yes"), ("off", "off"), ("0x1f", "0x1f"), ("2026-01-02", "2026-01-02")],
)
def test_yaml_1_1_traps_stay_text(loads: Loads, text: str, value: str) -> None:
    """Text that YAML 1.1 reads as a number, a flag or a date stays the text in the file."""
    assert loads(f"{MOUNTS}origin: {{region: {text}}}").origin.region == value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(alphabet="a:-[]{}&*!|>'\"%@`#?,\n \t\\x0$", max_size=80).map(str.encode)
    | st.lists(st.sampled_from(DOCUMENTED.split()), max_size=30).map(lambda words: " ".join(words).encode())
)
@example(b"%YAML " + b"9" * 5000 + b".1\n---\na: 1")
def test_any_bytes_are_settings_or_a_config_error(tmp_path: Path, octets: bytes) -> None:
    """I30: any bytes give settings or a ConfigError, whose text has no control character but line feeds (I28)."""
    path = tmp_path / "proxy.yaml"
    path.write_bytes(octets)
    try:
        load(path, {})
    except ConfigError as error:
        assert str(error).replace("\n", "").isprintable()  # noqa: PT017 - the success is a pass as well


# ---- The environment ---------------------------------------------------------------------------------


@each_row(
    ("name", "value", "read", "expected"),
    [
        ("BUCKETFRONT_CACHE__MAX_SIZE", "20GiB", lambda s: s.cache.max_size, 20 * GIB),
        ("bucketfront_cache__max_size", "20GiB", lambda s: s.cache.max_size, 20 * GIB),
        ("BUCKETFRONT_SERVER__PORT", "0", lambda s: s.server.port, 0),
        ("BUCKETFRONT_ORIGIN__CREATE_BUCKET", "true", lambda s: s.origin.create_bucket, True),
        ("BUCKETFRONT_ORIGIN__REGION", "010", lambda s: s.origin.region, "010"),
        ("BUCKETFRONT_ORIGIN__ENDPOINT_URL", "null", lambda s: s.origin.endpoint_url, None),
        ("BUCKETFRONT_ORIGIN__CREDENTIALS__PROFILE", "x", lambda s: s.origin.credentials.profile, "x"),
        ("BUCKETFRONT_ORIGIN__CREDENTIALS", "{profile: x}", lambda s: s.origin.credentials.profile, "x"),
        ("BUCKETFRONT_CORS__ALLOW_ORIGINS", "[]", lambda s: s.cors.allow_origins, ()),
        ("BUCKETFRONT_MOUNTS", "[{path: /, bucket: other}]", lambda s: s.mounts[0].bucket, "other"),
        ("BUCKETFRONT_MOUNTS__0__BUCKET", "other", lambda s: s.mounts[0].bucket, "other"),
        ("BUCKETFRONT_MOUNTS__0__METHODS", "[GET, PUT]", lambda s: s.mounts[0].methods, ("GET", "HEAD", "PUT")),
        ("BUCKETFRONT_UPLOADS", "null", lambda s: s.uploads, None),
        ("BUCKETFRONT_UPLOADS__PATH", "/in", lambda s: s.uploads.path, "/in"),
        ("BUCKETFRONT_SERVER__TLS__KEY", "k", lambda s: str(s.server.tls.key), "k"),
        ("BUCKETFRONT_ADMIN__TOKEN", "a#b:{'*&" * 2, lambda s: s.admin.token.get_secret_value(), "a#b:{'*&" * 2),
        ("BUCKETFRONT_ADMIN__TOKEN", "0" * 16, lambda s: s.admin.token.get_secret_value(), "0" * 16),
    ],
)
def test_a_variable_overrides_the_file(
    loads: Loads, name: str, value: str, read: Callable[[Settings], object], expected: object
) -> None:
    """The environment overrides the file, and the file the default, for values of every type at every depth."""
    text = (
        f"{MOUNTS}cache: {{max_size: 1GiB}}\nuploads: {{}}\nadmin: {{token: file-file-file-file}}\n"
        "server: {port: 1, tls: {certificate: c, key: file}}\n"
        "origin: {region: file, endpoint_url: embedded, create_bucket: false, credentials: anonymous}"
    )
    before, after = loads(text), loads(text, {name: value})
    assert read(after) == expected
    assert before != after


def test_a_whole_configuration_may_come_from_the_environment() -> None:
    """A configuration needs no file, because a container may have variables only."""
    own = load(
        None,
        {
            "BUCKETFRONT_MOUNTS__0__PATH": "/",
            "BUCKETFRONT_MOUNTS__0__BUCKET": "media",
            "BUCKETFRONT_MOUNTS__1__PATH": "/b",
            "BUCKETFRONT_MOUNTS__1__BUCKET": "books",
        },
    )
    assert [mount.bucket for mount in own.mounts] == ["media", "books"]


def test_an_empty_configuration_is_refused() -> None:
    """Without file and variables the message still names the required key."""
    with pytest.raises(ConfigError, match=r"^mounts: missing"):
        load(None, {})


@each_row(
    ("name", "value"),
    [
        ("HOME", "x"),
        ("BUCKETFRONT_CONFIG", "x"),
        ("BUCKETFRONT_SERVICE_HOST", "10.0.0.1"),
        ("BUCKETFRONT_SERVICE_PORT", "80"),
        ("BUCKETFRONT_SERVICE_PORT_HTTP", "80"),
        ("BUCKETFRONT_PORT", "tcp://10.0.0.1:80"),
        ("BUCKETFRONT_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("BUCKETFRONT_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("BUCKETFRONT_ADMIN_PORT", "tcp://10.0.0.1:8081"),
        ("BUCKETFRONT_ADMIN_SERVICE_PORT", "8081"),
        ("BUCKETFRONT_ADMIN_PORT_8081_TCP_PROTO", "tcp"),
    ],
)
def test_variables_of_services_are_ignored(loads: Loads, name: str, value: str) -> None:
    """Kubernetes sets variables with our prefix for services named `bucketfront` and `bucketfront-admin`."""
    assert loads(MOUNTS, {name: value}) == loads(MOUNTS)


@each_row(
    ("name", "hint"),
    [
        ("BUCKETFRONT_CACHE_MAX_SIZE", "Did you mean BUCKETFRONT_CACHE__MAX_SIZE?"),
        ("bucketfront_cache_max_size", "Did you mean BUCKETFRONT_CACHE__MAX_SIZE?"),
        ("BUCKETFRONT_CACHE__MAX__SIZE", "Did you mean BUCKETFRONT_CACHE__MAX_SIZE?"),
        ("BUCKETFRONT_ACCESS_LOG_PATH", "Did you mean BUCKETFRONT_ACCESS_LOG__PATH?"),
        ("BUCKETFRONT_MOUNTS_0_BUCKET", "Did you mean BUCKETFRONT_MOUNTS__0__BUCKET?"),
        ("BUCKETFRONT_MOUNTS_12_SITE_INDEX", "Did you mean BUCKETFRONT_MOUNTS__12__SITE__INDEX?"),
        ("BUCKETFRONT_ORIGIN_CREDENTIALS_PROFILE", "Did you mean BUCKETFRONT_ORIGIN__CREDENTIALS__PROFILE?"),
        ("BUCKETFRONT_ADMIN_PORT", "Did you mean BUCKETFRONT_ADMIN__PORT?"),
        ("BUCKETFRONT_PORT", "Did you mean BUCKETFRONT_SERVER__PORT or "),
        ("BUCKETFRONT_TOKEN", "Did you mean BUCKETFRONT_ADMIN__TOKEN or "),
        ("BUCKETFRONT_CACHE_DIRECTORY", "Did you mean BUCKETFRONT_CACHE__DIR?"),
        ("BUCKETFRONT_", "Allowed: BUCKETFRONT_SERVER, "),
        ("BUCKETFRONT_XYZZY", "Allowed: BUCKETFRONT_SERVER, "),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(refuses: Refuses, name: str, hint: str) -> None:
    """I30: no variable with our prefix is ignored in silence, and the message names the right one."""
    assert refuses(MOUNTS, {name: "80"}).startswith(f"{name}: unknown setting. {hint}")


@each_row(
    ("environ", "message"),
    [
        (
            {"BUCKETFRONT_CACHE__MAX_SZIE": "1"},
            "BUCKETFRONT_CACHE__MAX_SZIE: unknown setting. Did you mean BUCKETFRONT_CACHE__MAX_SIZE?",
        ),
        (
            {"BUCKETFRONT_CACH__MAX_SIZE": "1"},
            "BUCKETFRONT_CACH__MAX_SIZE: unknown setting. Did you mean BUCKETFRONT_CACHE__MAX_SIZE?",
        ),
        (
            {"BUCKETFRONT_ACCESS_LOG__Q": "1"},
            f"BUCKETFRONT_ACCESS_LOG__Q: unknown setting. Allowed: {LOG}FORMAT, {LOG}FIELDS, {LOG}PATH",
        ),
        (
            {"BUCKETFRONT_SERVER__PORT__X": "1"},
            "BUCKETFRONT_SERVER__PORT__X: unknown setting: BUCKETFRONT_SERVER__PORT has no keys below it",
        ),
        (
            {"BUCKETFRONT_MOUNTS__PATH": "/"},
            "BUCKETFRONT_MOUNTS__PATH: unknown setting: BUCKETFRONT_MOUNTS takes items by number",
        ),
        (
            {"BUCKETFRONT_MOUNTS__2__PATH": "/"},
            "BUCKETFRONT_MOUNTS__2__PATH: the list has 1 items: number 1 is the next one",
        ),
        ({"BUCKETFRONT_CACHE__MAX_SIZE": "10Gi"}, "BUCKETFRONT_CACHE__MAX_SIZE: must have a known unit: write 10GiB"),
        ({"BUCKETFRONT_CACHE": "big"}, "BUCKETFRONT_CACHE: must be a mapping of keys"),
        (
            {"BUCKETFRONT_MOUNTS": "[{path: /}]"},
            "BUCKETFRONT_MOUNTS: mounts[0].bucket: missing, and there is no default",
        ),
        (
            {"BUCKETFRONT_MOUNTS": "[{path: /"},
            "BUCKETFRONT_MOUNTS: not valid YAML: expected ',' or '}', but got '<stream end>' (line 1, column 10)",
        ),
        (
            {"BUCKETFRONT_SERVER__PORT": "1", "bucketfront_server__port": "2"},
            "bucketfront_server__port: set twice, as BUCKETFRONT_SERVER__PORT too",
        ),
        (
            {"BUCKETFRONT_UPLOADS": "null", "BUCKETFRONT_UPLOADS__PATH": "/in"},
            "BUCKETFRONT_UPLOADS__PATH: contradicts BUCKETFRONT_UPLOADS",
        ),
        ({"BUCKETFRONT_ORIGIN__REGION": "\udcff"}, "BUCKETFRONT_ORIGIN__REGION: must be UTF-8"),
    ],
)
def test_a_bad_variable_is_named(refuses: Refuses, environ: dict[str, str], message: str) -> None:
    """I30: a variable that is unknown or does not fit is the one problem, under its own name."""
    assert refuses(MOUNTS, environ) == message


def test_a_variable_replaces_a_broken_value_of_the_file(loads: Loads) -> None:
    """A broken value that the environment overrides is no problem."""
    text = f"{MOUNTS}origin: {{region: '${{NOT_SET}}'}}\ncache: {{max_size: nonsense}}"
    environ = {"BUCKETFRONT_ORIGIN__REGION": "r", "BUCKETFRONT_CACHE__MAX_SIZE": "1GiB"}
    assert loads(text, environ).origin.region == "r"


@each_row(
    ("written", "value"),
    [
        ("${A}", "alpha"),
        ("x-${A}-${B}", "x-alpha-2"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("a$", "a$"),
        ("'${B}'", "2"),
        ("${NESTED}", "${A}"),
    ],
)
def test_references_are_replaced_once(loads: Loads, written: str, value: str) -> None:
    """`${VAR}` inside a value becomes the variable, `$${` becomes `${`, and the inserted text is not expanded again."""
    environ = {"A": "alpha", "B": "2", "NESTED": "${A}"}
    assert loads(f"{MOUNTS}origin:\n  region: {written}\n", environ).origin.region == value


def test_references_give_numbers_and_sizes_too(loads: Loads) -> None:
    """A port, a flag and a size may be a variable, and quotes permit it inside braces."""
    text = f'{MOUNTS}server: {{port: "${{P}}"}}\ncache:\n  max_size: ${{S}}GiB\norigin:\n  create_bucket: ${{F}}\n'
    own = loads(text, {"P": "81", "S": "2", "F": "true"})
    assert (own.server.port, own.cache.max_size, own.origin.create_bucket) == (81, 2 * GIB, True)


@each_row(
    ("text", "head"),
    [
        ("server:\n  host: a${NOPE}\n", "proxy.yaml:3:10 server.host: not set in the environment: NOPE"),
        ("server:\n  host: ab${X\n", "proxy.yaml:3:11 server.host: '${' needs a variable's name"),
        ("server:\n  host: ${1}\n", "proxy.yaml:3:9 server.host: '${' needs a variable's name"),
        ("server: {host: ${A}}\n", "proxy.yaml:2:17 not valid YAML"),
        ("server:\n  port: ${A}\n", "proxy.yaml:3:9 server.port: must be a whole number"),
    ],
)
def test_bad_references_are_reported_where_they_stand(refuses: Refuses, text: str, head: str) -> None:
    """An unset or malformed `${VAR}` is reported at the reference itself."""
    assert refuses(MOUNTS + text, {"A": "x"}).startswith(head)


# ---- Secrets -----------------------------------------------------------------------------------------


def test_secrets_may_come_from_files(loads: Loads, tmp_path: Path) -> None:
    """`file:/path` becomes the file's text without its last line break, in the file and in the environment."""
    (tmp_path / "key").write_text(f"{SECRET}\n")
    text = f"{MOUNTS}admin: {{token: 'file:${{D}}/key'}}\norigin:\n  credentials: {{access_key_id: a}}\n"
    variable = "BUCKETFRONT_ORIGIN__CREDENTIALS__SECRET_ACCESS_KEY"
    own = loads(text, {"D": str(tmp_path), variable: f"file:{tmp_path}/key"})
    assert own.admin.token == SecretStr(SECRET)
    assert isinstance(own.origin.credentials, StaticCredentials)
    assert own.origin.credentials.secret_access_key == SecretStr(SECRET)


def test_only_secrets_are_read_from_files(loads: Loads) -> None:
    """`file:` has no meaning elsewhere, so no other setting opens a file."""
    assert loads(f"{MOUNTS}origin: {{region: 'file:/etc/hostname'}}").origin.region == "file:/etc/hostname"


@each_row(
    ("name", "content", "message"),
    [
        ("file:key", None, "needs its absolute path"),
        ("file:{}/none", None, "cannot be read: No such file"),
        ("file:{}", None, "cannot be read: Is a directory"),
        ("file:{}/key", b"", "is empty"),
        ("file:{}/key", b"\n", "is empty"),
        ("file:{}/key", b"\xff", "is not UTF-8"),
        ("file:{}/key", b"x" * 70_000, "has more than 65536 bytes"),
        ("file:{}/key", b"two words", "must be visible ASCII"),
    ],
)
def test_bad_secret_files_are_refused(
    refuses: Refuses, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """I30: a secret that cannot be read ends the start, with the line that names it."""
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    refusal = refuses(f"{MOUNTS}admin:\n  token: {name.format(tmp_path)}\n")
    assert refusal.startswith("proxy.yaml:3:10 admin.token: ")
    assert message in refusal.splitlines()[0]


def test_repr_and_dump_hold_no_secret(loads: Loads) -> None:
    """I28: settings may be logged and shown unchanged."""
    own = loads(
        f"{MOUNTS}admin: {{token: {SECRET}}}\norigin:\n  credentials:\n    access_key_id: {SECRET}\n"
        f"    secret_access_key: {SECRET}\n    session_token: {SECRET}\n"
    )
    for text in (repr(own), str(own), own.model_dump_json(), repr(own.model_dump())):
        assert SECRET not in text


def test_pydantics_own_message_holds_no_input() -> None:
    """I28: settings built without the loader get no secret in the error either."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"mounts": [{"path": "/", "bucket": "abc"}], "admin": {"token": [SECRET]}})
    assert SECRET not in str(caught.value)


LEAKS = [
    "admin: {token: [SECRET]}",
    "admin: {token: {a: SECRET}}",
    "admin: {tokn: SECRET}",
    "admin: {host: '', tokn: SECRET}",
    "admin: {token: SECRET, token: SECRET}",
    "admin: {token: 'SECRET two'}",
    'admin:\n  token: "SECRET',
    'admin:\n  token: "SECRET" x',
    'admin:\n  token: "a\n    SECRET" x',
    "admin:\n  token: a\n    SECRET: x\n   y",
    "admin:\n  token: |\n    SECRET\n   x\n",
    "admin:\n  token: @SECRET",
    "admin:\n  token: !SECRET x",
    "admin:\n  token: !SECRET!a x",
    "admin:\n  token: *SECRET",
    "admin:\n  token SECRET\n  a: b",
    "admin:\n  token: SECRET: x",
    "admin:\n  token=SECRET: x",
    "admin:\n  token: SECRET\n  host: 0.0.0.0\n port: 1",
    "origin: {credentials: SECRET}",
    "origin: {credentials: [SECRET]}",
    "origin: {credentials: {SECRET: x}}",
    "origin:\n  credentials:\n    SECRET: x",
    "origin:\n  credentials:\n    key: SECRET",
    "origin:\n  credentials:\n    aws: SECRET",
    "origin:\n  credentials: {access_key_id: SECRET}",
    "origin:\n  credentials: {secret_acces_key: SECRET,\n   access_key_id: a, x: y: z}",
    "origin:\n  credentials: {profile: a, access_key_id: SECRET}",
    "origin: {endpoint_url: 'http://u:SECRET@host/'}",
    "origin: {endpoint_url: 'http://SECRET@host/', zzz: 1}",
    "cache:\n  max_size: ${SECRET_VARIABLE}",
    "origin:\n  addressing_style: ${SECRET_VARIABLE}",
    "mounts:\n  - path: ${SECRET_VARIABLE}",
    "origin:\n  endpoint_url: http://u:${SECRET_VARIABLE}@host",
    "\x00admin: {token: SECRET}",
    "admin:\n  token: |\n    SECRET\x00\n",
]


@each_row("text", LEAKS)
def test_no_message_holds_a_secret(refuses: Refuses, text: str) -> None:
    """I28: whatever is wrong around a secret, no message contains it."""
    for broken in (text, f"{text}\n{MOUNTS}", f"{MOUNTS}{text}\n"):
        refusal = refuses(broken.replace("SECRET_VARIABLE", "V").replace("SECRET", SECRET), {"V": SECRET})
        assert SECRET not in refusal


def test_a_syntax_error_inside_a_secret_quotes_no_character_of_it(refuses: Refuses) -> None:
    """I28: PyYAML's message about a single character is left out as well, because the place is enough."""
    assert refuses("admin:\n  token: @x") == (
        "proxy.yaml:2:10 not valid YAML: found character that cannot start any token"
    )


@each_row(
    "environ",
    [
        {"BUCKETFRONT_ADMIN__TOKEN": f"{SECRET} x"},
        {"BUCKETFRONT_ADMIN": f"{{token: [{SECRET}]}}"},
        {"BUCKETFRONT_ADMIN": f"{{token: '{SECRET}"},
        {"BUCKETFRONT_ADMIN": f"{{{SECRET} x: 1}}"},
        {"BUCKETFRONT_ORIGIN__CREDENTIALS": SECRET},
        {"BUCKETFRONT_ORIGIN__CREDENTIALS": f"{{profile: !{SECRET}!x y}}"},
        {"BUCKETFRONT_ORIGIN__CREDENTIALS": f"{{{SECRET}: y}}"},
        {"BUCKETFRONT_CACHE__MAX_SIZE": SECRET},
        {"BUCKETFRONT_ORIGIN__ENDPOINT_URL": f"http://u:{SECRET}@h"},
    ],
)
def test_no_message_holds_a_variables_value(refuses: Refuses, environ: dict[str, str]) -> None:
    """I28: a variable is named, never shown."""
    assert SECRET not in refuses(MOUNTS, environ)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(40, 200))
@given(
    st.text(alphabet="\"'{}[]:,|>#&*!%@ \n-", max_size=6),
    st.text(alphabet="\"'{}[]:,|>#&*!%@ \n-", max_size=6),
    st.sampled_from(["admin:\n  token: ", "admin: {token: ", "origin:\n  credentials:\n    secret_access_key: "]),
)
def test_no_damage_around_a_secret_shows_it(tmp_path: Path, before: str, after: str, head: str) -> None:
    """I28: broken punctuation around a secret does not bring it into the message, unless it becomes a key."""
    assume(not ("\n" in before and ":" in after))
    path = tmp_path / "proxy.yaml"
    path.write_text(f"{head}{before}{SECRET}{after}\n{MOUNTS}")
    try:
        load(path, {})
    except ConfigError as error:
        assert SECRET not in str(error)  # noqa: PT017 - the success is a pass as well


def test_the_settings_import_neither_server_nor_client() -> None:
    """Reading settings loads neither aiohttp nor the AWS libraries, so `--help` stays quick."""
    code = (
        "import sys, bucketfront.config.loader\n"
        "print([name for name in ('aiohttp', 'aiobotocore', 'botocore', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@each_row(
    ("text", "problem"),
    [
        ("access: {a: {}}", "access.a: must have exactly one of bearer,"),
        (
            "access: {a: {networks: [10.0.0.1], bearer: {tokens: [0123456789abcdef]}}}",
            "access.a: must have exactly one",
        ),
        ("access: {public: {networks: [10.0.0.1]}}", "access.public: must be 1 to 64 letters"),
        ("access: {a: {networks: [10.0.0.1/8]}}", "access.a.networks[0]: must be an address or a network"),
        ("access: {a: {bearer: {tokens: [SECRET]}}}", "tokens of at least 16 visible ASCII characters"),
        ("access: {a: {bearer: {tokens: [sha256:SECRET]}}}", "or sha256: and 64 hex digits"),
        ("access: {a: {bearer: {token: [SECRET]}}}", "access.a.bearer.token: unknown key. Did you mean tokens?"),
        ("access: {a: {signed_url: {keys: {k1: SECRET}}}}", "must have at least 16 bytes"),
        ("access: {a: {jwt: {jwks: id.example.com, issuer: a, audience: b}}}", "must be an http:// or https:// URL"),
        ("access: {a: {forward: {url: http://u:SECRET@h/}}}", "must have neither credentials nor a fragment"),
        ("access: {a: {client_certificate: {fingerprints: []}}}", "client_certificate.fingerprints: must not be empty"),
        ("access: {a: {client_certificate: {uris: []}}}", "client_certificate.uris: must not be empty"),
        ("mounts: [{path: /, bucket: b, read: [team]}]", "mounts[0].read[0]: no rule of access has this name: public"),
        ("mounts: [{path: /, bucket: b, read: []}]", "mounts[0].read: must not be empty"),
    ],
)
def test_access_settings(tmp_path: Path, text: str, problem: str) -> None:
    """Each mistake in a rule is named with its place and the fix, and without the secret (I28, I30)."""
    path = tmp_path / "proxy.yaml"
    path.write_text(text if "mounts" in text else f"{text}\nmounts: [{{path: /, bucket: b}}]")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert problem in str(caught.value)
    assert "SECRET" not in str(caught.value)


@each_row(
    ("text", "place"),
    [
        ("mounts: [{path: /, bucket: b, methods: [GET, PUT]}]", "mounts[0].write"),
        ("mounts: [{path: /, bucket: b, methods: [GET, DELETE]}]", "mounts[0].write"),
        ("mounts: [{path: /a/, bucket: a, write: [public]}, {path: /, bucket: b}]\nuploads: {}", "mounts[1].write"),
    ],
)
def test_writes_beyond_loopback(tmp_path: Path, text: str, place: str) -> None:
    """A listener beyond loopback needs a rule for each mount that takes writes, or `public` in so many words."""
    path = tmp_path / "proxy.yaml"
    for host in ("0.0.0.0", "'*'", "192.0.2.1", "name.example"):
        path.write_text(f"server: {{host: {host}}}\n{text}")
        with pytest.raises(ConfigError, match=r"because server\.host is not loopback") as caught:
            load(path, {})
        assert place in str(caught.value)
    path.write_text(f"server: {{host: 127.0.0.1}}\n{text}")
    assert load(path, {})
    path.write_text(f"server: {{host: 0.0.0.0}}\n{text.replace('bucket: b', 'bucket: b, write: [public]')}")
    assert load(path, {})
