"""A stage that refuses a request does so on both paths, for every method and every key, before any lookup."""

import ast
import logging
from pathlib import Path

import pytest
from proxy_under_test import S3, Proxy, StartProxy, pattern
from test_delete_objects import document, result
from test_upload_forms import TYPE as FORM
from test_upload_forms import form, part
from tus_client import BODY, TUS, created, metadata, patched

from bucketfront import app
from bucketfront.config.settings import Settings
from bucketfront.errors import AccessDenied
from bucketfront.server import router
from bucketfront.server.fast_path.prepared import PreparedResponses, ResponseTemplates
from bucketfront.server.fast_path.recogniser import recogniser
from bucketfront.server.pipeline import Admission, Pipeline, Stage, build_pipeline
from bucketfront.server.router import Router

EVIL = "https://evil.example"
CREATION = {**TUS, "Upload-Length": "3"}
REFUSED_BY = ({"X-Refuse": "1"}, {"Cookie": "refuse"}, {"Origin": EVIL})
PREFLIGHT = {"Access-Control-Request-Method": "GET"}


class Refusal(AccessDenied):
    """The refusal of a stage that only tests have."""


class Gatekeeper:
    """A stage that refuses some fields, and all keys with one of `secret` in them. `seen` are the admissions."""

    def __init__(self, *, reads: frozenset[str] = frozenset(), checks_preflights: bool = False) -> None:
        self.secret = [b"secret"]
        self.seen: list[Admission] = []
        fields = frozenset({"x-refuse", "cookie", "origin"}) | reads
        self.stage = Stage("gatekeeper", fields, self._check, checks_preflights)

    def pipeline(self, settings: Settings) -> Pipeline:
        return Pipeline((self.stage, *build_pipeline(settings).stages))

    def _check(self, admission: Admission) -> None:
        self.seen.append(admission)
        fields = [admission.field(name) for name in ("x-refuse", "cookie", "origin")]
        is_secret = admission.key is not None and any(each in admission.key for each in self.secret)
        if is_secret or fields[0] or fields[1] == "refuse" or fields[2] == EVIL:
            raise Refusal("refused by a stage")


@pytest.fixture
def gatekeeper(monkeypatch: pytest.MonkeyPatch) -> Gatekeeper:
    """Each proxy that starts after this has the stage."""
    made = Gatekeeper()
    monkeypatch.setattr(app, "build_pipeline", made.pipeline)
    return made


@pytest.mark.usefixtures("gatekeeper")
@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("refused_by", REFUSED_BY)
async def test_refused(start: StartProxy, s3: S3, refused_by: dict[str, str], *, is_fast: bool) -> None:
    """A stage refuses every method and kind of request on either path, and serves what it admits."""
    proxy = await start(server={"fast_path": is_fast})
    etag = s3.put("x", pattern(1000))
    s3.put("secret", pattern(10))
    upload = proxy.app.settings.uploads
    assert upload is not None
    assert (await proxy.request("GET", "/x", refused_by)).status == 403  # cold
    for _ in range(3):
        assert (await proxy.get("/x")).status == 200
        await proxy.settled()
    if (path := proxy.app.fast_path).is_on:
        assert path.served
    for method in ("GET", "HEAD"):
        for more in ({}, {"Range": "bytes=1-9"}, {"If-None-Match": etag}):
            assert (await proxy.request(method, "/x", {**more, **refused_by})).status == 403
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    for method, target, headers in (
        ("OPTIONS", "/x", {}), ("OPTIONS", "*", {}), ("PUT", "/x", {}), ("DELETE", "/x", {}), ("POST", "/?delete", {}),
        ("POST", upload.path, multipart), ("POST", upload.path, CREATION), ("PATCH", f"{upload.path}/a", TUS),
        ("HEAD", f"{upload.path}/a", TUS), ("DELETE", f"{upload.path}/a", TUS),
    ):  # fmt: skip
        body = b"abc" if method in ("PUT", "POST", "PATCH") else None
        assert (await proxy.request(method, target, {**headers, **refused_by}, body)).status == 403, (method, target)
    assert (await proxy.get("/secret")).status == 403
    assert (await proxy.get("/x")).status == 200
    assert s3.get("x") == pattern(1000)


async def test_keys_of_forms(start: StartProxy, s3: S3, gatekeeper: Gatekeeper) -> None:
    """A form's `key` field and its files' names are admitted one by one. Files before the refused one stay stored."""
    methods = ["GET", "HEAD", "POST"]
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "methods": methods, "key_template": "{filename}"}])
    file = part("file", b"abc", "a")
    refused = await proxy.request("POST", "/upload", FORM, form(part("key", b"secret/a"), file))
    assert refused.status == 403
    assert (await proxy.request("POST", "/", FORM, form(part("file", b"abc", "secret.txt")))).status == 403
    assert (await proxy.request("POST", "/secret/", FORM, form(file))).status == 403
    assert s3.keys() == []
    response = await proxy.request("POST", "/", FORM, form(file, part("file", b"abc", "secret.txt")))
    assert (response.status, [one["key"] for one in response.json()["stored"]]) == (403, ["a"])
    assert s3.keys() == ["a"]
    assert b"a" in [admission.key for admission in gatekeeper.seen]


@pytest.mark.usefixtures("gatekeeper")
async def test_keys_that_the_proxy_makes(start: StartProxy, s3: S3) -> None:
    """A key that the mount's template makes for a POST to a folder is admitted like any other."""
    template = {"path": "/", "bucket": s3.bucket, "methods": ["GET", "POST"], "key_template": "secret/{ulid}"}
    proxy = await start(mounts=[template])
    for target in ("/", "/a/", "/upload"):
        assert (await proxy.request("POST", target, body=b"abc")).status == 403
    assert (await proxy.request("POST", "/upload", CREATION)).status == 403
    assert s3.keys() == []


async def test_keys_of_tus_uploads(proxy_with_stage: Proxy, s3: S3, gatekeeper: Gatekeeper) -> None:
    """The key in Upload-Metadata is admitted at the creation, and again at each later request of the upload."""
    proxy = proxy_with_stage
    for named in (metadata(key="secret"), metadata(filename="secret")):
        template_names_it = (await proxy.request("POST", "/upload", {**CREATION, "Upload-Metadata": named})).status
        assert template_names_it == 403
    url = await created(proxy, 3, key="later")
    gatekeeper.secret.append(b"later")
    gatekeeper.seen.clear()
    for method, headers in (("HEAD", TUS), ("PATCH", {**BODY, "Upload-Offset": "0"}), ("DELETE", TUS)):
        body = b"abc" if method == "PATCH" else None
        assert (await proxy.request(method, url, headers, body)).status == 403
        assert [(one.method, one.key) for one in gatekeeper.seen[-2:]] == [(method, None), (method, b"later")]
    overriding = {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await proxy.request("POST", url, overriding, b"abc")).status == 403
    assert gatekeeper.seen[-1].method == "PATCH"
    assert s3.keys() == []
    gatekeeper.secret.remove(b"later")
    assert (await patched(proxy, url, 0, b"abc")).status == 204
    assert s3.get("later") == b"abc"


async def test_keys_of_delete_objects(proxy_with_stage: Proxy, s3: S3, gatekeeper: Gatekeeper) -> None:
    """A refused key fails alone, with S3's code for it. To a stage, the request is a DELETE."""
    for key in ("a", "secret", "b"):
        s3.put(key, b"data")
    response = await proxy_with_stage.request("POST", "/?delete", body=document("a", "secret", "b"))
    assert result(response) == (["a", "b"], {"secret": "AccessDenied"})
    assert s3.keys() == ["secret"]
    keys = [(admission.method, admission.key) for admission in gatekeeper.seen]
    assert keys == [("DELETE", None), ("DELETE", b"a"), ("DELETE", b"secret"), ("DELETE", b"b")]


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize(
    ("target", "secret"),
    [
        ("/", b"index.html"),
        ("/docs/", b"docs/index.html"),
        ("/about", b"about.html"),
        ("/none", b"fallback.html"),
        ("/a.js", b"a.js.br"),
        ("/docs", b"docs/index.html"),
    ],
)
async def test_keys_of_candidates(
    start: StartProxy, s3: S3, gatekeeper: Gatekeeper, target: str, secret: bytes, *, is_fast: bool
) -> None:
    """Each object that may serve a path is admitted: index, extension, fallback, sibling and a folder's index."""
    site = {"try_extensions": [".html"], "fallback": "fallback.html"}
    mount = {"path": "/", "bucket": s3.bucket, "site": site, "precompressed": ["br"]}
    proxy = await start(mounts=[mount], uploads=None, server={"fast_path": is_fast})
    for key in ("index.html", "docs/index.html", "about.html", "fallback.html", "a.js", "a.js.br"):
        s3.put(key, b"data")
    for _ in range(2):
        assert (await proxy.get(target, Accept_Encoding="br")).status in (200, 301)
    gatekeeper.secret.append(secret)
    if (path := proxy.app.fast_path).is_on:
        assert isinstance(path.prepared, PreparedResponses)
        path.prepared._templates = ResponseTemplates()  # a verdict on the same request does not change
    response = await proxy.get(target, Accept_Encoding="br")
    assert (response.status, response.body == b"data") == (403, False)


async def test_keys_of_error_documents(start: StartProxy, s3: S3, gatekeeper: Gatekeeper) -> None:
    """An error document that a stage refuses is not sent; the client gets the plain error."""
    mount = {"path": "/", "bucket": s3.bucket, "site": {"errors": {"404": "404.html"}}}
    proxy = await start(mounts=[mount], uploads=None)
    s3.put("404.html", b"page")
    assert (await proxy.get("/none")).body == b"page"
    gatekeeper.secret.append(b"404.html")
    response = await proxy.get("/none")
    assert (response.status, response.body == b"page") == (404, False)


@pytest.mark.parametrize("checks_preflights", [True, False])
async def test_preflights(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, *, checks_preflights: bool
) -> None:
    """A stage sees a CORS preflight only if it declares so, because a preflight never has credentials."""
    stage = Gatekeeper(checks_preflights=checks_preflights)
    monkeypatch.setattr(app, "build_pipeline", stage.pipeline)
    proxy = await start(cors={"allow_origins": ["*"]})
    response = await proxy.request("OPTIONS", "/secret", {**PREFLIGHT, "Origin": "https://page.example"})
    assert response.status == (403 if checks_preflights else 204)
    assert len(stage.seen) == checks_preflights
    for headers in ({}, PREFLIGHT, {"Origin": "https://page.example"}):  # none of them is a preflight
        assert (await proxy.request("OPTIONS", "/secret", headers)).status == 403
    assert not s3.keys()


async def test_options_of_the_server(proxy_with_stage: Proxy, gatekeeper: Gatekeeper) -> None:
    """`OPTIONS *` passes the stages as well, without a mount and a key."""
    assert (await proxy_with_stage.request("OPTIONS", "*")).status == 204
    ((admission),) = gatekeeper.seen
    assert (admission.method, admission.mount, admission.key) == ("OPTIONS", None, None)


@pytest.fixture
async def proxy_with_stage(start: StartProxy, s3: S3, gatekeeper: Gatekeeper) -> Proxy:
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    mount = {"path": "/", "bucket": s3.bucket, "methods": methods, "key_template": "{filename}"}
    proxy = await start(mounts=[mount])
    gatekeeper.seen.clear()
    return proxy


async def test_a_field_that_turns_the_fast_path_off(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one line if a stage reads a field that cannot keep prepared responses apart."""
    caplog.set_level(logging.INFO, logger="bucketfront")
    monkeypatch.setattr(app, "build_pipeline", Gatekeeper(reads=frozenset({"user-agent"})).pipeline)
    proxy = await start()
    s3.put("x", b"data")
    assert (await proxy.get("/x")).status == 200
    assert not proxy.app.fast_path.is_on
    lines = [record.getMessage() for record in caplog.records if "fast path" in record.getMessage()]
    assert lines == ["the fast path is off: a stage reads user-agent"]


async def test_a_route_needs_the_pipeline(start: StartProxy) -> None:
    """A route gives no key before the pipeline has admitted it, so that a handler cannot bypass a stage."""
    settings = (await start()).app.settings
    route = Router(settings.mounts, settings.uploads).resolve("GET", "/x")
    for take in (route.key, route.key_to_write):
        with pytest.raises(LookupError, match="pipeline"):
            take()
    with pytest.raises(LookupError, match="pipeline"):
        route.key_in_mount("x")
    admitted = build_pipeline(settings).admit("GET", route, lambda _: None)
    assert admitted.key().key == "x"


def test_only_a_route_makes_keys() -> None:
    """In `server/`, no module but the router makes a key, and none takes a key without the pipeline."""
    home = Path(router.__file__)
    for path in home.parent.rglob("*.py"):
        if path == home:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("ObjectKey", "keys.ObjectKey"), path
            if isinstance(node, ast.Attribute):
                assert node.attr != "unadmitted_key", path


def test_undeclared_fields_are_refused() -> None:
    """A stage reads what it declares and nothing else: another field would decide on one of the two paths only."""
    fields = {"cookie": "a", "origin": "b"}
    read = Stage("careless", frozenset({"cookie"})).declared(fields.get)
    assert read("cookie") == "a"
    with pytest.raises(LookupError, match="origin"):
        read("origin")


def test_declared_fields_reach_the_recogniser() -> None:
    """A declared field is read or sends the request to the ordinary path; one that can do neither is refused."""
    head = b"GET /x HTTP/1.1\r\nHost: a\r\nCookie: b\r\n\r\n"
    assert recogniser(frozenset())(head) is not None
    assert recogniser(frozenset({"cookie"}))(head) is None
    with pytest.raises(ValueError, match="host"):
        recogniser(frozenset({"host"}))


@pytest.mark.parametrize("is_fast", [True, False])
async def test_a_redirect_to_a_mount_passes_the_stages(
    start: StartProxy, s3: S3, gatekeeper: Gatekeeper, *, is_fast: bool
) -> None:
    """The stages see a request for a mount without its slash, with the mount and no key, before it is redirected."""
    proxy = await start(mounts=[{"path": "/sub/", "bucket": s3.bucket}], uploads=None, server={"fast_path": is_fast})
    assert (await proxy.get("/sub")).status == 308
    assert [(one.method, one.key, one.mount and one.mount.path) for one in gatekeeper.seen] == [("GET", None, "/sub/")]
    for refused_by in REFUSED_BY:
        response = await proxy.request("GET", "/sub", refused_by)
        assert response.status == 403
        assert "Location" not in response.headers


async def test_a_misspelled_mount(start: StartProxy, s3: S3, gatekeeper: Gatekeeper) -> None:
    """The stages see a request with needless escapes in its mount, with mount and key, before it is redirected."""
    proxy = await start(mounts=[{"path": "/files/", "bucket": s3.bucket}], uploads=None)
    gatekeeper.seen.clear()
    assert (await proxy.get("/%66iles/x")).status == 308
    (admission,) = gatekeeper.seen
    assert (admission.method, admission.mount and admission.mount.path, admission.key) == ("GET", "/files/", b"x")
    assert (await proxy.get("/%66iles/secret")).status == 403
