"""Signed URLs and signed cookies, as rules and in the path of a request."""

import asyncio
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import S3, StartProxy
from rows import each_row
from test_delete_objects import document

from bucketfront.config.access_settings import SignedUrlSettings
from bucketfront.server.access import signed_url
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict
from bucketfront.server.access.signed_url import COOKIE, Permission, SignedUrlRule

ALL = ["GET", "HEAD", "PUT", "POST", "DELETE"]
NOW = 1_800_000_000
SECRETS = {"k1": "an old secret of the app", "k2": "its new secret, also known"}
SETTINGS = SignedUrlSettings.model_validate({"keys": SECRETS, "max_age": "1h", "cookies": True})
RULE = SignedUrlRule(SETTINGS)

visible = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#")
paths = st.text(visible, max_size=12).map("/".__add__)


def examined(
    method: str, target: str, *, cookie: str | None = None, address: str = "192.0.2.7", now: int = NOW
) -> RuleVerdict:
    path, _, query = target.partition("?")
    fields: Mapping[str, str | None] = {"cookie": cookie}
    request = AccessRequest(method, path, query, fields.get, ipaddress.ip_address("192.0.2.7"), now)
    return asyncio.run(RULE.examine(request))


def signed(method: str, path: str, *, key: str = "k1", expires: int = NOW + 60, network: str = "") -> str:
    return signed_url.signed_url(Permission(method, path, expires, network), key, SECRETS[key])


def test_the_signature_of_the_design() -> None:
    """The signature is the one that the recipe of docs/access.md has as its example."""
    permission = Permission("GET", "/films/a%20b.mp4", 1_800_000_060)
    assert permission.signature(SECRETS["k1"]) == "r9Z5fl5ZpAOCW9orV66AGEwjGMLZtexwdb24cz0B-t8"


@given(method=st.sampled_from(ALL), path=paths, key=st.sampled_from(sorted(SECRETS)))
def test_a_signed_url_holds(method: str, path: str, key: str) -> None:
    """A URL that is signed with any of the keys holds for its method and path."""
    assert isinstance(examined(method, signed(method, path, key=key)), Grant)


@given(
    method=st.sampled_from(ALL),
    other=st.sampled_from([*ALL, "PATCH", "TREE"]),
    path=paths,
    changed=paths,
    parameter=st.sampled_from(["bf_key", "bf_expires", "bf_sig", "bf_net", None]),
    value=st.text(visible, min_size=1, max_size=8),
)
def test_nothing_else_holds(
    method: str, other: str, path: str, changed: str, parameter: str | None, value: str
) -> None:
    """A signature holds for no other method, path or parameter. Only one for GET holds for HEAD too."""
    target = signed(method, path)
    query = dict(part.split("=", 1) for part in target.rpartition("?")[2].split("&"))
    if parameter is not None and query.get(parameter) != value:
        assert isinstance(examined(method, f"{path}?{urlencode(query | {parameter: value})}"), Denial)
    if changed != path:
        assert isinstance(examined(method, f"{changed}?{target.rpartition('?')[2]}"), Denial)
    if other != method and (method, other) != ("GET", "HEAD"):
        assert isinstance(examined(other, target), Denial)
    if method == "GET":
        assert isinstance(examined("HEAD", target), Grant)


@each_row(
    ("expires", "now", "holds"),
    [(NOW, NOW, True), (NOW - 1, NOW, False), (NOW + 3600, NOW, True), (NOW + 3720, NOW, False), (-1, NOW, False)],
)
def test_times(expires: int, now: int, *, holds: bool) -> None:
    """A URL holds until it expires, and not at all if that is further away than `max_age`."""
    assert isinstance(examined("GET", signed("GET", "/a", expires=expires), now=now), Grant) is holds


@each_row(
    ("network", "holds"),
    [("192.0.2.0/24", True), ("192.0.2.7", True), ("198.51.100.0/24", False), ("2001:db8::/32", False), ("x", False)],
)
def test_networks(network: str, *, holds: bool) -> None:
    """A URL for a network holds for its addresses only, and not if that is no network."""
    assert isinstance(examined("GET", signed("GET", "/a", network=network)), Grant) is holds


@each_row("query", ["versionId=1", "response-content-type=text/html", "response-expires=0"])
def test_parameters_that_are_not_signed(query: str) -> None:
    """A signature does not cover parameters that select a version or change the response, so they void it."""
    assert isinstance(examined("GET", f"{signed('GET', '/a')}&{query}"), Denial)
    assert isinstance(examined("GET", f"{signed('GET', '/a')}&t=1"), Grant)


@each_row(
    ("method", "path", "holds"),
    [
        ("GET", "/films/a/", True),
        ("HEAD", "/films/a/b/c.ts", True),
        ("GET", "/films/a", False),
        ("GET", "/films/ab/c.ts", False),
        ("GET", "/films%2Fa/b", False),
        ("GET", "/films/a/../b", False),
        ("GET", "/films/a/%2e%2E/b", False),
        ("GET", "/films/a/./b", False),
        ("GET", "/films/a/..%2fb", False),
        ("GET", "/films/a/x%2F%2e%2e%2Fb", False),
        ("GET", "/films/a/b?versionId=1", False),
        ("GET", "/films/a/b?response-content-type=text/html", False),
        ("PUT", "/films/a/b", False),
        ("TREE", "/films/a/", False),
    ],
)
def test_cookies(method: str, path: str, *, holds: bool) -> None:
    """A cookie permits reads below its folder, and no path that leaves it when dot segments are resolved."""
    value = signed_url.signed_cookie(Permission("GET", "/films/a/", NOW + 60), "k2", SECRETS["k2"])
    for cookie in (f"{COOKIE}={value}", f"x=y; {COOKIE}=bf_path=/&bf_key=k1; {COOKIE}={value}"):
        assert isinstance(examined(method, path, cookie=cookie), Grant) is holds


def test_a_url_is_no_cookie() -> None:
    """The signature of a folder's URL is not one of a cookie for all that is below it."""
    query = signed("GET", "/films/").rpartition("?")[2]
    assert isinstance(examined("GET", "/films/a", cookie=f"{COOKIE}=bf_path=/films/&{query}"), Denial)


async def test_requests_with_signed_urls(start: StartProxy, s3: S3) -> None:
    """Signed URLs read, write and delete what they name, and nothing else. Their parameters do not count as others of
    the query. A folder's URL takes uploads into that folder only.
    """
    rules = {"links": {"signed_url": {"keys": SECRETS}}}
    guarded = {"methods": ALL, "read": ["links"], "write": ["links"], "query": "refuse"}
    proxy = await start(access=rules, mounts=[{"path": "/", "bucket": s3.bucket, **guarded}])
    expires = int(proxy.clock.now) + 60

    def target(method: str, path: str) -> str:
        return signed(method, path, expires=expires)

    assert (await proxy.request("PUT", target("PUT", "/a/b%20c"), body=b"data")).status == 201
    read = await proxy.request("GET", target("GET", "/a/b%20c"), {"Range": "bytes=1-2"})
    assert (read.status, read.body, read.headers["Cache-Control"]) == (206, b"at", "private")
    assert (await proxy.request("HEAD", target("GET", "/a/b%20c"))).status == 200
    for method, path in (("GET", "/a/b c"), ("GET", "/a/c"), ("PUT", "/a/b%20c"), ("DELETE", "/a/b%20c")):
        query = target("GET", "/a/b%20c").rpartition("?")[2]
        refused = await proxy.request(
            method, f"{path.replace(' ', '+')}?{query}", body=b"x" if method == "PUT" else None
        )
        assert refused.status == 403
        assert "WWW-Authenticate" not in refused.headers
    assert (await proxy.request("POST", target("POST", "/in/"), body=b"new")).status == 201
    for method in ("POST", "DELETE"):
        response = await proxy.request("POST", f"{target(method, '/')}&delete", body=document("a/b c"))
        assert response.status == 403
    assert (await proxy.request("DELETE", target("DELETE", "/a/b%20c"))).status == 204
    (kept,) = s3.keys()
    assert kept.startswith("in/")
    proxy.clock.advance(61)
    assert (await proxy.request("GET", target("GET", "/a/b%20c"))).status == 403
    assert "bf_sig" not in str(proxy.log)
