"""Reads the certificates of listeners again when their files have changed.

Theory of operation
-------------------
A look at the files every INTERVAL_S compares their state with that of the last reading. A new state is read once two
looks have found it, because tools write the certificate and its key one after the other. Links are followed, so it
counts where they lead: certbot and Kubernetes replace links.

Files that are of no use leave the certificates as they are. That is a trouble until the files are of use again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from bucketfront.errors import UnusableSetting
from bucketfront.server.http1.server_tls import FileState, ServerTls
from bucketfront.troubles import Kind, Reason, Troubles

INTERVAL_S = 3.0  # between two looks
REMINDER_S = 86_400.0  # between two warnings that a certificate ends soon

log = logging.getLogger(__name__)


class _Watched:
    """The TLS of one listener, and what the last looks found."""

    def __init__(self, tls: ServerTls) -> None:
        self.tls = tls
        self.seen = self.refused = tls.loaded.files
        self.reminded_at = float("-inf")
        self.unusable = Kind(
            Reason.TLS_UNUSABLE,
            tls.name,
            f"the new files of {tls.name} cannot be used, and the certificates before them are still served",
            f"the files of {tls.name} can be used",
            what_failed="attempts failed",
        )
        self.invalid = Kind(
            Reason.TLS_INVALID,
            tls.name,
            f"clients refuse a certificate of {tls.name}",
            f"the certificates of {tls.name} are valid",
        )


def _ignore() -> None:
    """Do nothing, because only this process serves the certificates."""


class CertificateWatch:
    """Watches the TLS of some listeners. `clock` is wall time in seconds since the epoch.

    `on_renewal` is called each time that certificates were read again.
    """

    def __init__(
        self,
        listeners: Sequence[ServerTls],
        troubles: Troubles,
        clock: Callable[[], float],
        on_renewal: Callable[[], None] = _ignore,
    ) -> None:
        self._on_renewal = on_renewal
        self._watched = [_Watched(tls) for tls in listeners]
        self._troubles = troubles
        self._clock = clock

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Look at all files once, and read those that have changed."""
        for watched in self._watched:
            await self._look(watched)
            self._judge(watched)

    async def _look(self, watched: _Watched) -> None:
        tls, loop = watched.tls, asyncio.get_running_loop()
        files = await loop.run_in_executor(None, tls.state_of_files)
        before, watched.seen = watched.seen, files
        if files == tls.loaded.files:
            watched.refused = files
            self._troubles.succeeded(watched.unusable.__eq__)
        elif files == before and files != watched.refused:
            await self._read(watched, files)

    async def _read(self, watched: _Watched, files: tuple[FileState, ...]) -> None:
        tls, present = watched.tls, watched.tls.loaded
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(None, tls.read)
        except UnusableSetting as error:
            watched.refused = files
            self._troubles.failed(watched.unusable, str(error))
            return
        if tls.loaded is not present:
            return  # a reload has read them meanwhile, maybe by other settings
        tls.loaded, watched.seen, watched.refused = loaded, loaded.files, loaded.files
        watched.reminded_at = float("-inf")
        self._troubles.succeeded(watched.unusable.__eq__)
        self._on_renewal()
        log.info(
            "the certificates of %s were read: %s", tls.name, ", ".join(str(one.path) for one in loaded.certificates)
        )

    def _judge(self, watched: _Watched) -> None:
        """Report certificates that clients refuse, or soon will."""
        now, certificates = self._clock(), watched.tls.loaded.certificates
        invalid = [trouble for one in certificates if (trouble := one.trouble(now)) is not None]
        if invalid:
            self._troubles.failed(watched.invalid, "; ".join(invalid), 0)
            return
        self._troubles.succeeded(watched.invalid.__eq__)
        ending = [one for one in certificates if one.ends_soon(now)]
        if ending and now - watched.reminded_at >= REMINDER_S:
            watched.reminded_at = now
            for one in ending:
                days = (one.not_after - now) / 86_400
                log.warning("the certificate %s ends in %.1f days: renew it", one.path, days)
