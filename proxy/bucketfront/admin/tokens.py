"""The operators' bearer token: compared in constant time, and wrong ones are slowed down."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from enum import Enum, auto

WRONG_TOKEN_PAUSE_S = 1.0  # until the response to a wrong token; people mistype rarely, and programs guess in a loop
MAX_PAUSED = 16  # responses at a time that wait for their pause; further wrong tokens are refused at once


class TokenVerdict(Enum):
    RIGHT = auto()
    MISSING = auto()
    WRONG = auto()


class Token:
    """The token that operators send, None if none is needed. `paused` counts the responses that wait."""

    def __init__(self, secret: str | None, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._digest = None if secret is None else _digest(f"Bearer {secret}")
        self._pause = pause
        self.paused = 0

    def judge(self, authorization: str | None) -> TokenVerdict:
        """Return what a request's Authorization is worth. The time of it does not depend on how much is right."""
        if self._digest is None:
            return TokenVerdict.RIGHT
        if authorization is None:
            return TokenVerdict.MISSING
        return TokenVerdict.RIGHT if hmac.compare_digest(_digest(authorization), self._digest) else TokenVerdict.WRONG

    async def slow_down(self) -> bool:
        """Wait before the response to a wrong token. Returns False, at once, if too many wait already."""
        if self.paused >= MAX_PAUSED:
            return False
        self.paused += 1
        try:
            await self._pause(WRONG_TOKEN_PAUSE_S)
        finally:
            self.paused -= 1
        return True


def _digest(text: str) -> bytes:
    # Digests have one length, so that a comparison does not show that of the token.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
