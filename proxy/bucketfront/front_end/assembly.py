"""Puts the owner's side of the front ends together."""

from contextlib import AsyncExitStack

from bucketfront.cache import CacheAssembly
from bucketfront.config.settings import Settings
from bucketfront.front_end.counts import Counts
from bucketfront.front_end.front_ends import FrontEnds, OwnerParts
from bucketfront.front_end.handed_connection import handed_maker
from bucketfront.front_end.lease_grants import LeaseGrants
from bucketfront.front_end.nursery import Nursery
from bucketfront.server.fast_path.fast_connection import FastConnectionServer
from bucketfront.server.http1.connection import ConnectionServer
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.connection_tally import ConnectionTally
from bucketfront.server.server import Server, ServerParts


def build_front_ends(
    stack: AsyncExitStack,
    nursery: Nursery,
    workers: int,
    settings: Settings,
    server: Server,
    server_parts: ServerParts,
    admin: ConnectionServer,
    cache_assembly: CacheAssembly,
    *,
    clock_runs: bool,
) -> FrontEnds:
    """Return what starts `workers` processes that accept connections in place of the listener of `server`.

    `stack` gets what ends them. If the clock does not run, a test sets it.
    """
    grants = LeaseGrants(server_parts.cache, cache_assembly.clock)
    connections, limit = server.listener.server, server_parts.connections
    assert isinstance(connections, FastConnectionServer)
    # No response of the owner begins while a front end may serve what was before it.
    connections.gate = admin.gate = grants.settled
    parts = OwnerParts(
        grants=grants,
        telemetry=server_parts.telemetry,
        listener=server.listener,
        connections=limit,
        lock=lambda: cache_assembly.store.folder.lock_fd,
        clock=cache_assembly.clock,
        clock_runs=clock_runs,
        counts=Counts(limit, server.generations.fast_path, server.headers, server.listener.tls),
        make=handed_maker(connections, lambda: grants.is_settled),
    )
    front_ends = FrontEnds(nursery, workers, settings, parts)
    limit.tally = ConnectionTally.create()
    stack.callback(_count_alone, limit)
    stack.push_async_callback(front_ends.stop)
    return front_ends


def _count_alone(limit: ConnectionLimit) -> None:
    """Count the connections of this process alone, because the others have ended."""
    tally, limit.tally = limit.tally, None
    if tally is not None:
        tally.close()
