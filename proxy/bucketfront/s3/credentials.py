"""The credentials for S3, loaded anew before they expire and if S3 refuses them.

They come from the settings, where a secret may be a file, or from the SDK's chain: environment, profile, web identity,
container, instance role. All of these are read again in the same way, by a new session of the SDK.

- One load runs at a time, for all requests, within LOAD_TIMEOUT_S.
- A load that fails changes nothing: the credentials before it stay in use, because S3 alone decides whether they are
  valid (docs/invariants.md#authorise-first).
- While credentials that expire soon are loaded, requests use the old ones and do not wait.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError

from bucketfront.config.origin_settings import Credentials, ProfileCredentials, StaticCredentials
from bucketfront.config.secret_file import current
from bucketfront.task_set import TaskSet

LOAD_TIMEOUT_S = 5.0  # instance roles respond in milliseconds, token services in a second
RELOAD_INTERVAL_S = 3.0  # between loads of refused or expired credentials: a rotation takes longer
FILE_RELOAD_INTERVAL_S = 0.25  # the same for secret files: two small files are cheap to read
RENEWAL_INTERVAL_S = 60.0  # between loads of credentials that are still valid
WARNING_INTERVAL_S = 60.0

Load = Callable[[], Awaitable[Any]]

log = logging.getLogger(__name__)


def _static(settings: StaticCredentials) -> AioCredentials:
    token = None if settings.session_token is None else current(settings.session_token)
    return AioCredentials(current(settings.access_key_id), current(settings.secret_access_key), token)


async def _from_chain(profile: str | None) -> Any:
    """Return botocore's credentials, or None if the chain has none. A new session has nothing cached."""
    return await AioSession(profile=profile).get_credentials()


async def _frozen(source: Any) -> ReadOnlyCredentials:
    try:
        found: ReadOnlyCredentials = await source.get_frozen_credentials()
    except RuntimeError:
        # botocore refuses new credentials that have expired by this machine's clock. That may be wrong, and S3 decides.
        found = source._frozen_credentials  # noqa: SLF001 - every public method repeats the check
    return found


class OriginCredentials(AioCredentials):  # type: ignore[misc] # aiobotocore has no types
    """The credentials that a client signs with. `elapsed` is a monotonic clock in seconds.

    `reload_interval` is how many seconds pass between two loads of credentials that are refused.

    A session takes an instance as its component "credential_provider".
    """

    def __init__(self, load: Load, elapsed: Callable[[], float], reload_interval: float = RELOAD_INTERVAL_S) -> None:
        super().__init__("", "")
        self._reload_interval = reload_interval
        self._load = load
        self._elapsed = elapsed
        self._source: Any = None  # botocore's credentials, with the time of their expiry
        self._is_new = False  # the source has not been used
        self._current: ReadOnlyCredentials | None = None
        self._tasks = TaskSet()
        self._loading: asyncio.Task[None] | None = None
        self._loaded_at = float("-inf")
        self._warned_at = float("-inf")
        self.replacements = 0

    def __repr__(self) -> str:
        return f"<OriginCredentials {'absent' if self._current is None else 'present'}>"

    async def load_credentials(self) -> "OriginCredentials":
        """Load the credentials for the first time. Raises what the source raises."""
        self._source = await self._load()
        self._is_new = self._source is not None
        return self

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the credentials to sign a request with. Raises NoCredentialsError."""
        if self._current is None or self._expires_within(0):
            await self._renewed(self._reload_interval)
        elif self._expires_within(None):
            self._renew(RENEWAL_INTERVAL_S)
        if self._current is None:
            raise NoCredentialsError
        return self._current

    async def replaced(self, refused: ReadOnlyCredentials) -> bool:
        """Return whether other credentials than those that S3 refused are there now. Loads them, if need be."""
        if self._current == refused:
            await self._renewed(self._reload_interval)
        return bool(self._current != refused)

    async def close(self) -> None:
        """End a load that runs."""
        await self._tasks.close()

    def _expires_within(self, seconds: int | None) -> bool:
        """Return whether the credentials expire soon. None is the time before expiry at which botocore renews them."""
        source = self._source
        return isinstance(source, RefreshableCredentials) and bool(source.refresh_needed(seconds))

    async def _renewed(self, interval: float) -> None:
        """Wait for a load, if one runs or the last one began longer ago than `interval`."""
        if (loading := self._renew(interval)) is not None:
            await asyncio.shield(loading)

    def _renew(self, interval: float) -> "asyncio.Task[None] | None":
        """Return the load that runs, after starting it if need be. Returns None within `interval` of the last one."""
        if self._loading is None or self._loading.done():
            if not self._is_new:  # the first use of what the start has loaded is no load
                now = self._elapsed()
                if now - self._loaded_at < interval:
                    return None
                self._loaded_at = now
            self._loading = self._tasks.start(self._replace(), "credentials")
        return self._loading

    async def _replace(self) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                source = self._source if self._is_new else await self._load()
                self._is_new = False
                found = None if source is None else await _frozen(source)
        except Exception as error:  # noqa: BLE001 - a source is a file, a process or a service: it may raise anything
            # The message may quote what the source sent (docs/invariants.md#secrets-stay-in).
            self._warn(f"the credentials cannot be loaded ({type(error).__name__}); see origin.credentials")
            return
        if found is None:
            self._warn("there are no credentials; see origin.credentials")
            return
        if self._current is not None:
            self._note_reload(is_new=found != self._current)
        self._source, self._current = source, found

    def _note_reload(self, *, is_new: bool) -> None:
        """Log what a load of credentials that are in use has brought. They were refused, or they expire soon."""
        self.replacements += is_new
        if self._expires_within(None):
            log.info(
                "the credentials expire soon: %s", "newer ones are in use" if is_new else "there are no newer ones"
            )
        elif is_new:
            log.warning("the origin refused the credentials: newer ones are in use now")
        else:
            # The refusals themselves are reported by `troubles`.
            log.info("the origin refuses the credentials, and their source has no others")

    def _warn(self, message: str) -> None:
        now = self._elapsed()
        if now - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = now
            log.warning(message)


def credentials_of(settings: Credentials, elapsed: Callable[[], float]) -> OriginCredentials:
    """Return the credentials of the settings. Nothing loads or uses them for anonymous requests."""
    match settings:
        case StaticCredentials():
            return OriginCredentials(lambda: asyncio.to_thread(_static, settings), elapsed, FILE_RELOAD_INTERVAL_S)
        case ProfileCredentials(profile=profile):
            return OriginCredentials(lambda: _from_chain(profile), elapsed)
        case "default" | "anonymous":
            return OriginCredentials(lambda: _from_chain(None), elapsed)
