"""A stage that refuses a request does so on both paths, for every method, before any lookup."""

import pytest
from proxy_under_test import S3, StartProxy, pattern

from bucketfront import app
from bucketfront.config.settings import Settings
from bucketfront.errors import AccessDenied
from bucketfront.server.fast_path.recogniser import recogniser
from bucketfront.server.pipeline import Admission, Pipeline, Stage, build_pipeline

EVIL = "https://evil.example"
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
REFUSED_BY = ({"X-Refuse": "1"}, {"Cookie": "refuse"}, {"Origin": EVIL})


class Refusal(AccessDenied):
    """The refusal of a stage that only tests have."""


def _refuse(admission: Admission) -> None:
    fields = [admission.field(name) for name in ("x-refuse", "cookie", "origin")]
    if admission.key.startswith(b"secret") or fields[0] or fields[1] == "refuse" or fields[2] == EVIL:
        raise Refusal("refused by a stage")


def _refusing(settings: Settings) -> Pipeline:
    stage = Stage("refusal", frozenset({"x-refuse", "cookie", "origin"}), _refuse)
    return Pipeline((stage, *build_pipeline(settings).stages))


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("refused_by", REFUSED_BY)
async def test_refused(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, refused_by: dict[str, str], *, is_fast: bool
) -> None:
    """A stage refuses every method and kind of request on either path, and what it lets pass is served."""
    monkeypatch.setattr(app, "build_pipeline", _refusing)
    proxy = await start(server={"fast_path": is_fast})
    etag = s3.put("x", pattern(1000))
    s3.put("secret", pattern(10))
    upload = proxy.app.settings.uploads
    assert upload is not None
    assert (await proxy.ask("GET", "/x", refused_by)).status == 403  # cold
    for _ in range(3):
        assert (await proxy.get("/x")).status == 200
        await proxy.settled()
    if (path := proxy.app.fast_path) is not None:
        assert path.served
    for method in ("GET", "HEAD"):
        for more in ({}, {"Range": "bytes=1-9"}, {"If-None-Match": etag}):
            assert (await proxy.ask(method, "/x", {**more, **refused_by})).status == 403
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for method, target, headers in (
        ("OPTIONS", "/x", {}), ("PUT", "/x", {}), ("DELETE", "/x", {}), ("POST", "/?delete", {}),
        ("POST", upload.path, form), ("POST", upload.path, TUS), ("PATCH", f"{upload.path}/a", TUS),
        ("HEAD", f"{upload.path}/a", TUS),
    ):  # fmt: skip
        body = b"abc" if method in ("PUT", "POST", "PATCH") else None
        assert (await proxy.ask(method, target, {**headers, **refused_by}, body)).status == 403, (method, target)
    assert (await proxy.get("/secret")).status == 403
    assert (await proxy.get("/x")).status == 200
    assert s3.get("x") == pattern(1000)


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
