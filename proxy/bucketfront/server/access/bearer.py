"""The rule of tokens that the configuration lists (RFC 6750)."""

import hashlib
import hmac

from bucketfront.config.access_settings import BearerSettings, token_lines
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope, credentials

CHALLENGE = 'Bearer realm="bucketfront"'


class BearerRule:
    """Holds for requests with one of the tokens. Only their hashes are kept."""

    scope = Scope.MOUNT
    challenge = CHALLENGE

    def __init__(self, settings: BearerSettings) -> None:
        tokens = [token for secret in settings.tokens for token in token_lines(secret)]
        self._hashes = [
            bytes.fromhex(token.removeprefix("sha256:")) if token.startswith("sha256:") else _hash(token)
            for token in tokens
        ]

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        token = credentials(request.field("authorization"), "bearer")
        if token is None:
            return Denial()
        given = _hash(token)
        # All are compared, so that the time tells neither which one fits nor how much of it.
        fits = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(fits):
            return Denial("the token is not valid")
        return Grant(holder=f"token {fits.index(True) + 1}")

    async def close(self) -> None:
        pass


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
