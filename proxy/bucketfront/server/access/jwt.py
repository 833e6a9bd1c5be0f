"""The rule of JSON Web Tokens (RFC 7519), with the keys that their issuer publishes (RFC 7517)."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import jwt
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import InvalidTokenError, PyJWKError, PyJWKSetError

from bucketfront.config.access_settings import JwtSettings
from bucketfront.errors import AccessUnavailable
from bucketfront.server.access.bearer import CHALLENGE
from bucketfront.server.access.http_client import HttpClient, shown
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope, credentials

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
REFRESH_S = 3600.0  # after which the keys are fetched again
RETRY_S = 30.0  # at least between two fetches, so that tokens with invented key ids do not cause many
FETCH_TIMEOUT_S = 5.0
MAX_KEYS_BYTES = 256 << 10
MAX_TOKEN_CHARS = 8 << 10
MAX_SUBJECT_CHARS = 256  # RFC 7519 bounds none; it is kept for each client that is there

log = logging.getLogger(__name__)


class JwtRule:
    """Holds for requests with a token of the issuer. `elapsed` is a clock in seconds."""

    scope = Scope.MOUNT
    challenge = CHALLENGE

    def __init__(self, settings: JwtSettings, elapsed: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = PublishedKeys(settings.jwks, elapsed)

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        token = credentials(request.field("authorization"), "bearer")
        if token is None:
            return Denial()
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            return Denial("the token is not valid")
        try:
            header = jwt.get_unverified_header(token)
        except InvalidTokenError:
            return Denial("the token is not valid")
        key = await self._keys.find(header.get("kid"))
        if key is None:
            return Denial("the token is signed with an unknown key")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[name for name in ALGORITHMS if name == key.algorithm_name],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.clock_skew,
                options={"require": ["exp", "iss", "aud"]},
            )
        except InvalidTokenError as error:
            return Denial(_REASONS.get(type(error), "the token is not valid"))
        return self._grant(claims)

    async def close(self) -> None:
        await self._keys.close()

    def _grant(self, claims: Mapping[str, Any]) -> RuleVerdict:
        prefixes = methods = None
        if (claim := self._settings.prefix_claim) is not None:
            named = _texts(claims.get(claim))
            if named is None:
                return Denial(f"the token has no claim {claim}")
            prefixes = tuple(prefix.encode("utf-8", "surrogatepass") for prefix in named)  # no key has surrogates
        if (claim := self._settings.methods_claim) is not None:
            named = _texts(claims.get(claim))
            if named is None:
                return Denial(f"the token has no claim {claim}")
            methods = frozenset(name.upper() for name in named)
            methods |= {"HEAD"} if "GET" in methods else set()
        subject = claims.get("sub")
        holder = subject[:MAX_SUBJECT_CHARS] if isinstance(subject, str) and subject else None
        return Grant(prefixes=prefixes, methods=methods, holder=holder)


_REASONS = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
}


class PublishedKeys:
    """The keys of an issuer, fetched when they are needed. The last ones stay in use while the issuer fails."""

    def __init__(self, url: str, elapsed: Callable[[], float]) -> None:
        self._url = url
        self._elapsed = elapsed
        self._keys: tuple[PyJWK, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._client = HttpClient(FETCH_TIMEOUT_S)

    async def find(self, key_id: str | None) -> PyJWK | None:
        """Return the key with the id, or the only key for a token without one.

        Returns None if there is no such key. Raises AccessUnavailable if no keys are known.
        """
        known = self._known(key_id)
        if known is None or self._is_older(self._fetched, REFRESH_S):
            task = self._begin_fetch()
            if known is None and task is not None:
                # The fetch is not the client's own: it goes on for others if this one leaves.
                await asyncio.shield(task)
        if self._fetched is None:
            raise AccessUnavailable("the keys of the tokens' issuer cannot be fetched")
        return known or self._known(key_id)

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        await self._client.close()

    def _known(self, key_id: str | None) -> PyJWK | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _is_older(self, since: float | None, seconds: float) -> bool:
        return since is None or self._elapsed() - since >= seconds

    def _begin_fetch(self) -> "asyncio.Task[None] | None":
        """Return the running fetch, or a new one unless the last was a moment ago."""
        if self._fetching is not None:
            return self._fetching
        if not self._is_older(self._tried, RETRY_S):
            return None
        self._tried = self._elapsed()
        self._fetching = asyncio.create_task(self._fetch())
        self._fetching.add_done_callback(self._end_fetch)
        return self._fetching

    def _end_fetch(self, task: "asyncio.Task[None]") -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the keys of the tokens' issuer cannot be fetched", exc_info=error)

    async def _fetch(self) -> None:
        """Replace the keys, or leave them as they are if that fails."""
        try:
            status, body = await self._client.get(self._url, {}, MAX_KEYS_BYTES)
            keys = PyJWKSet.from_dict(json.loads(body)).keys
        except (AccessUnavailable, ValueError, TypeError, PyJWKError, PyJWKSetError) as error:
            log.warning("the keys of the tokens' issuer cannot be fetched: %s", error)
            return
        if status != HTTPStatus.OK:
            log.warning("the keys of the tokens' issuer cannot be fetched: %s responded %d", shown(self._url), status)
            return
        self._keys = tuple(key for key in keys if key.algorithm_name in ALGORITHMS)
        self._fetched = self._elapsed()


def _texts(claim: object) -> tuple[str, ...] | None:
    """Return the values of a claim that is a text or a list of texts. Returns None if it is neither."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list) and all(isinstance(item, str) for item in claim):
        return tuple(claim)
    return None
