"""The rule of users with passwords (RFC 7617), from a file as `htpasswd -B` makes it."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import argon2
import bcrypt

from bucketfront.config.access_settings import BasicSettings
from bucketfront.config.secret_file import text_of
from bucketfront.errors import AccessUnavailable
from bucketfront.server.access.networks import client_of
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope, credentials
from bucketfront.server.access.watched_file import WatchedFile

MAX_FILE_BYTES = 1 << 20
REMEMBERED_S = 300.0  # for a password that fitted, because each verification costs tens of milliseconds
MAX_REMEMBERED = 1024
MAX_AT_ONCE = 1  # verifications; more would take the processor from all other requests
MAX_WAITING = 64  # for one of them; then clients get 503 and may retry
MAX_WAITING_OF_ONE = 4  # of one client, so that it does not lock the others out

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_ARGON2 = ("$argon2id$", "$argon2i$", "$argon2d$")
_DENIED = Denial("the user or the password is not valid")


def read_password_file(path: Path) -> dict[str, str]:
    """Return the hashes of the users. Raises ValueError with the fix, and with no hash."""
    text = text_of(path, f"the file {str(path)!a}", MAX_FILE_BYTES, "replace")
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not colon or not user or not hashed.startswith((*_BCRYPT, *_ARGON2)):
            raise ValueError(
                f"line {number} of {str(path)!a} must be user:hash with a hash of bcrypt or argon2, as"
                " `htpasswd -B` makes it"
            )
        users[user] = hashed
    if not users:
        raise ValueError(f"the file {str(path)!a} has no user")
    return users


def verify(password: str, hashed: str) -> bool:
    """Return whether a password has the hash. Takes tens of milliseconds of the processor."""
    octets = password.encode("utf-8", "surrogateescape")
    if hashed.startswith(_ARGON2):
        try:
            return argon2.PasswordHasher().verify(hashed, octets)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
    try:
        # bcrypt looks at 72 bytes only, and its library refuses more.
        return bcrypt.checkpw(octets[:72], hashed.encode())
    except ValueError:
        return False


class BasicRule:
    """Holds for requests with the password of a user. `elapsed` is a clock in seconds."""

    scope = Scope.MOUNT

    def __init__(self, settings: BasicSettings, elapsed: Callable[[], float]) -> None:
        """Raises ValueError as `read_password_file`."""
        self._users = read_password_file(settings.file)
        self._file = WatchedFile(settings.file, read_password_file, self._users, elapsed)
        self._elapsed = elapsed
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        # Threads of its own: a client that leaves does not end a verification, and the next one must still wait for it.
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="password")
        self._waiting = Counter[str]()
        self.challenge = f'Basic realm="{settings.realm}", charset="UTF-8"'

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        encoded = credentials(request.field("authorization"), "basic")
        if encoded is None:
            return Denial()
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # also of base64 and UTF-8
            return _DENIED
        if not colon:
            return _DENIED
        users = await self._file.content()
        if users is not self._users:
            self._users = users
            self._remembered.clear()
        # A keyed hash, so that memory holds no password.
        name = hmac.digest(self._key, f"{user}\0{password}".encode(), hashlib.sha256)
        known = self._remembered.get(name)
        if known is not None and self._elapsed() - known < REMEMBERED_S:
            return Grant(holder=user)
        hashed = users.get(user, self._hash_of_nobody(user))
        fits = await self._verify(client_of(str(request.address or "")), password, hashed)
        if user not in users or not fits:
            return _DENIED
        if users is self._users:  # else the file has changed meanwhile, and the next request needs its content
            self._remember(name)
        return Grant(holder=user)

    async def close(self) -> None:
        await self._file.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hash_of_nobody(self, user: str) -> str:
        """Return a hash of the file that an unknown user costs. It is always the same, as that of a known one is."""
        digest = hmac.digest(self._key, user.encode(), hashlib.sha256)
        hashes = tuple(self._users.values())
        return hashes[int.from_bytes(digest[:8]) % len(hashes)]

    async def _verify(self, client: str, password: str, hashed: str) -> bool:
        if self._waiting.total() >= MAX_WAITING or self._waiting[client] >= MAX_WAITING_OF_ONE:
            raise AccessUnavailable("too many passwords are being verified at once")
        self._waiting[client] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, verify, password, hashed)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]

    def _remember(self, name: bytes) -> None:
        self._remembered[name] = self._elapsed()
        self._remembered.move_to_end(name)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
