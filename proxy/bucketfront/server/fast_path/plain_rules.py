"""The rules of the fast path under the present settings."""

import logging

from bucketfront.config.settings import Settings
from bucketfront.http.path_rules import Rules
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.fast_path import PlainRules
from bucketfront.server.fast_path.prepared import LeaseFinder, PreparedResponses
from bucketfront.server.fast_path.recogniser import UNKEYED_FIELDS, recogniser
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import Router
from bucketfront.server.telemetry.logged_fields import names_of

log = logging.getLogger(__name__)


def plain_rules(settings: Settings, pipeline: Pipeline, rules: Rules, cache: LeaseFinder) -> PlainRules | None:
    """Return the rules of the fast path, or None if it is off."""
    if not settings.has_fast_path:
        return None
    if unkeyed := pipeline.reads & UNKEYED_FIELDS:
        log.info("the fast path is off: a stage reads %s", ", ".join(sorted(unkeyed)))
        return None
    router, cors = Router(settings.mounts, settings.uploads), Cors(settings.cors)
    prepared = PreparedResponses(cache, router, cors, rules, pipeline)
    recognise = recogniser(pipeline.reads, pipeline.plain_hosts, names_of(settings.access_log.fields))
    return PlainRules(recognise, prepared, ClientAddresses(settings.server.trusted_proxies))
