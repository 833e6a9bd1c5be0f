"""What the applications of all listeners for clients do with a request, around what each of them dispatches.

One request is one `Exchange`. It is named, traced, counted and logged, and its exceptions become responses.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web

from bucketfront.config.settings import Settings
from bucketfront.errors import ProxyError
from bucketfront.fair_share import FairShares, Resource, act_for, acting_for
from bucketfront.http import via
from bucketfront.http.s3_requests import Dialect
from bucketfront.request_trace import tracing
from bucketfront.server import error_responses
from bucketfront.server.access.clients import Clients
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.cors import Cors
from bucketfront.server.cut import BrokenOff, Cut
from bucketfront.server.error_responses import LoopDetected
from bucketfront.server.http1.connection import Connection
from bucketfront.server.pipeline import ReadField
from bucketfront.server.send.sender import abort
from bucketfront.server.telemetry.access_log import CLIENT_CLOSED_REQUEST
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.telemetry import Telemetry

_SENDING = frozenset({"PUT", "POST", "PATCH"})  # methods of requests that have a body

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestParts:
    """What each request needs of the process.

    `clock` is wall time in seconds since the epoch. `name` and `begin_trace` are as in `Exchange.identify`.
    """

    telemetry: Telemetry
    clock: Callable[[], float]
    shares: FairShares
    name: str
    begin_trace: Callable[[], str | None]


class ClientApplication(ABC):
    """Handles the requests of all connections, one at a time for each connection, as `web.Server` calls it."""

    def __init__(self, settings: Settings, parts: RequestParts) -> None:
        self._name = parts.name
        self._begin_trace = parts.begin_trace
        self._cors = Cors(settings.cors)
        self._addresses = ClientAddresses(settings.server.trusted_proxies)
        self._shows_timing = settings.server.timing
        self._telemetry = parts.telemetry
        self._clock = parts.clock
        self._shares = parts.shares
        self._clients = Clients(settings.server.front_networks, has_shares=settings.server.client_share is not None)

    @abstractmethod
    def _dialect(self, request: web.BaseRequest) -> Dialect:
        """Return the form of the response."""

    @abstractmethod
    async def _dispatch(self, exchange: Exchange) -> web.StreamResponse:
        """Respond to a request. Raises ProxyErrors before a byte of a response was sent."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        common = self._cors.fields(request.headers.get(hdrs.ORIGIN))
        connection = request.protocol
        of_connection = connection.response_fields if isinstance(connection, Connection) else ()
        exchange = Exchange(request, clock(), common, of_connection, self._shows_timing, self._dialect(request))
        exchange.address = self._addresses.of(request.remote, field_of(request))
        status = CLIENT_CLOSED_REQUEST
        try:
            # `_enter` names the client.
            with acting_for(None), tracing(exchange.identify(self._name, self._begin_trace)):
                response = await self._respond(exchange)
            status = response.status
        except BrokenOff as error:
            exchange.failed(error)
            exchange.fault, exchange.cut = str(error), error.cut
            raise
        except (ConnectionError, asyncio.CancelledError):
            if isinstance(connection, Connection) and connection.is_stopped:
                exchange.fault, exchange.cut = "the proxy stops", Cut.STOP
            raise
        finally:
            exchange.leave_places()
            if exchange.cut is not None:
                status = exchange.begun or HTTPStatus.SERVICE_UNAVAILABLE
            self._telemetry.finished(exchange, status, clock() - exchange.started)
        return response

    async def _respond(self, exchange: Exchange) -> web.StreamResponse:
        """Dispatch the request, and turn its exceptions into responses."""
        try:
            return await self._dispatch(exchange)
        except ProxyError as error:
            log.info("%s: %s", type(error).__name__, error)
            exchange.failed(error)
            exchange.status = error_responses.cache_status(error, exchange.request.method)
            response = error_responses.response_to(error, exchange)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a request failed with an unexpected error")
            if exchange.request.writer.output_size:
                abort(exchange.request)
                raise BrokenOff("internal error", Cut.BUG) from None
            exchange.fault = "bug"
            response = error_responses.error_response(exchange, 500, "internal error")
        if exchange.request.method not in ("GET", "HEAD", "DELETE"):
            response.force_close()  # no handler reads the rest of the body
        return response

    def _refuse_loops(self, exchange: Exchange) -> None:
        """Raise LoopDetected for a request that this process has sent, or that has passed too many others."""
        if self._name in exchange.passed:
            raise LoopDetected("this proxy has sent the request itself: an origin.endpoint_url leads back to it")
        if len(exchange.passed) >= via.MAX_HOPS:
            raise LoopDetected(f"the request has passed {len(exchange.passed)} proxies already")

    def _enter(self, exchange: Exchange, credential: str | None) -> None:
        """Give the request its places, and let the task work for its client. Raises ShareUsedUp, WholeUsedUp."""
        exchange.user = credential
        request = exchange.request
        is_hidden = exchange.address is None and self._addresses.hides(request.remote, field_of(request))
        client = self._clients.name(exchange.address, credential, is_hidden=is_hidden)
        exchange.places.append(self._shares.take(Resource.REQUESTS, client))
        if request.method in _SENDING:
            exchange.places.append(self._shares.take(Resource.UPLOADS, client))
        act_for(client)


def field_of(request: web.BaseRequest) -> ReadField:
    """Return the function that reads the request's fields for the stages."""

    def field(name: str) -> str | None:
        # RFC 9110 section 5.3: the values of a field that occurs more than once are one list.
        values = request.headers.getall(name, None)
        return None if values is None else ", ".join(values)

    return field
