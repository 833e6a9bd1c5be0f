"""The rule of tokens that the configuration lists (RFC 6750)."""

import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from bucketfront.config.access_settings import BearerSettings, checked_tokens, token_lines
from bucketfront.config.secret_file import SecretFile
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope, credentials
from bucketfront.server.access.watched_file import WatchedFile

CHALLENGE = 'Bearer realm="bucketfront"'


class BearerRule:
    """Holds for requests with one of the tokens. Only their hashes are kept. `elapsed` is a clock in seconds."""

    scope = Scope.MOUNT
    challenge = CHALLENGE

    def __init__(self, settings: BearerSettings, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._hashes: list[bytes] = []  # of the tokens that no file has
        self._files: list[WatchedFile[list[bytes]]] = []
        for secret in settings.tokens:
            if isinstance(secret, SecretFile):
                self._files.append(WatchedFile(secret.path, _read, _hashes(secret), elapsed))
            else:
                self._hashes += _hashes(secret)

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        token = credentials(request.field("authorization"), "bearer")
        if token is None:
            return Denial()
        given, hashes = _hash(token), list(self._hashes)
        for file in self._files:
            hashes += await file.content()
        # All are compared, so that the time shows neither which one fits nor how much of it.
        fits = [hmac.compare_digest(given, known) for known in hashes]
        if not any(fits):
            return Denial("the token is not valid")
        return Grant(holder=f"token {fits.index(True) + 1}")

    async def close(self) -> None:
        for file in self._files:
            await file.close()


def _read(path: Path) -> list[bytes]:
    """Return the hashes of the tokens in a file. Raises ValueError."""
    return _hashes(checked_tokens(SecretFile.read(path)))


def _hashes(secret: SecretStr) -> list[bytes]:
    return [
        bytes.fromhex(token.removeprefix("sha256:")) if token.startswith("sha256:") else _hash(token)
        for token in token_lines(secret)
    ]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
