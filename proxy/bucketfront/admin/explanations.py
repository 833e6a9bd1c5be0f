"""`GET /api/v1/explain`: what the cache knows of a path, and what the next GET of it gets. It changes nothing."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, StringConstraints

from bucketfront.admin.entries import ListedEntry, listed_entry
from bucketfront.admin.fills import RunningFill, fill_of, percent
from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.outlook import Examined, Next, deciding, described
from bucketfront.admin.query import read_query
from bucketfront.admin.refusal import Refused
from bucketfront.cache import BlockView, Cache, CacheMode, KeyView, Removal
from bucketfront.config.access_settings import PUBLIC
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import BadPath, NoSuchMount, ProxyError, StoreError
from bucketfront.http.freshness import Basis
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import ObjectKey
from bucketfront.server import representation
from bucketfront.server.inner_mounts import InnerMounts
from bucketfront.server.pipeline import Pipeline, inner_mounts_stage
from bucketfront.server.router import MissingSlash, MisspelledMount, Route, Router
from bucketfront.server.selection import candidates
from bucketfront.server.telemetry.last_responses import LastResponses

MAX_CANDIDATES = 64  # that are examined; the settings of a site give a few


class ExplainQuery(BaseModel):
    """The path to explain, percent-encoded and with its query, as a client sends it.

    `accept_encoding` is that of the client, which may select a precompressed object.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, StringConstraints(min_length=1, max_length=8192)]
    accept_encoding: Annotated[str, StringConstraints(max_length=1024)] | None = None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mount(_Model):
    """A mount that decides on the path, and the access rules of which one must hold for a read."""

    path: str
    bucket: str
    prefix: str
    read: list[str]
    public: bool


class Lifetime(_Model):
    """How long the object is fresh, in seconds, and what decides that.

    `basis` is the directive or header of the object's own `header`, or `configured`. Then `rule` is the pattern of the
    rule of `freshness.rules`, and null for the default. `builtin` is true for a rule of `freshness.media_rules`.
    Without an entry these are the values for an object that has no lifetime of its own.
    """

    ttl: float
    basis: str
    header: str | None
    rule: str | None
    builtin: bool
    stale_while_revalidate: float | None
    stale_if_error: float
    outage: float
    must_revalidate: bool
    negative_ttl: float


class Blocks(_Model):
    """The blocks of an entry. `runs` are the first runs of present ones, each up to the block behind its last."""

    block_size: int
    count: int
    runs: list[tuple[int, int]]
    present: int
    percent: float
    unverified: int


class LastRemoval(_Model):
    """The last known reason why the key had no entry, or why bytes of it were not stored. Times are in seconds."""

    reason: str
    at: float
    ago: float
    age: float
    idle: float
    text: str


class ExplainedCandidate(_Model):
    """One object that may serve the path, in the order in which requests try them.

    `decides` is true for the one that serves the next GET. `age` is in seconds. `pins` are its users now, and `uses`
    is null for an entry that is not in memory. `absent_for` is the time in seconds for which a 404 is remembered.
    """

    bucket: str
    key: str
    version: str | None
    coding: str | None
    location: str | None
    fallback: bool
    optional: bool
    decides: bool
    next: str
    why: str
    state: str | None
    age: float | None
    entry: ListedEntry | None
    blocks: Blocks | None
    lifetime: Lifetime
    pins: int
    uses: int | None
    fill: RunningFill | None
    looked_up: bool
    absent_for: float | None
    refused: bool
    removal: LastRemoval | None


class Outlook(_Model):
    """What the next GET of the path gets."""

    decision: str
    why: str


class LastSeen(_Model):
    """The last response to the path, as it was sent. `at` is in seconds since the epoch.

    `cache` is its Cache-Status without the proxy's name, and `fault` the reason of a failure.
    """

    at: float
    method: str
    status: int
    cache: str
    fault: str | None


class Explanation(_Model):
    """What is known of a path. `last` is null if no response to it is remembered."""

    path: str
    last: LastSeen | None
    mounts: list[Mount]
    next: Outlook
    candidates: list[ExplainedCandidate]


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/explain": Operation(
        hdrs.METH_GET,
        "What the cache knows of a path, and what the next GET gets",
        {200: (Body(Media.JSON, Explanation),), 500: FAILURE},
        query=ExplainQuery,
    ),
}


class Explanations:
    """Explains paths, by the functions that serve requests."""

    def __init__(self, settings: Settings, cache: Cache, last_responses: LastResponses) -> None:
        self._cache = cache
        self._last_responses = last_responses
        self._router = Router(settings.mounts, settings.uploads)
        self._inner_mounts = InnerMounts(settings.mounts)
        self._pipeline = Pipeline(inner_mounts_stage(settings))
        self._policy = FreshnessPolicy(settings.freshness)
        self.handlers = {"/api/v1/explain": self._explain}

    async def _explain(self, request: web.BaseRequest) -> web.Response:
        wanted = read_query(request, ExplainQuery)
        try:
            explanation = self.of(wanted.path, wanted.accept_encoding)
        except (BadPath, NoSuchMount) as error:
            raise Refused(400, str(error)) from error
        except StoreError as error:
            raise Refused(500, str(error)) from error
        return web.json_response(text=explanation.model_dump_json())

    def of(self, path: str, accept_encoding: str | None) -> Explanation:
        """Return the explanation of a path. Raises BadPath, NoSuchMount, StoreError."""
        located = self._router.locate(path)
        try:
            route = self._pipeline.admit(hdrs.METH_GET, self._router.resolve(hdrs.METH_GET, path), _no_field)
            query = representation.query_of(route)
            coding = None if representation.sets_coding(query) else accept_encoding
            tried = list(islice(candidates(route, query.version, coding, Dialect.HTTP), MAX_CANDIDATES))
        except (MissingSlash, MisspelledMount) as error:
            outlook = Outlook(decision=Next.REDIRECT.value, why=f"clients are redirected to {error.target}")
            return self._without_candidates(path, located, outlook)
        except ProxyError as error:
            outlook = Outlook(decision=Next.REFUSED.value, why=str(error))
            return self._without_candidates(path, located, outlook)
        found = [Examined(each, self._cache.explain(each.key), self._policy.may_store(each.key)) for each in tried]
        decides = deciding(found)
        if decides is None:
            outlook = Outlook(decision=Next.ABSENT.value, why=found[0].why)
        else:
            outlook = Outlook(decision=decides.next.value, why=decides.why)
        if self._cache.mode is not CacheMode.SERVE:
            outlook = self._not_served(outlook)
        return Explanation(
            path=path,
            last=self._last(path),
            mounts=self._mounts(route, found[0].view.key if decides is None else decides.view.key),
            next=outlook,
            candidates=[self._candidate(each, decides=each is decides) for each in found],
        )

    def _not_served(self, would: Outlook) -> Outlook:
        """Return the outlook while S3 serves because of `cache.mode`. `would` is that of the cache."""
        why = f"cache.mode is {self._cache.mode}, so that S3 serves each read"
        if self._cache.mode is CacheMode.SHADOW:
            why += f"; the cache would do this: {would.decision}, because {would.why}"
        return Outlook(decision=Next.BYPASS.value, why=why)

    def _without_candidates(self, path: str, route: Route, outlook: Outlook) -> Explanation:
        mounts = self._mounts(route, None)
        return Explanation(path=path, last=self._last(path), mounts=mounts, next=outlook, candidates=[])

    def _last(self, path: str) -> LastSeen | None:
        last = self._last_responses.find(path.partition("?")[0])
        return None if last is None else LastSeen(**last._asdict())

    def _mounts(self, route: Route, key: ObjectKey | None) -> list[Mount]:
        """Return the mounts whose access rules must hold: that of the path, and an inner one of the key."""
        inner = None if key is None else self._inner_mounts.of(route.mount, key.key.encode())
        return [_mount(mount) for mount in (route.mount, inner) if mount is not None]

    def _candidate(self, examined: Examined, *, decides: bool) -> ExplainedCandidate:
        candidate, view = examined.candidate, examined.view
        return ExplainedCandidate(
            bucket=candidate.key.bucket,
            key=candidate.key.key,
            version=candidate.key.version,
            coding=candidate.coding,
            location=candidate.location,
            fallback=candidate.is_fallback,
            optional=candidate.is_optional,
            decides=decides,
            next=examined.next.value,
            why=examined.why,
            state=view.state,
            age=None if view.entry is None else round(view.entry.age, 3),
            entry=None if view.entry is None else listed_entry(view.entry, self._router),
            blocks=None if view.blocks is None else _blocks(view.blocks, view),
            lifetime=self._lifetime(view),
            pins=view.pins,
            uses=view.uses,
            fill=None if view.fill is None else fill_of(view.fill, self._router),
            looked_up=view.is_looked_up,
            absent_for=view.absent_for,
            refused=view.is_refused,
            removal=None if view.removal is None else _removal(view.removal, view.now),
        )

    def _lifetime(self, view: KeyView) -> Lifetime:
        patterns, defaults = self._policy.rules.patterns(view.key.key), self._policy.defaults(view.key)
        freshness = None if view.entry is None else view.entry.freshness
        basis = Basis.CONFIGURED if freshness is None else freshness.basis
        if not self._policy.may_store(view.key):
            basis = Basis.RULE
        rule = patterns.get({Basis.CONFIGURED: "ttl", Basis.RULE: "cache"}.get(basis, ""))
        window = defaults.stale_while_revalidate
        return Lifetime(
            ttl=defaults.ttl if freshness is None else freshness.ttl,
            basis=basis.value,
            header=None if freshness is None else freshness.header,
            rule=rule,
            builtin=rule is not None and not self._policy.is_own(rule),
            stale_while_revalidate=window if freshness is None else freshness.stale_while_revalidate,
            stale_if_error=defaults.stale_if_error if freshness is None else freshness.stale_if_error,
            outage=max(defaults.stale_if_error, defaults.outage) if freshness is None else freshness.outage,
            must_revalidate=freshness is not None and freshness.must_revalidate,
            negative_ttl=self._policy.negative_ttl(view.key),
        )


def _no_field(_: str) -> None:
    """Return the value of a field of a request that has none."""


def _mount(mount: MountSettings) -> Mount:
    return Mount(
        path=mount.path, bucket=mount.bucket, prefix=mount.prefix, read=list(mount.read), public=PUBLIC in mount.read
    )


def _blocks(blocks: BlockView, view: KeyView) -> Blocks:
    size = 0 if view.entry is None else view.entry.metadata.size
    return Blocks(
        block_size=blocks.block_size,
        count=blocks.count,
        runs=list(blocks.runs),
        present=blocks.present,
        percent=percent(blocks.present, size),
        unverified=blocks.unverified,
    )


def _removal(removal: Removal, now: float) -> LastRemoval:
    return LastRemoval(
        reason=removal.reason.value,
        at=removal.at,
        ago=round(now - removal.at, 3),
        age=round(removal.age, 3),
        idle=round(removal.idle, 3),
        text=described(removal, now),
    )
