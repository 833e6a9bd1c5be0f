"""Builds the rules of a configuration."""

import time
from collections.abc import Callable

from bucketfront.config.access_settings import AccessRule
from bucketfront.config.settings import Settings
from bucketfront.errors import UnusableSetting
from bucketfront.server.access.access import Access
from bucketfront.server.access.basic import BasicRule
from bucketfront.server.access.bearer import BearerRule
from bucketfront.server.access.certificate import CertificateRule
from bucketfront.server.access.forward import ForwardRule
from bucketfront.server.access.jwt import JwtRule
from bucketfront.server.access.networks import NetworksRule
from bucketfront.server.access.rule import Rule
from bucketfront.server.access.signed_url import SignedUrlRule
from bucketfront.server.inner_mounts import InnerMounts


def build_access(
    settings: Settings, inner_mounts: InnerMounts, elapsed: Callable[[], float] = time.monotonic
) -> Access | None:
    """Return access control, or None if all mounts are open. `elapsed` is a clock in seconds.

    Raises UnusableSetting for a file that is of no use.
    """
    if all(mount.is_public and not mount.needs_rule_to_write for mount in settings.mounts):
        return None
    return Access({name: _rule(name, rule, elapsed) for name, rule in settings.access.items()}, inner_mounts)


def _rule(name: str, settings: AccessRule, elapsed: Callable[[], float]) -> Rule:  # noqa: PLR0911 - one for each kind
    if settings.bearer is not None:
        return BearerRule(settings.bearer, elapsed)
    if settings.basic is not None:
        try:
            return BasicRule(settings.basic, elapsed)
        except ValueError as error:
            raise UnusableSetting(str(error), ("access", name, "basic", "file")) from None
    if settings.signed_url is not None:
        return SignedUrlRule(settings.signed_url, elapsed)
    if settings.jwt is not None:
        return JwtRule(settings.jwt, elapsed)
    if settings.forward is not None:
        return ForwardRule(settings.forward, elapsed)
    if settings.client_certificate is not None:
        return CertificateRule(settings.client_certificate)
    assert settings.networks is not None, "a rule has one kind"
    return NetworksRule(settings.networks)
