"""The keys by which clients sign, and who made a request (docs/s3-endpoint.md#keys)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bucketfront.config.access_settings import checked_signing_key
from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.secret_file import SecretFile
from bucketfront.http import sigv4
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.sigv4 import ChunkSignatures, Claim, Fields, Payload
from bucketfront.server.access.watched_file import WatchedFile
from bucketfront.server.s3_endpoint.grant import NOTHING, Grant

_SIGNED_CHUNKS = frozenset({Payload.CHUNKS, Payload.CHUNKS_AND_TRAILER})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who made a request. `credential` is None for a client that does not sign.

    `chunk_signatures` verifies those of its body, if the body has some.
    """

    grant: Grant
    credential: str | None = None
    chunk_signatures: ChunkSignatures | None = None


class KeyRing:
    """The keys of the settings. `clock` is wall time in seconds since the epoch, `elapsed` a clock in seconds."""

    def __init__(
        self, settings: S3Settings, clock: Callable[[], float], elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._anonymous = NOTHING if settings.anonymous is None else Grant.of(settings.anonymous)
        self._grants = {key.id: Grant.of(key) for key in settings.keys}
        self._secrets = {key.id: key.secret.get_secret_value() for key in settings.keys}
        self._files = {
            key.id: WatchedFile(key.secret.path, _read, key.secret.get_secret_value(), elapsed)
            for key in settings.keys
            if isinstance(key.secret, SecretFile)
        }

    async def identify(self, method: str, path: str, query: str, fields: Fields) -> Identity:
        """Return who made a request. `path` and `query` are as sent. Raises S3Refused."""
        claim = _claim_of(query, fields)
        if claim is None:
            return Identity(self._anonymous)
        if (file := self._files.get(claim.key_id)) is not None:
            self._secrets[claim.key_id] = await file.content()
        return self._verified(claim, method, path, query, fields)

    def identify_at_once(self, method: str, path: str, query: str, fields: Fields) -> Identity | None:
        """Return the same. Returns None if the file of the secret is due for a look, which may wait."""
        claim = _claim_of(query, fields)
        if claim is None:
            return Identity(self._anonymous)
        file = self._files.get(claim.key_id)
        return None if file is not None and file.is_due else self._verified(claim, method, path, query, fields)

    def _verified(self, claim: Claim, method: str, path: str, query: str, fields: Fields) -> Identity:
        secret = self._secrets.get(claim.key_id)
        if secret is None:
            raise S3Refused(Refusal.UNKNOWN_KEY, "The AWS Access Key Id you provided does not exist in our records.")
        sigv4.verify(claim, secret, method, path, query, fields)
        sigv4.check_time(claim, self._clock())
        if "x-amz-security-token" in fields or "X-Amz-Security-Token=" in query:
            raise S3Refused(Refusal.UNKNOWN_TOKEN, "The provided token is malformed or otherwise invalid.")
        signatures = ChunkSignatures(claim, secret) if claim.payload in _SIGNED_CHUNKS else None
        return Identity(self._grants[claim.key_id], f"s3:{claim.key_id}", signatures)

    async def close(self) -> None:
        for file in self._files.values():
            await file.close()


def _claim_of(query: str, fields: Fields) -> Claim | None:
    """Return the signature of a request, None if it has none. Raises S3Refused."""
    claim = sigv4.claim_of(fields, query)
    if claim is None and ("authorization" in fields or "AWSAccessKeyId=" in query):
        raise S3Refused(
            Refusal.INVALID,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    return claim


def _read(path: Path) -> str:
    """Return the secret in a file. Raises ValueError."""
    return checked_signing_key(SecretFile.read(path)).get_secret_value()
