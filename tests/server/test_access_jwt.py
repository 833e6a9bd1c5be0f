"""JSON Web Tokens of an identity provider, and an app that decides: rules that ask others."""

import asyncio
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from proxy_under_test import S3, StartProxy

from bucketfront.config.access_settings import ForwardSettings, JwtSettings
from bucketfront.errors import AccessUnavailable
from bucketfront.server.access.forward import REPORT_INTERVAL_S, ForwardRule
from bucketfront.server.access.http_client import MAX_CONNECTIONS
from bucketfront.server.access.jwt import REFRESH_S, RETRY_S, JwtRule
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict

RSA, EC, ED = (
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
)
KEYS: dict[str, tuple[str, Any]] = {"RS256": ("r", RSA), "ES256": ("e", EC), "EdDSA": ("d", ED)}
CLAIMS = {"iss": "https://id.example", "aud": "media"}


class Clock:
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Other:
    """A server beside the proxy. `asked` are the requests, `answer` is its status, and `body` what it sends."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer = 200
        self.body: object = {}
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        body = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return web.Response(status=self.answer, text=body, headers={"Location": "/elsewhere"})


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    served = Other()
    runner = web.ServerRunner(web.Server(served))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"{site.name}/keys"
    yield served
    await runner.cleanup()


def published(*names: str) -> dict[str, object]:
    """Return the JWKS document with the public keys of these algorithms."""
    makers: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    keys = []
    for name in names:
        key_id, private = KEYS[name]
        keys.append(
            {**makers[name].to_jwk(private.public_key(), as_dict=True), "kid": key_id, "alg": name, "use": "sig"}
        )
    return {"keys": keys}


def token(algorithm: str = "RS256", key: Any = None, kid: str | None = None, **claims: Any) -> str:
    key_id, private = KEYS.get(algorithm, ("r", None))
    given = {"exp": time.time() + 600, **CLAIMS, **claims}
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key or private, algorithm=algorithm, headers={"kid": kid or key_id})


def request(authorization: str | None = None, method: str = "GET", path: str = "/a", **fields: str) -> AccessRequest:
    known = {"authorization": authorization, **fields}
    return AccessRequest(method, path, "", known.get, None, time.time())


async def said(rule: JwtRule, credential: str) -> RuleVerdict:
    return await rule.examine(request(f"Bearer {credential}"))


@pytest.fixture
async def rule(other: Other) -> AsyncIterator[JwtRule]:
    other.body = published(*KEYS)
    settings = {"jwks": other.url, "issuer": CLAIMS["iss"], "audience": CLAIMS["aud"]}
    made = JwtRule(JwtSettings.model_validate(settings), Clock())
    yield made
    await made.close()


async def test_valid_tokens(rule: JwtRule, other: Other) -> None:
    """Tokens of all three algorithms hold, and the keys are fetched once for all of them."""
    for algorithm in KEYS:
        assert await said(rule, token(algorithm)) == Grant()
    assert await said(rule, token(aud=["x", "media"])) == Grant()
    assert len(other.asked) == 1
    assert await rule.examine(request()) == Denial()
    assert await rule.examine(request("Basic x")) == Denial()


async def test_invalid_tokens(rule: JwtRule) -> None:
    """A token that is expired, early, of another issuer or audience, changed, or without a required claim is refused.
    So is one with the algorithm `none`, with a shared secret, or with that of another key.
    """
    head, body, signature = token().split(".")
    for bad in (
        token(exp=time.time() - 61),
        token(nbf=time.time() + 90),
        token(exp=None),
        token(iss="https://other.example"),
        token(iss=None),
        token(aud="other"),
        token(aud=None),
        token("none", key=""),
        token("HS256", key="a shared secret that nobody shares with anybody"),
        token("ES256", kid="r"),
        token(key=rsa.generate_private_key(65537, 2048)),
        f"{head}.{body}x.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "",
        "a.b.c",
        "x" * 9000,
    ):
        verdict = await said(rule, bad)
        assert isinstance(verdict, Denial), bad
        assert verdict.reason
    assert await said(rule, token(exp=time.time() - 30)) == Grant()  # within the clock skew


async def test_claims_that_limit(other: Other) -> None:
    """Claims limit prefixes of keys and methods. A token without the claim permits nothing."""
    other.body = published("RS256")
    settings = {"jwks": other.url, "issuer": CLAIMS["iss"], "audience": CLAIMS["aud"]}
    limits = {"prefix_claim": "prefix", "methods_claim": "methods"}
    rule = JwtRule(JwtSettings.model_validate({**settings, **limits}), Clock())
    grant = await said(rule, token(prefix="users/7/", methods=["get", "PUT"]))
    assert isinstance(grant, Grant)
    assert grant.permits("HEAD", b"users/7/a")
    assert grant.permits("PUT", None)
    assert not grant.permits("GET", b"users/70")
    assert not grant.permits("DELETE", b"users/7/a")
    several = await said(rule, token(prefix=["a/", "b/"], methods="GET"))
    assert isinstance(several, Grant)
    assert several.permits("GET", b"b/x")
    for claims in (
        {"prefix": "a/"},
        {"methods": ["GET"]},
        {"prefix": 1, "methods": ["GET"]},
        {"prefix": [1], "methods": []},
    ):
        assert isinstance(await said(rule, token(**claims)), Denial)
    nothing = await said(rule, token(prefix=[], methods=["GET"]))
    assert isinstance(nothing, Grant)
    assert not nothing.permits("GET", b"a")
    await rule.close()


async def test_rotated_keys(other: Other) -> None:
    """An unknown key id has the keys fetched again, but not more often than every RETRY_S. They are fetched anew after
    REFRESH_S, and a withdrawn key then counts no more. Known keys stay in use while the issuer fails.
    """
    clock = Clock()
    other.body = published("RS256")
    settings = {"jwks": other.url, "issuer": CLAIMS["iss"], "audience": CLAIMS["aud"]}
    rule = JwtRule(JwtSettings.model_validate(settings), clock)
    assert await said(rule, token()) == Grant()
    other.body = published("ES256")
    for _ in range(3):
        assert isinstance(await said(rule, token("ES256")), Denial)
    assert len(other.asked) == 1
    clock.now += RETRY_S
    assert await said(rule, token("ES256")) == Grant()
    assert isinstance(await said(rule, token()), Denial)  # withdrawn
    for status, body in ((500, {}), (302, {}), (200, "no json"), (200, {"keys": 1}), (200, "x" * (300 << 10))):
        other.answer, other.body = status, body
        clock.now += REFRESH_S
        assert await said(rule, token("ES256")) == Grant()
    await rule.close()


async def test_without_keys(other: Other) -> None:
    """While no keys are known, nobody is let in, and the request may be tried again later."""
    other.answer = 503
    settings = {"jwks": other.url, "issuer": CLAIMS["iss"], "audience": CLAIMS["aud"]}
    rule = JwtRule(JwtSettings.model_validate(settings), Clock())
    with pytest.raises(AccessUnavailable):
        await said(rule, token())
    await rule.close()


async def test_the_app_decides(other: Other) -> None:
    """A 2xx of the app permits the path, 401 and 403 refuse it, and anything else is a failure. The app sees method,
    path, host and credentials, and nothing else of the client.
    """
    rule = ForwardRule(ForwardSettings.model_validate({"url": other.url}), Clock())
    asked = request("Bearer x", "PUT", "/a%20b", cookie="c=1", host="media.example", accept="*/*")
    for status, expected in ((200, Grant), (204, Grant), (401, Denial), (403, Denial)):
        other.answer = status
        assert isinstance(await rule.examine(asked), expected)
    for status in (302, 404, 500):
        other.answer = status
        with pytest.raises(AccessUnavailable):
            await rule.examine(asked)
    sent = other.asked[0]
    assert sent["x-forwarded-method"] == "PUT"
    assert sent["x-forwarded-uri"] == "/a%20b"
    assert sent["x-forwarded-host"] == "media.example"
    assert (sent["authorization"], sent["cookie"]) == ("Bearer x", "c=1")
    await rule.close()
    rule = ForwardRule(ForwardSettings.model_validate({"url": "http://127.0.0.1:9/"}), Clock())
    with pytest.raises(AccessUnavailable):
        await rule.examine(asked)
    await rule.close()


async def test_an_app_that_fails_does_not_flood_the_log(other: Other, caplog: pytest.LogCaptureFixture) -> None:
    """While the app fails, one line in REPORT_INTERVAL_S says so, however many requests come."""
    clock = Clock()
    rule = ForwardRule(ForwardSettings.model_validate({"url": other.url}), clock)
    other.answer = 500
    for _ in range(3):
        with pytest.raises(AccessUnavailable):
            await rule.examine(request("Bearer x"))
    assert [record.getMessage() for record in caplog.records] == [
        f"access cannot be decided: {other.url} responded 500"
    ]
    clock.now += REPORT_INTERVAL_S
    with pytest.raises(AccessUnavailable):
        await rule.examine(request("Bearer x"))
    assert len(caplog.records) == 2
    await rule.close()


async def test_decisions_queue_by_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with many undecided requests delays another one by a single decision (I34)."""
    rule = ForwardRule(ForwardSettings.model_validate({"url": "http://app.example/may", "remember": "5s"}), Clock())
    begun: list[str] = []
    free = asyncio.Semaphore(0)

    async def get(_url: str, fields: dict[str, str], _max_bytes: int) -> tuple[int, bytes]:
        begun.append(fields["x-forwarded-for"])
        await free.acquire()
        return 200, b""

    monkeypatch.setattr(rule._client, "get", get)

    def examined(client: str, credential: str) -> "asyncio.Task[RuleVerdict]":
        asked = replace(request(credential), address=ipaddress.ip_address(client))
        return asyncio.create_task(rule.examine(asked))

    greedy = [examined("192.0.2.1", f"Bearer {number}") for number in range(2 * MAX_CONNECTIONS)]
    await asyncio.sleep(0)
    honest = examined("198.51.100.1", "Bearer x")
    for _ in range(10):
        await asyncio.sleep(0)
    assert begun == ["192.0.2.1"] * MAX_CONNECTIONS
    free.release()
    free.release()
    for _ in range(10):
        await asyncio.sleep(0)
    assert sorted(begun[MAX_CONNECTIONS:]) == ["192.0.2.1", "198.51.100.1"]
    for _ in greedy:
        free.release()
    assert isinstance(await honest, Grant)
    assert all(isinstance(verdict, Grant) for verdict in await asyncio.gather(*greedy))
    assert rule._slots.shares.used == rule._slots.waiting == 0
    await rule.close()


async def test_answers_that_are_remembered(other: Other) -> None:
    """An answer holds for the set time, for the same method, path and credentials only."""
    clock = Clock()
    rule = ForwardRule(ForwardSettings.model_validate({"url": other.url, "remember": "5s"}), clock)
    for _ in range(3):
        assert isinstance(await rule.examine(request("Bearer x")), Grant)
    assert len(other.asked) == 1
    other.answer = 403
    for changed in (
        request("Bearer y"),
        request("Bearer x", "HEAD"),
        request("Bearer x", path="/b"),
        request(cookie="c"),
    ):
        assert isinstance(await rule.examine(changed), Denial)
    assert isinstance(await rule.examine(request("Bearer x")), Grant)
    clock.now += 5
    assert isinstance(await rule.examine(request("Bearer x")), Denial)
    await rule.close()


async def test_a_client_that_leaves_while_the_app_decides(other: Other) -> None:
    """A client that leaves does not end the decision that another one waits for."""
    rule = ForwardRule(ForwardSettings.model_validate({"url": other.url, "remember": "5s"}), Clock())
    leaving, staying = (asyncio.ensure_future(rule.examine(request("Bearer x"))) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert isinstance(await staying, Grant)
    assert len(other.asked) == 1
    await rule.close()


async def test_requests_of_token_holders(start: StartProxy, s3: S3, other: Other) -> None:
    """A token with a prefix reads and writes below it, by whatever route, and gets 403 elsewhere. While the issuer has
    no keys, clients get 503 with Retry-After, and the public mount goes on.
    """
    other.body = published("RS256")
    settings = {"jwks": other.url, "issuer": CLAIMS["iss"], "audience": CLAIMS["aud"], "prefix_claim": "prefix"}
    guarded = {"bucket": s3.bucket, "methods": ["GET", "PUT", "POST"], "read": ["users"], "write": ["users"]}
    mounts = [{"path": "/", **guarded}, {"path": "/open/", "bucket": s3.bucket, "prefix": "open/"}]
    rules = {"users": {"jwt": settings}}
    proxy = await start(access=rules, mounts=mounts)
    bearer = {"Authorization": f"Bearer {token(prefix='u/7/')}"}
    s3.put("u/8/a", b"other")
    s3.put("open/a", b"open")
    assert (await proxy.request("PUT", "/u/7/a", bearer, b"mine")).status == 201
    assert (await proxy.request("GET", "/u/7/a", bearer)).body == b"mine"
    for method, target in (("GET", "/u/8/a"), ("PUT", "/u/8/a"), ("POST", "/upload/u/8/b"), ("POST", "/")):
        body = None if method == "GET" else b"x"
        assert (await proxy.request(method, target, bearer, body)).status == 403, target
    expired = await proxy.request("GET", "/u/7/a", {"Authorization": f"Bearer {token(exp=1)}"})
    assert (expired.status, b"expired" in expired.body) == (401, True)
    assert (await proxy.get("/open/a")).body == b"open"
    await proxy.stop()
    other.answer = 500
    proxy = await start(access=rules, mounts=mounts)
    refused = await proxy.request("GET", "/u/7/a", bearer)
    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert (await proxy.get("/open/a")).status == 200
