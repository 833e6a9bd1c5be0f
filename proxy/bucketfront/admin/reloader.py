"""Reads the configuration again while the proxy serves: all of it applies, or none.

Theory of operation
-------------------
1. Read the file and the environment, with the checks of the start.
2. Compare the settings with the present ones. A single change that needs a restart refuses the reload, as in nginx.
   So the proxy always serves one configuration that was written as a whole.
3. Build all that is new beside what serves. Whatever fails here leaves no trace.
4. Apply it in one turn of the event loop. Nothing can fail there.

One reload runs at a time. Each reads the file once its turn has come, so the last one wins.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from bucketfront.admin.health import Health, Phase
from bucketfront.config.live_settings import changes, reason_for_restart
from bucketfront.config.loader import LoadedConfig
from bucketfront.config.problems import Loc, dotted
from bucketfront.config.settings import Settings
from bucketfront.errors import ConfigError, ProxyError, UnusableSetting

MAX_NAMED = 8  # changed settings in a line of the log; the response has all

log = logging.getLogger("bucketfront")


class ReloadVerdict(Enum):
    """How a reload ended. The values are stable, for programs."""

    RELOADED = "reloaded"
    INVALID = "invalid"
    NEEDS_RESTART = "needs-restart"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """`changed` are names of settings that differ from those before. `problems` are lines with place and cure.

    `warnings` are what is permitted and probably not meant.
    """

    verdict: ReloadVerdict
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Renewal(Protocol):
    """What new settings need, built beside what serves."""

    def apply(self) -> None:
        """Let it take its place, in this turn of the event loop. Never raises."""

    async def discard(self) -> None:
        """Close it instead."""


_STOPPING = ReloadOutcome(ReloadVerdict.STOPPING, problems=("the proxy stops",))

Prepare = Callable[[Settings], Awaitable[Renewal]]
"""Builds what new settings need. Raises ProxyError, and leaves no trace then."""


class Reloader:
    """Reloads the configuration of a running proxy. `read` does I/O, and raises ConfigError as the start would.

    `started` is set once the proxy serves: a reload that is asked for before waits.
    """

    def __init__(
        self, loaded: LoadedConfig, read: Callable[[], LoadedConfig], prepare: Prepare, health: Health
    ) -> None:
        self.loaded = loaded
        """The configuration in force."""
        self._read = read
        self._prepare = prepare
        self._health = health
        self._turn = asyncio.Lock()
        self.started = asyncio.Event()

    async def reload(self, cause: str) -> ReloadOutcome:
        """Reload once all reloads before have ended. `cause` names in the log what asked for it."""
        await self.started.wait()
        async with self._turn:
            outcome = await self._reload()
        _report(outcome, cause)
        return outcome

    @property
    def _may_apply(self) -> bool:
        return self._health.phase is not Phase.STOPPING

    async def _reload(self) -> ReloadOutcome:
        if not self._may_apply:
            return _STOPPING
        try:
            loaded = await asyncio.to_thread(self._read)
        except ConfigError as error:
            return ReloadOutcome(ReloadVerdict.INVALID, problems=tuple(str(error).splitlines()))
        changed = changes(self.loaded.settings, loaded.settings)
        names = tuple(map(dotted, changed))
        if refused := [line for at in changed if (line := _refusal(loaded, at)) is not None]:
            return ReloadOutcome(ReloadVerdict.NEEDS_RESTART, names, tuple(refused))
        return await self._renew(loaded, names)

    async def _renew(self, loaded: LoadedConfig, names: tuple[str, ...]) -> ReloadOutcome:
        """Build what the new settings need, and apply it."""
        try:
            renewal = await self._prepare(loaded.settings)
        except UnusableSetting as error:
            return ReloadOutcome(ReloadVerdict.INVALID, names, (loaded.explain(error),))
        except (ProxyError, OSError) as error:
            return ReloadOutcome(ReloadVerdict.FAILED, names, (str(error),))
        except Exception:
            log.exception("a reload failed with an unexpected error")
            return ReloadOutcome(ReloadVerdict.FAILED, names, ("internal error: the log has more",))
        if not self._may_apply:
            await renewal.discard()
            return _STOPPING
        renewal.apply()
        self.loaded = loaded
        return ReloadOutcome(ReloadVerdict.RELOADED, names, warnings=tuple(loaded.warnings))


def _refusal(loaded: LoadedConfig, at: Loc) -> str | None:
    """Return the line for a change that needs a restart, with its place. Returns None for any other change."""
    reason = reason_for_restart(at)
    if reason is None:
        return None
    return loaded.explain(UnusableSetting(f"needs a restart, because {reason}: restart, or undo the change", at))


def _report(outcome: ReloadOutcome, cause: str) -> None:
    for line in outcome.warnings:
        log.warning("%s", line)
    if outcome.verdict is ReloadVerdict.RELOADED:
        log.warning("%s: reloaded, %s", cause, _named(outcome.changed))
        return
    for line in outcome.problems:
        log.error("%s", line)
    log.error("%s: not reloaded (%s), and the configuration before goes on", cause, outcome.verdict.value)


def _named(changed: tuple[str, ...]) -> str:
    if not changed:
        return "no setting has changed"
    more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
    return f"with other values of {', '.join(changed[:MAX_NAMED])}{more}"
