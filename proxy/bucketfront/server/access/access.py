"""Decides which client may do what to which key: by the rules that the mounts of the key list.

It has two steps. `identify` examines the rules that may count for a request, before anything else is done for it; that
may wait. `check` then decides on each key of the request at once, as a stage of the pipeline.
"""

from collections.abc import Mapping, Sequence

from bucketfront.config.access_settings import PUBLIC
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import AccessUnavailable, Forbidden
from bucketfront.server.access.rule import (
    NOBODY,
    AccessRequest,
    Caller,
    Denial,
    Grant,
    Rule,
    RuleVerdict,
    Scope,
    Unavailable,
)
from bucketfront.server.inner_mounts import InnerMounts


class Unauthenticated(Forbidden):
    """A request lacks credentials, or has some that are not valid. `challenges` are the schemes that would be taken."""

    def __init__(self, message: str, challenges: Sequence[str]) -> None:
        super().__init__(message)
        self.challenges = tuple(challenges)


class Access:
    """All rules of the configuration, by their names."""

    def __init__(self, rules: Mapping[str, Rule], inner_mounts: InnerMounts) -> None:
        self._rules = rules
        self._inner_mounts = inner_mounts

    async def identify(self, request: AccessRequest, mount: MountSettings, *, is_read: bool) -> Caller:
        """Return the client with the verdicts of the rules that may count.

        Of the mount's own rules, those behind one that holds for all its keys are not examined. The rules of the mounts
        below it are examined, because the key may be one of theirs. Those for a path alone cannot hold there.
        """
        verdicts: dict[str, RuleVerdict] = {}
        for name in _names(mount, is_read=is_read):
            if name == PUBLIC:
                break
            verdicts[name] = verdict = await self._examine(name, request)
            if isinstance(verdict, Grant) and verdict.prefixes is None and verdict.permits(request.method):
                break
        for inner in self._inner_mounts.below(mount):
            for name in _names(inner, is_read=is_read):
                if name != PUBLIC and name not in verdicts and self._rules[name].scope is Scope.MOUNT:
                    verdicts[name] = await self._examine(name, request)
        return Caller(verdicts) if verdicts else NOBODY

    async def _examine(self, name: str, request: AccessRequest) -> RuleVerdict:
        """Return the verdict of a rule. A rule that cannot decide harms only the mounts that need it."""
        try:
            return await self._rules[name].examine(request)
        except AccessUnavailable as error:
            return Unavailable(str(error))

    def check(
        self,
        caller: Caller,
        method: str,
        mount: MountSettings,
        key: bytes | None,
        *,
        is_of_path: bool = True,
        is_read: bool,
    ) -> None:
        """Raise Forbidden, Unauthenticated or AccessUnavailable unless each mount that decides on the key lets the
        client in. `is_of_path` is false if the path of the request does not lead to the key.
        """
        inner = None if key is None else self._inner_mounts.of(mount, key)
        self._check_mount(caller, method, mount, key, is_of_path=is_of_path, is_read=is_read)
        if inner is not None:
            self._check_mount(caller, method, inner, key, is_of_path=False, is_read=is_read)

    async def close(self) -> None:
        for rule in self._rules.values():
            await rule.close()

    def _check_mount(
        self, caller: Caller, method: str, mount: MountSettings, key: bytes | None, *, is_of_path: bool, is_read: bool
    ) -> None:
        names = _names(mount, is_read=is_read)
        for name in names:
            if name == PUBLIC or _permits(caller.verdicts.get(name, Denial()), method, key, is_of_path=is_of_path):
                return
        verdicts = [caller.verdicts.get(name, Denial()) for name in names]
        for verdict in verdicts:
            if isinstance(verdict, Unavailable):
                raise AccessUnavailable(verdict.reason)
        reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Denial) and verdict.reason]
        is_known = any(isinstance(verdict, Grant) for verdict in verdicts)
        challenges = list(dict.fromkeys(filter(None, (self._rules[name].challenge for name in names))))
        if challenges and not is_known:
            raise Unauthenticated(reasons[0] if reasons else "this needs credentials", challenges)
        what = "read" if is_read else "write"
        raise Forbidden(reasons[0] if reasons else f"you may not {what} this")


def _names(mount: MountSettings, *, is_read: bool) -> tuple[str, ...]:
    return mount.read if is_read else mount.write or (PUBLIC,)


def _permits(verdict: RuleVerdict, method: str, key: bytes | None, *, is_of_path: bool) -> bool:
    return isinstance(verdict, Grant) and verdict.permits(method, key, is_of_path=is_of_path)
