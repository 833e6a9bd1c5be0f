"""What requests to S3 are signed with, and the second chance of a request whose signature S3 refused.

A refusal may be our own fault, and cured: the credentials were rotated, or the clock is wrong. The request is then
signed anew and sent once more. The client's retries, their budget and the circuit breaker do not see that.

Both are hooks of the SDK, so that they hold for each call of a client: `needs-retry` decides on the second sending, and
`choose-signer` on the class that signs. A request with a streamed body is sent again only if the body can begin anew.
Otherwise the cure is there for the next request.
"""

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.credentials import ReadOnlyCredentials

from bucketfront.errors import Fault
from bucketfront.http import dates
from bucketfront.s3 import error_codes
from bucketfront.s3.credentials import OriginCredentials
from bucketfront.s3.signing_clock import SigningClock

MAX_DERIVED_KEYS = 64  # three for each day, region and secret
_REFUSALS = (400, 401, 403)  # the statuses that S3 has for them

_SIGNATURE_VERSION = "bucketfront-s3v4"
_CLOCK = "bucketfront_clock"  # keys of botocore's context, which accompanies one request
_SIGNED = "bucketfront_signed"
PAYLOAD = "bucketfront_payload"  # the value of x-amz-content-sha256, if the SDK does not choose it
_GUESSED = "bucketfront_guessed"  # this request alone made the correction, and the origin did not name the time


@dataclass(frozen=True, slots=True)
class Scope:
    """The service and the region that a signature is for."""

    service: str
    region: str


@dataclass(frozen=True, slots=True)
class _Signed:
    """What one request was signed with. `at` is in seconds since the epoch."""

    credentials: ReadOnlyCredentials
    at: float
    scope: Scope


@lru_cache(maxsize=MAX_DERIVED_KEYS)
def _derived(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")


class _S3Auth(S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """botocore's Signature Version 4 for S3, with the time of a SigningClock.

    An instance signs one request. What botocore computes twice for it, or once for each request of a day, is kept.
    """

    _signed_headers: Any = None

    def _sign(self, key: bytes, msg: str, hex: bool = False) -> Any:  # noqa: A002, FBT001, FBT002 - as botocore calls it
        return super()._sign(key, msg, hex=True) if hex else _derived(key, msg)

    def headers_to_sign(self, request: Any) -> Any:
        if self._signed_headers is None:
            self._signed_headers = super().headers_to_sign(request)
        return self._signed_headers

    def payload(self, request: Any) -> Any:
        declared = request.context.get(PAYLOAD)
        return super().payload(request) if declared is None else declared

    def _header_value(self, value: Any) -> Any:
        # S3 joins only what blanks separate, and botocore what any space of Unicode does.
        if not isinstance(value, str):
            return super()._header_value(value)
        return " ".join(part for part in value.replace("\t", " ").split(" ") if part)

    def _modify_request_before_signing(self, request: Any) -> None:
        self._signed_headers = None
        # botocore reads its own clock right before this method. Every later step takes the time from the context.
        now = request.context[_CLOCK]()
        request.context["timestamp"] = time.strftime(SIGV4_TIMESTAMP, time.gmtime(now))
        scope = Scope(self._service_name, self._region_name)
        request.context[_SIGNED] = _Signed(self.credentials, now, scope)
        super()._modify_request_before_signing(request)


# The SDK's table of signers is global. The name is our own, so that other clients of this process keep theirs.
AUTH_TYPE_MAPS[_SIGNATURE_VERSION] = _S3Auth


def _sign(request: Any, credentials: ReadOnlyCredentials, clock: Callable[[], float], scope: Scope) -> None:
    request.context[_CLOCK] = clock
    _S3Auth(credentials, scope.service, scope.region).add_auth(request)


class Signature:
    """The credentials and the time of one client's requests."""

    def __init__(self, credentials: OriginCredentials, clock: SigningClock) -> None:
        self._credentials = credentials
        self._clock = clock

    @property
    def changes(self) -> int:
        """Return how often the credentials were replaced, or the clock was corrected."""
        return self._credentials.replacements + self._clock.corrections

    def register(self, events: Any) -> None:
        """Sign the requests of the client that `events` belong to."""
        events.register("before-call.s3", self._before_call)
        events.register("choose-signer.s3", _choose_signer)
        events.register_first("needs-retry.s3", self._needs_retry)

    async def sign(self, request: Any, scope: Scope) -> None:
        """Sign a request that no call of the SDK has made. Raises NoCredentialsError."""
        credentials = await self._credentials.get_frozen_credentials()
        _sign(request, credentials, self._clock, scope)

    def _before_call(self, context: dict[str, Any], **_: Any) -> None:
        context[_CLOCK] = self._clock

    async def _needs_retry(self, response: Any, attempts: int, request_dict: dict[str, Any], **_: Any) -> int | None:
        """Return 0 to send the request again at once, or None."""
        if response is None:
            return None
        code = response[1].get("Error", {}).get("Code", "")
        is_cured = await self.cures(
            request_dict["context"],
            response[0].status_code,
            code,
            response[0].headers.get("date", ""),
            was_repeated=attempts > 1,
        )
        return 0 if is_cured and _is_repeatable(request_dict["body"]) else None

    async def cures(self, context: dict[str, Any], status: int, code: str, date: str, *, was_repeated: bool) -> bool:
        """Return whether a request that got a response may succeed if it is signed anew.

        `context` is that of the request, `code` S3's in the response, and `date` its field Date. `was_repeated` means
        that it was signed anew before.
        """
        signed = context.get(_SIGNED)
        if signed is None or status not in _REFUSALS:
            return False
        meaning = error_codes.meaning(code, status, is_read=False)
        fault = None if meaning is None else meaning.fault
        if was_repeated:
            if fault is Fault.CLOCK or context.get(_GUESSED):
                self._clock.drop()
            return False
        return self._corrected(context, signed, date, is_named=fault is Fault.CLOCK) or (
            fault is Fault.CREDENTIALS and await self._credentials.replaced(signed.credentials)
        )

    def _corrected(self, context: dict[str, Any], signed: _Signed, sent: str, *, is_named: bool) -> bool:
        """Return whether the clock, corrected by the response's Date, gives another time than the one signed."""
        date = dates.parse(sent, signed.at)
        if date is None:
            return False
        before = self._clock.corrections
        is_other = self._clock.correct(date, signed.at, is_named=is_named)
        context[_GUESSED] = not is_named and self._clock.corrections != before
        return is_other


def signed_scope(request: Any) -> Scope | None:
    """Return the scope of a signature that was made here, or None without one."""
    signed = request.context.get(_SIGNED)
    return None if signed is None else signed.scope


def sign_as(request: Any, other: Any) -> None:
    """Sign a request with the credentials and the time of another one, if that was signed here."""
    signed = other.context.get(_SIGNED)
    if signed is not None:
        _sign(request, signed.credentials, lambda: signed.at, signed.scope)


def mark_signed(request: Any, sent: Any) -> None:
    """Note that the origin got the request `sent` in place of `request`, so that a refusal is of its signature."""
    if _SIGNED in sent.context:
        request.context[_SIGNED] = sent.context[_SIGNED]


def _is_repeatable(body: Any) -> bool:
    return isinstance(body, bytes | bytearray | None) or bool(getattr(body, "is_repeatable", False))


def _choose_signer(context: dict[str, Any], **_: Any) -> str | None:
    """Return the name of `_S3Auth` in place of Signature Version 4. Others, such as S3 Express's, remain."""
    return _SIGNATURE_VERSION if context.get("auth_type") in (None, "v4", "s3v4") else None
